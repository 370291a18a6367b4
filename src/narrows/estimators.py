"""scikit-learn faces: a recipe as an estimator that fits, transforms and scores arrays and data frames."""

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from narrows import data, defaults, evaluate, recipes
from narrows.models import Autoencoder
from narrows.training import Training, fit

__all__ = ["AE", "VAE"]

Array = NDArray[Any]


class _Estimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the faces share. A subclass names its recipe, and its `__init__` stores that recipe's arguments."""

    _recipe = ""
    training: Training | None
    random_state: Any

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


class AE(_Estimator):
    """Autoencoder as a scikit-learn transformer: a deterministic code (recipe `autoencoder`).

    Arguments: `latent` units or "auto" (what PCA needs for 90 % of the variance); `likelihood` and `network` as for the
    recipes, None for what suits the data; `training` a `Training`; `random_state` seeds weights, order and split.
    Attributes: `run_`, `model_`, `scaling_`, `n_iter_` steps, `n_features_in_`.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> AE(latent=2, training=Training(epochs=2)).fit_transform(X).shape
        (100, 2)
    """

    _recipe = "autoencoder"

    def __init__(
        self,
        latent: int | str = "auto",
        likelihood: Any = None,
        network: Any = None,
        training: Training | None = None,
        random_state: Any = None,
    ) -> None:
        self.latent = latent
        self.likelihood = likelihood
        self.network = network
        self.training = training
        self.random_state = random_state


class VAE(_Estimator):
    """Variational autoencoder as a scikit-learn transformer: a density, codes, samples (recipe `vae`).

    Arguments: as `AE`, and `beta` and `free_bits` of the objective.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> vae = VAE(latent=2, training=Training(epochs=2)).fit(X)
        >>> vae.transform(X).shape, vae.sample(3).shape, vae.score_samples(X).shape
        ((100, 2), (3, 5), (100,))
    """

    _recipe = "vae"

    def __init__(
        self,
        latent: int | str = "auto",
        likelihood: Any = None,
        network: Any = None,
        beta: Any = 1.0,
        free_bits: float = 0.0,
        training: Training | None = None,
        random_state: Any = None,
    ) -> None:
        self.latent = latent
        self.likelihood = likelihood
        self.network = network
        self.beta = beta
        self.free_bits = free_bits
        self.training = training
        self.random_state = random_state

    def sample(self, n: int = 1, seed: int = 0, mean: bool = True) -> Array:
        """N new rows in the units of the data: the mean of p(x|z) for z from the prior, or a draw from it."""
        from narrows import draws

        check_is_fitted(self)
        with draws.seeded(seed), torch.no_grad():
            px = self.model_.sample(n)
            return self.scaling_.undo((px.mean if mean else px.sample()).cpu())
