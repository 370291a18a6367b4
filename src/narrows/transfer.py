"""Labels on top of a trained encoder: a head that is trained alone, with the last layers, or with all of them.

Supervised learning is the same equation with another target: the encoder's point code z, a head in the decoder's place,
and -log p(y|z) as the distortion. So the one loop trains it, and stops early on a held-out tenth.
"""

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from narrows import data, draws, evaluate
from narrows.export import Encode
from narrows.likelihoods import Categorical, Gaussian, Likelihood
from narrows.models import Autoencoder, Model
from narrows.networks import Mlp
from narrows.objectives import Objective
from narrows.posteriors import Deterministic
from narrows.store import Run
from narrows.training import Training, fit

__all__ = ["Classifier", "Regressor", "finetune"]

Array = NDArray[Any]


class _Headed(BaseEstimator):  # type: ignore[misc]
    """An encoder with a head; the two below say what the head is for.

    Arguments: `source`, a `Run` or a model; `freeze`, True for the head alone, False for everything, or a number of
    leading layers; `hidden`, widths of the head's hidden layers; `training`; `random_state` of head, order and split.
    After `fit`: `network_`, a plain module from rows in model units to what the head says, and `n_iter_` steps.
    """

    def __init__(
        self,
        source: Run | Model,
        freeze: bool | int = False,
        hidden: tuple[int, ...] = (),
        training: Training | None = None,
        random_state: Any = None,
    ) -> None:
        self.source, self.freeze, self.hidden = source, freeze, hidden
        self.training, self.random_state = training, random_state

    def _learn(self, X: Any, order: Array, target: Tensor, likelihood: Likelihood) -> Self:
        """Trains on targets (n, *event); of the rows in `order` every tenth decides when to stop."""
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = 0 if seed is None else check_random_state(seed).randint(2**31)
        rows = self._rows(X)
        source = copy.deepcopy(self._model)
        frozen, encoder = self._freeze(source), Encode(source, None)
        if frozen:  # its codes are all that the head will ever see of x
            rows = data.rows(evaluate.codes(source, rows))
        source.decoder = nn.Identity()
        posterior = Deterministic(source.latent)
        with draws.seeded(int(seed)):
            head = Mlp((source.latent,), likelihood.wants, hidden=tuple(self.hidden))
        model = Autoencoder(nn.Identity() if frozen else encoder, posterior, head, likelihood)
        rows = rows.towards(target)
        held = torch.from_numpy(order[9::10] if len(order) >= 20 else order[:0])
        others = torch.from_numpy(np.setdiff1d(order, held.numpy()))
        training = (self.training or Training()).model_copy(update={"seed": int(seed)})
        valid = rows.take(held) if len(held) else None
        run = fit(model, Objective(beta=0.0), rows.take(others), valid, training, quiet=True)
        device = next(head.parameters()).device
        self.network_ = nn.Sequential(encoder, head).to(device).eval()
        self.n_iter_ = run.config["steps"]
        return self

    @property
    def _model(self) -> Model:
        if not isinstance(self.source, (Run, Model)):
            raise TypeError(
                "what is tuned is a run (nr.fit, nr.load, the run_ of an estimator) or a model of narrows; "
                f"got {type(self.source).__name__}"
            )
        return self.source.model if isinstance(self.source, Run) else self.source

    def _freeze(self, model: Model) -> bool:
        """Takes the frozen layers out of training; whether these are all."""
        if isinstance(self.freeze, (bool, np.bool_)):
            return bool(self.freeze)
        if not hasattr(model.encoder, "stages"):
            raise TypeError(
                f"freeze counts the layers of Mlp or Conv, and this encoder is {type(model.encoder).__name__}: give "
                "True or False"
            )
        layers = model.encoder.stages()  # type: ignore[operator]
        if self.freeze != int(self.freeze) or not 0 <= self.freeze <= len(layers):
            raise ValueError(
                f"freeze is True, False or a number of leading layers, of which this encoder has {len(layers)}; got "
                f"{self.freeze!r}"
            )
        for layer in layers[: self.freeze]:
            layer.requires_grad_(False)
        return bool(self.freeze == len(layers))

    def _rows(self, X: Any) -> data.Rows:
        """Rows in model units: scaled as the run's own, unless they are `Rows` already."""
        if not isinstance(X, data.Rows):
            record = self.source.config["data"] if isinstance(self.source, Run) else {}
            # a run on bare tensors knows of no scaling: those are model units
            bare = X if isinstance(X, Tensor) or "scaling" in record else torch.as_tensor(np.asarray(X))
            X = data.like(record, bare) if "scaling" in record else data.rows(bare.float())
        if X.shape != self._model.shape:
            raise ValueError(f"the encoder reads rows of shape {self._model.shape}; these have {X.shape}")
        if not isinstance(X.raw, np.ndarray) and not X.raw.isfinite().all():
            raise ValueError("X has cells that are no number, which an encoder cannot read; fill or drop these rows")
        return X

    @torch.no_grad()
    def _outputs(self, X: Any) -> Tensor:
        """What the head says of each row, on the CPU."""
        check_is_fitted(self)
        rows = self._rows(X).to(next(self.network_.parameters()).device)
        with draws.seeded(0, 11, 0):  # rows that are binarised anew at every reading are read alike here
            return torch.cat([self.network_(batch.x).cpu() for batch in rows.batches(1024)])

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        source = copy.copy(self.source)  # what a GPU trained is read where there is none
        if isinstance(source, Run):
            source.model, source.objective = copy.deepcopy(source.model).cpu(), copy.deepcopy(source.objective).cpu()
        else:
            source = copy.deepcopy(source).cpu()
        state["source"] = source
        if "network_" in state:
            state["network_"] = copy.deepcopy(state["network_"]).cpu()
        return state


class Classifier(ClassifierMixin, _Headed):  # type: ignore[misc]
    """Classes from an encoder and a head: the distortion is the cross-entropy -log p(y|z), in nats.

    After `fit` also: `classes_`.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on rows X and their labels y (n,). Raises ValueError for fewer than two classes."""
        values = _column(y, X)
        self.classes_, number = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs at least two classes; all of y is {self.classes_[0]!r}")
        target = torch.from_numpy(number).float() / (len(self.classes_) - 1)
        return self._learn(X, _order(number), target, Categorical((), levels=len(self.classes_)))

    def predict_proba(self, X: Any) -> Array:
        """P(y|x), (n, classes), in the order of `classes_`."""
        return self._outputs(X).double().softmax(1).numpy()

    def predict(self, X: Any) -> Array:
        """The most probable class of each row, (n,)."""
        return self.classes_[self._outputs(X).argmax(1).numpy()]  # type: ignore[no-any-return]


class Regressor(RegressorMixin, _Headed):  # type: ignore[misc]
    """Numbers from an encoder and a head: the distortion is half the squared error of y, scaled to unit variance."""

    def fit(self, X: Any, y: Any) -> Self:
        """Trains on rows X and numbers y, (n,) or (n, outputs). Raises ValueError where one never changes."""
        values = _column(y, X, several=True).astype(np.float64)
        self._shape = values.shape[1:]
        values = values.reshape(len(values), -1)
        self.mean_, self.std_ = values.mean(0), values.std(0)
        if not self.std_.all():
            raise ValueError(f"a regressor needs values that differ; all of y is {values[0, self.std_ == 0][0]:g}")
        target = torch.from_numpy((values - self.mean_) / self.std_).float()
        return self._learn(X, _order(values[:, 0]), target, Gaussian((values.shape[1],), sigma=1.0))

    def predict(self, X: Any) -> Array:
        """E[y|x], of the shape that y had."""
        found = self._outputs(X).double().flatten(1).numpy() * self.std_ + self.mean_
        return found.reshape(len(found), *self._shape)


def _order(values: Array) -> Array:
    """Rows by their value, so that every tenth of them is a fair sample of the classes or the range.

    Rows of one value stay as they come: which of them are held out is no draw.
    """
    return np.argsort(values, kind="stable")


def _column(y: Any, X: Any, several: bool = False) -> Array:
    """What is to be said of the rows, (n,), or (n, outputs) where there may be several."""
    values = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 and not (several and values.ndim == 2):
        raise ValueError(f"y holds one value a row, shape (n,); got shape {values.shape}")
    rows = X.shape[0] if hasattr(X, "shape") and not isinstance(X, data.Rows) else len(X)
    if len(values) != rows:
        raise ValueError(f"X has {rows} rows and y {len(values)} values; there must be one for each row")
    if not len(values):
        raise ValueError("there are no rows to learn from; X and y are empty")
    absent = values != values
    absent = absent | (values == None) if values.dtype == object else absent  # noqa: E711
    absent = absent.reshape(len(values), -1).any(1)
    if absent.any():
        raise ValueError(f"y has no value in {absent.sum()} rows, the first of them {absent.argmax()}; leave them out")
    return values


def finetune(
    source: Run | Model,
    X: Any,
    y: Any,
    freeze: bool | int = False,
    training: Training | None = None,
    hidden: tuple[int, ...] = (),
    seed: int = 0,
) -> Classifier | Regressor:
    """Puts a head on a trained encoder and trains it on labelled rows, few of which are often enough.

    The encoder is copied; its point code z (the mean of a Gaussian one) goes into the head, without corruption. What
    changes: with `freeze=True` the head alone, the encoder standing in evaluation mode; with `freeze=False` everything;
    with a number, everything but that many leading layers. Training stops on a held-out tenth.

    Arguments:
        source: a run, which brings its scaling along, or a model, whose rows are then in model units.
        X: rows in the units of the run's data, or `Rows`.
        y: labels for a `Classifier`; numbers with fractions for a `Regressor` (whole numbers that are amounts rather
            than classes: `narrows.transfer.Regressor(source).fit(X, y)`).
        hidden: widths of the head's hidden layers; none is a linear head.

    Returns: a fitted scikit-learn estimator with `predict`, `score`, for classes `predict_proba` and `classes_`, and
        the plain module `network_`.
    Raises: ValueError for one class only, lengths that differ, cells without a number; TypeError for another source.

    Example:
        >>> import narrows as nr
        >>> x = torch.rand(60, 4)
        >>> run = nr.fit(*nr.recipes.autoencoder((4,), latent=2), x, training=nr.Training(epochs=1), quiet=True)
        >>> tuned = nr.finetune(run, x, (x[:, 0] > 0.5).numpy(), training=nr.Training(epochs=1))
        >>> tuned.predict_proba(x[:3]).shape
        (3, 2)
    """
    if isinstance(source, Run):
        source = copy.copy(source)
        source._data = None  # the rows it was trained on are not needed again
    values = _column(y, X, several=True)
    fractions = values.dtype.kind == "f" and bool((values != np.rint(values)).any())
    kind = Regressor if fractions or values.ndim == 2 else Classifier
    return kind(source, freeze, hidden, training, seed).fit(X, y)
