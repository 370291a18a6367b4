"""scikit-learn faces: a recipe as an estimator that fits, transforms and scores arrays and data frames.

Each face takes its recipe's own arguments, by the same names and with the same standard values; None stands for what
suits the data or the recipe. All share

    latent          units of the code, or "auto": what PCA needs for 90 % of the variance
    likelihood      p(x|z), None for what suits the data
    network         None for convolutions on larger images, else a perceptron
    prior           p(z); where training does not use it, it is fitted to the codes afterwards
    training        a `Training`
    random_state    seeds weights, order and split

and after `fit` have `run_`, `model_`, `scaling_`, `n_iter_` steps, `n_features_in_`.
"""

import copy
import inspect
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from narrows import data, defaults, draws, evaluate, recipes
from narrows.models import Autoencoder
from narrows.objectives import Objective
from narrows.training import Training, fit

__all__ = [
    "AAE",
    "AE",
    "IWAE",
    "SWAE",
    "VAE",
    "WAE",
    "BetaVAE",
    "ContractiveAE",
    "DenoisingAE",
    "DropoutAE",
    "LinearAE",
    "RegularisedAE",
    "SparseAE",
    "StackedAE",
]

Array = NDArray[Any]


def _parameters(recipe: str, also: tuple[str, ...]) -> list[inspect.Parameter]:
    """What a face of a recipe takes: the recipe's arguments but for what the data say, and some of the objective's."""
    given = dict(inspect.signature(getattr(recipes, recipe)).parameters)
    objective = inspect.signature(Objective).parameters
    names = [name for name in given if name not in ("shape", "context", "seed", "objective")] + list(also)
    standard = {name: given.get(name, objective.get(name)).default for name in names}  # type: ignore[union-attr]
    standard |= {"latent": "auto", "likelihood": None, "network": None, "training": None, "random_state": None}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=value if isinstance(value, (bool, int, float, str)) else None,
        )
        for name, value in standard.items()
    ]


class _Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the faces share. A subclass names its recipe, and its `__init__` stores that recipe's arguments."""

    _recipe: str
    training: Training | None
    random_state: Any

    def __init_subclass__(cls, recipe: str, also: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.Signature([first, *_parameters(recipe, also)])

        def __init__(self: Self, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            given = signature.bind(self, *args, **kwargs)
            given.apply_defaults()
            for name in list(given.arguments)[1:]:
                setattr(self, name, given.arguments[name])

        __init__.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__, cls._recipe = __init__, recipe  # type: ignore[assignment]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on rows X (n, d), or images (n, H, W) or (n, H, W, C); a tenth of them decides when to stop.

        Values are scaled as their type and range suggest (`nr.data.load`). y is not used.
        """
        checked = self._checked(X, reset=True)
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = 0 if seed is None else check_random_state(seed).randint(2**31)
        found = data.load(checked, test=0.0, valid=0.1 if len(checked) >= 20 else 0.0, seed=int(seed))
        own = {n: v for n, v in self.get_params(deep=False).items() if n not in ("training", "random_state")}
        arguments = defaults.arguments(found, self._recipe, {n: v for n, v in own.items() if v is not None})
        model, objective = getattr(recipes, self._recipe)(**arguments, seed=int(seed))
        training = (self.training or Training()).model_copy(update={"seed": int(seed)})
        self.run_ = fit(model, objective, found, training=training, quiet=True)
        self.run_._data = None  # the rows are the caller's
        self.model_, self.scaling_ = self.run_.model, found.scaling
        self.n_iter_ = self.run_.config["steps"]
        self._n_features_out = model.latent
        return self

    def transform(self, X: Any) -> Array:
        """The code of each row, (n, latent): the posterior mean, so the same row gives the same code."""
        rows, dtype = self._rows(X)
        return evaluate.codes(self._in(dtype), rows).numpy()

    def inverse_transform(self, Z: Any) -> Array:
        """E[x|z] for codes Z (n, latent), in the units of the data that were fitted."""
        check_is_fitted(self)
        checked = check_array(Z, dtype=[np.float64, np.float32])
        if checked.shape[1] != self._n_features_out:
            raise ValueError(f"codes have {self._n_features_out} units; these have {checked.shape[1]}")
        model, z = self._in(checked.dtype), torch.from_numpy(np.ascontiguousarray(checked))
        with torch.no_grad():
            mean = torch.cat(
                [model.decode(part.to(next(model.parameters()).device)).mean.cpu() for part in z.split(1024)]
            )
        return self.scaling_.undo(mean).astype(checked.dtype)

    def score_samples(self, X: Any) -> Array:
        """A deterministic estimate of log p(x) of each row, (n,) nats of the scaled values; higher is more normal."""
        rows, dtype = self._rows(X)
        return evaluate.score_samples(self._in(dtype), rows).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`, what a grid search maximises."""
        return float(self.score_samples(X).mean())

    def sample(self, n: int = 1, seed: int = 0, mean: bool = True, temperature: float = 1.0) -> Array:
        """N new rows in the units of the data: the mean of p(x|z) for z from the prior, or a draw from it.

        `temperature` multiplies the prior's standard deviations. Raises: TypeError where the model has no prior, or one
        that has no temperature.
        """
        check_is_fitted(self)
        with draws.seeded(seed), torch.no_grad():
            px = self.model_.sample(n, temperature=temperature)
            return self.scaling_.undo((px.mean if mean else px.sample()).cpu())

    def set_params(self, **parameters: Any) -> Self:
        """Sets parameters; `training__epochs=5` reaches into the training settings."""
        if self.training is None and any(name.startswith("training__") for name in parameters):
            self.training = Training()
        super().set_params(**parameters)
        return self

    def _checked(self, X: Any, reset: bool = False) -> Array:
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        least = 2 if reset else 1
        checked = validate_data(self, X, reset=reset, dtype="numeric", allow_nd=True, ensure_min_samples=least)
        array: Array = np.asarray(checked)
        if np.iscomplexobj(array):
            raise ValueError("Complex data not supported: take real and imaginary parts as columns")
        return array

    def _rows(self, X: Any) -> tuple[data.Rows, np.dtype[Any]]:
        check_is_fitted(self)
        array = self._checked(X)
        dtype = array.dtype if array.dtype == np.float32 else np.dtype(np.float64)
        shape = self.model_.shape
        if len(shape) == 3 and array.shape[1:] != shape:  # images as they were given to fit
            array = array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1)
        x = self.scaling_(torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)))
        return data.Rows(x.to(getattr(torch, dtype.name))), dtype

    def _in(self, dtype: np.dtype[Any]) -> Autoencoder:
        """The model in the precision of the data: rounding then does not depend on how rows are batched."""
        return self.model_ if dtype == np.float32 else copy.deepcopy(self.model_).double()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "run_" in state:  # what a GPU trained is read where there is none
            run = copy.copy(state["run_"])
            run.model, run.objective = copy.deepcopy(run.model).cpu(), copy.deepcopy(run.objective).cpu()
            state |= {"run_": run, "model_": run.model}
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class AE(_Estimator, recipe="autoencoder"):
    """Autoencoder: a deterministic code (recipe `autoencoder`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> AE(latent=2, training=Training(epochs=2)).fit_transform(X).shape
        (100, 2)
    """


class LinearAE(_Estimator, recipe="linear"):
    """Linear autoencoder: principal components as a member of the family (recipe `linear`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> LinearAE(latent=2).fit(X).n_iter_
        0
    """


class DenoisingAE(_Estimator, recipe="denoising"):
    """Denoising autoencoder: learns to undo a corruption (recipe `denoising`)."""


class DropoutAE(_Estimator, recipe="dropout"):
    """Dropout autoencoder: hidden units left out at random (recipe `dropout`)."""


class ContractiveAE(_Estimator, recipe="contractive"):
    """Contractive autoencoder: a code that follows x slowly (recipe `contractive`)."""


class StackedAE(_Estimator, recipe="stacked"):
    """Stacked autoencoder: trained layer by layer, then end to end (recipe `stacked`).

    `hidden` are the encoder's hidden widths, which the decoder mirrors; `corruption` is what each layer learns to undo
    (`Masking(0.25)`: stacked denoising), `throughout` whether the training end to end learns it too; `pretraining` the
    passes over the rows for each layer, None for 2,000 steps.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 8))
        >>> StackedAE(latent=2, hidden=(16, 4), training=Training(epochs=2)).fit_transform(X).shape
        (100, 2)
    """


class RegularisedAE(_Estimator, recipe="regularised"):
    """Regularised autoencoder: generative by a density that is fitted to its codes (recipe `regularised`)."""


class SparseAE(_Estimator, recipe="sparse"):
    """Sparse autoencoder: many units of which few fire, four for each column where latent is "auto" (recipe `sparse`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> codes = SparseAE(latent=20, active=3, training=Training(epochs=2)).fit_transform(X)
        >>> bool(((codes != 0).sum(1) <= 3).all())
        True
    """


class AAE(_Estimator, recipe="aae"):
    """Adversarial autoencoder: a critic holds the codes to the prior (recipe `aae`)."""


class WAE(_Estimator, recipe="wae_mmd"):
    """Wasserstein autoencoder: a kernel distance holds the codes to the prior (recipe `wae_mmd`)."""


class SWAE(_Estimator, recipe="swae"):
    """Sliced Wasserstein autoencoder (recipe `swae`)."""


class VAE(_Estimator, recipe="vae", also=("beta", "free_bits")):
    """Variational autoencoder: a density, codes, samples (recipe `vae`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> vae = VAE(latent=2, training=Training(epochs=2)).fit(X)
        >>> vae.transform(X).shape, vae.sample(3).shape, vae.score_samples(X).shape
        ((100, 2), (3, 5), (100,))
    """


class BetaVAE(_Estimator, recipe="beta_vae", also=("free_bits",)):
    """beta-VAE: the rate weighed by beta (recipe `beta_vae`)."""


class IWAE(_Estimator, recipe="iwae", also=("free_bits",)):
    """Importance-weighted autoencoder (recipe `iwae`)."""
