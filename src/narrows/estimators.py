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
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from narrows import data, defaults, draws, evaluate, recipes
from narrows.labels import labels_of
from narrows.models import Model
from narrows.objectives import Objective
from narrows.training import Training, fit

__all__ = [
    "AAE",
    "AE",
    "CIWAE",
    "DIPVAE",
    "FSQ",
    "HVAE",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "SWAE",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "WAE",
    "AnnealedVAE",
    "BetaTCVAE",
    "BetaVAE",
    "ConcreteVAE",
    "ConditionalVAE",
    "ContractiveAE",
    "ConvLadderVAE",
    "DenoisingAE",
    "Diffusion",
    "DropoutAE",
    "FactorVAE",
    "FlowVAE",
    "InfoVAE",
    "LadderVAE",
    "LinearAE",
    "RegularisedAE",
    "RenyiVAE",
    "SemiSupervisedAAE",
    "SemiSupervisedVAE",
    "SparseAE",
    "StackedAE",
    "VampPriorVAE",
]

Array = NDArray[Any]


def _parameters(recipe: str, also: tuple[str, ...]) -> list[inspect.Parameter]:
    """What a face of a recipe takes: the recipe's arguments but for what the data say, and some of the objective's."""
    given = dict(inspect.signature(getattr(recipes, recipe)).parameters)
    objective = inspect.signature(Objective).parameters
    names = [name for name in given if name not in ("shape", "context", "classes", "seed", "objective")] + list(also)
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

        Values are scaled as their type and range suggest (`nr.data.load`), but kept as they are for a likelihood of
        counts. y is not used.
        """
        return self._fit(self._checked(X, reset=True))

    def _fit(self, checked: Array, label: Array | None = None, **loading: Any) -> Self:
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = 0 if seed is None else check_random_state(seed).randint(2**31)
        own = {n: v for n, v in self.get_params(deep=False).items() if n not in ("training", "random_state")}
        held, counts = 0.1 if len(checked) >= 20 else 0.0, defaults.counted(own["likelihood"])
        found = data.load(checked, label=label, test=0.0, valid=held, seed=int(seed), counts=counts, **loading)
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

    def sample(self, n: int = 1, seed: int = 0, mean: bool = True, temperature: float | Sequence[float] = 1.0) -> Array:
        """N new rows in the units of the data: the mean of p(x|z) for z from the prior, or a draw from it.

        `temperature` multiplies the prior's standard deviations; for a code of rungs it may be one for each, top first.
        Raises: TypeError where the model has no prior, or one that has no temperature.
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

    def _in(self, dtype: np.dtype[Any]) -> Model:
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


class _Classes(ClassifierMixin):  # type: ignore[misc]
    """What faces share that are told classes: y in `fit`, `predict`, `predict_proba`, and `score` is accuracy.

    After `fit` they have besides `classes_` and `class_prior_`, p(y).
    """

    _partly = True  # whether some rows may come without a label
    run_: Any
    model_: Model
    scaling_: Any

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains on rows X and their labels y (n,); -1 (None or "" where labels are words) stands for unlabelled.

        Raises: ValueError for labels that are no classes, or fewer than two of them.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None: labels (n,)")
        checked = self._checked(X, reset=True)  # type: ignore[attr-defined]
        y = column_or_1d(y.detach().cpu() if isinstance(y, torch.Tensor) else y, warn=True)
        check_consistent_length(checked, y)
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name="y")
        known = np.array([v is not None and v != "" for v in y]) if y.dtype.kind in "OUS" else np.ones(len(y), bool)
        if self._partly and y.dtype.kind not in "OUS":
            known = y != -1
        if known.any():
            check_classification_targets(y[known])
        self.classes_, coded = np.unique(y[known], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} learns at least two classes; y has {len(self.classes_)} class")
        if not self._partly and not known.all():
            raise ValueError(
                f"{type(self).__name__} is told the label of every row, and {int((~known).sum())} have none; take "
                "SemiSupervisedVAE for these"
            )
        label = np.full(len(y), -1)
        label[known] = coded
        told = {} if self._partly else {"context": "label"}
        count = np.full(len(self.classes_), 1.0) if self._partly else np.bincount(coded)
        self.class_prior_ = count / count.sum()
        return self._fit(checked, label, **told)  # type: ignore[attr-defined]

    def predict_proba(self, X: Any) -> Array:
        """p(y|x) of each class in the order of `classes_`, (n, classes)."""
        rows, dtype = self._rows(X)  # type: ignore[attr-defined]
        prior = None if self._partly else torch.from_numpy(self.class_prior_)
        return evaluate.predict_proba(self._in(dtype), rows, prior).double().numpy()  # type: ignore[attr-defined]

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row, (n,)."""
        p = self.predict_proba(X)
        found: Array = self.classes_[p.argmax(1)]
        return found

    def sample(self, n: int = 1, seed: int = 0, mean: bool = True, label: Any = None) -> Array:
        """N new rows in the units of the data, of one class, or of all as they are frequent (`class_prior_`)."""
        check_is_fitted(self)
        if label is not None and label not in self.classes_:
            raise ValueError(f"there are the classes {', '.join(map(str, self.classes_))}; got label={label!r}")
        model = self.model_
        with draws.seeded(seed), torch.no_grad():
            which = torch.multinomial(torch.from_numpy(self.class_prior_), n, replacement=True)
            which = which if label is None else torch.full_like(which, int(np.flatnonzero(self.classes_ == label)[0]))
            one = torch.eye(len(self.classes_))[which].to(next(model.parameters()).device)
            told = one if model.context else None
            z = model.draw(n, told)
            if labels_of(model):
                z[:, : one.shape[1]] = one
            px = model.decode(z, told)
            made: Array = self.scaling_.undo((px.mean if mean else px.sample()).cpu())
        return made


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


class MIWAE(_Estimator, recipe="miwae", also=("free_bits",)):
    """Mean of several importance-weighted bounds (recipe `miwae`)."""


class CIWAE(_Estimator, recipe="ciwae", also=("free_bits",)):
    """ELBO and importance-weighted bound combined (recipe `ciwae`)."""


class PIWAE(_Estimator, recipe="piwae", also=("free_bits",)):
    """Partially importance-weighted autoencoder: one bound for each side (recipe `piwae`)."""


class RenyiVAE(_Estimator, recipe="renyi", also=("free_bits",)):
    """Variational autoencoder with Renyi's bound (recipe `renyi`)."""


class InfoVAE(_Estimator, recipe="infovae", also=("free_bits",)):
    """InfoVAE: rate and a kernel distance of all codes from the prior (recipe `infovae`)."""


class BetaTCVAE(_Estimator, recipe="beta_tc_vae", also=("free_bits",)):
    """beta-TC-VAE: units that share little, by the total correlation of the codes (recipe `beta_tc_vae`)."""


class FactorVAE(_Estimator, recipe="factor_vae", also=("free_bits",)):
    """FactorVAE: units that share little, by a critic (recipe `factor_vae`)."""


class DIPVAE(_Estimator, recipe="dip_vae", also=("free_bits",)):
    """DIP-VAE I and II: codes of the prior's covariance (recipe `dip_vae`)."""


class AnnealedVAE(_Estimator, recipe="annealed_vae", also=("free_bits",)):
    """Annealed VAE: a rate held to a capacity that grows (recipe `annealed_vae`)."""


class SemiSupervisedVAE(_Classes, _Estimator, recipe="semi_supervised", also=("beta", "free_bits")):  # type: ignore[misc]
    """Semi-supervised variational autoencoder: few labels, many rows (recipe `semi_supervised`).

    The first units of a code are the probabilities of the classes, the others the style.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> y = np.where(np.arange(100) < 20, X[:, 0] > 0, -1)
        >>> vae = SemiSupervisedVAE(latent=2, training=Training(epochs=2)).fit(X, y)
        >>> vae.transform(X).shape, vae.predict(X).shape, vae.sample(3, label=1).shape
        ((100, 4), (100,), (3, 5))
    """


class SemiSupervisedAAE(_Classes, _Estimator, recipe="semi_supervised_aae"):  # type: ignore[misc]
    """Semi-supervised adversarial autoencoder: a critic holds label and style (recipe `semi_supervised_aae`)."""


class ConditionalVAE(_Classes, _Estimator, recipe="conditional", also=("beta", "free_bits")):  # type: ignore[misc]
    """Conditional variational autoencoder: every row's label is told (recipe `conditional`).

    Classes are predicted by Bayes' rule; codes are those under the predicted class, or under y where it is given.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> vae = ConditionalVAE(latent=2, training=Training(epochs=2)).fit(X, X[:, 0] > 0)
        >>> vae.transform(X).shape, vae.predict_proba(X).shape, vae.sample(3, label=True).shape
        ((100, 2), (100, 2), (3, 5))
    """

    _partly = False

    def transform(self, X: Any, y: Any = None) -> Array:
        """The posterior mean of each row given its class, (n, latent)."""
        y = self.predict(X) if y is None else y
        rows, dtype = self._rows(X)
        told = data.Rows(rows.x, label=self._places(y, len(rows)), context=len(self.classes_))
        return evaluate.codes(self._in(dtype), told).numpy()

    def inverse_transform(self, Z: Any, y: Any = None) -> Array:
        """E[x|z, y] for codes Z (n, latent) of classes y (n,), in the units of the data that were fitted."""
        check_is_fitted(self)
        if y is None:
            raise TypeError("this model was told the label of every row: say which, inverse_transform(Z, y)")
        checked = check_array(Z, dtype=[np.float64, np.float32])
        if checked.shape[1] != self._n_features_out:
            raise ValueError(f"codes have {self._n_features_out} units; these have {checked.shape[1]}")
        model, z = self._in(checked.dtype), torch.from_numpy(np.ascontiguousarray(checked))
        one = torch.eye(len(self.classes_), dtype=z.dtype)[self._places(y, len(z))]
        place = next(model.parameters()).device
        with torch.no_grad():
            parts = zip(z.split(1024), one.split(1024), strict=True)
            mean = torch.cat([model.decode(a.to(place), b.to(place)).mean.cpu() for a, b in parts])
        return self.scaling_.undo(mean).astype(checked.dtype)

    def score_samples(self, X: Any) -> Array:
        """A deterministic estimate of log p(x), (n,) nats: of p(x|y) over all classes, weighed by `class_prior_`."""
        rows, dtype = self._rows(X)
        prior = torch.from_numpy(self.class_prior_)
        return evaluate.log_joint(self._in(dtype), rows, prior).logsumexp(1).numpy()

    def _places(self, y: Any, n: int) -> torch.Tensor:
        y = column_or_1d(y)
        strange = [v for v in y if v not in self.classes_]
        if strange or len(y) != n:
            raise ValueError(
                f"y is one of {', '.join(map(str, self.classes_))} for each of {n} rows; got {len(y)} labels"
                + (f", {strange[0]!r} among them" if strange else "")
            )
        return torch.from_numpy(np.searchsorted(self.classes_, y))


class FlowVAE(_Estimator, recipe="flow_vae", also=("beta", "free_bits")):
    """VAE whose posterior is bent by a normalising flow (recipe `flow_vae`)."""


class HVAE(_Estimator, recipe="hvae"):
    """VAE of rungs, inferred from the bottom up (recipe `hvae`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> HVAE(rungs=(1, 2), training=Training(epochs=2)).fit_transform(X).shape
        (100, 3)
    """


class LadderVAE(_Estimator, recipe="ladder"):
    """Ladder VAE: rungs inferred from the top down, as they generate (recipe `ladder`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> LadderVAE(rungs=(1, 2), training=Training(epochs=2)).fit(X).sample(3, temperature=(1, 0.5)).shape
        (3, 5)
    """


class VampPriorVAE(_Estimator, recipe="vampprior", also=("beta", "free_bits")):
    """VAE whose prior mixes the posteriors of learned pseudo-inputs (recipe `vampprior`)."""


class ConvLadderVAE(_Estimator, recipe="conv_ladder"):
    """Ladder of maps: a code at several sizes for images (recipe `conv_ladder`).

    `latent` counts the channels of each rung's map, 4 where it is "auto"; `rungs` is their number, or how many there
    are of each size, top first; the largest have a place for every `patch` x `patch` pixels.
    """


class VQVAE(_Estimator, recipe="vqvae"):
    """VQ-VAE: a code of codewords from a learned codebook; `transform` gives their vectors (recipe `vqvae`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> vae = VQVAE(latent=2, grid=(3,), codebook=16, training=Training(epochs=2)).fit(X)
        >>> len(np.unique(vae.transform(X).reshape(100, 2, 3).transpose(0, 2, 1).reshape(-1, 2), axis=0)) <= 16
        True
    """


class VQVAE2(_Estimator, recipe="vqvae2"):
    """VQ-VAE-2: codewords on several grids, the coarse told to the fine (recipe `vqvae2`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> vae = VQVAE2(latent=2, grid=((2,), (4,)), codebook=16, training=Training(epochs=2)).fit(X)
        >>> vae.transform(X).shape  # 2 and 4 places of 2 units
        (100, 12)
    """


class FSQ(_Estimator, recipe="fsq"):
    """Finite scalar quantisation: a code of units rounded to a few values (recipe `fsq`)."""


class ConcreteVAE(_Estimator, recipe="concrete", also=("beta", "free_bits")):
    """VAE whose code is choices among classes; `transform` gives their probabilities (recipe `concrete`).

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> codes = ConcreteVAE(latent=6, training=Training(epochs=2)).fit_transform(X)
        >>> np.allclose(codes.sum(1), 1)  # one choice among 6 classes
        True
    """


class Diffusion(_Estimator, recipe="diffusion"):
    """Diffusion: noise taken away step by step; the code is the noise that leads to a row (recipe `diffusion`).

    `score_samples` is the ELBO from 64 of its `steps`; `sample` and the code take `jumps` steps without noise.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(100, 5))
        >>> diffusion = Diffusion(training=Training(epochs=2)).fit(X)
        >>> diffusion.transform(X).shape, diffusion.sample(3).shape, diffusion.score_samples(X).shape
        ((100, 5), (3, 5), (100,))
    """
