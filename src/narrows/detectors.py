"""The scikit-learn face of anomaly detection."""

import math
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from narrows import recipes
from narrows.data import Rows
from narrows.data.found import tensor
from narrows.data.windows import windows
from narrows.likelihoods import Gaussian
from narrows.networks import Mlp
from narrows.spec import misspelt
from narrows.tasks import Detector, benjamini_hochberg, blame, reasons
from narrows.tasks.anomaly import squash, stretch
from narrows.training import Training, fit

__all__ = ["AnomalyDetector"]

Array = NDArray[Any]
STEPS, HELD = 400, 0.2  # of training; share of rows that calibrate


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Finds the odd rows of a table of numbers, with a threshold that can be chosen and columns to blame.

    An autoencoder of any recipe learns the rows, standardised and squashed (`tasks.anomaly.squash`), in some 400 steps;
    a `tasks.Detector` scores them by distances to few neighbours among rows and codes ("combined"), or as `by` says; a
    fifth of the rows is held out and calibrates the scores. As in all of scikit-learn, higher `score_samples` is more
    normal and `predict` gives -1 for an outlier. There may be anomalies among the rows that are learned from;
    `training=Training(trim=0.1)` leaves the worst tenth of each batch out.

    With `window` the rows are the steps of a series (T, channels) in the order of time: what is learned and compared
    are windows of that many steps, the last fifth of them is held out, and a step's score is the mean over the windows
    that hold it. Labels, thresholds and predictions are then those of steps.

    Arguments:
        recipe: the autoencoder's, such as "vae", "autoencoder", "dropout", "denoising".
        by: one of `tasks.anomaly.SCORES`.
        contamination: the share of the training rows to flag, or "auto": by `false_alarms`.
        false_alarms: the share of rows like the held-out ones to flag at most, where contamination is "auto"; with
            fewer than 1 / false_alarms held-out rows, none of these.
        training: a `Training`, whose epochs are else set to 400 steps.
        random_state: seeds weights, order, draws and who is held out.
        window: steps of a series that are looked at together; 1 for rows without an order.

    After `fit` it has `model_`, `detector_`, `offset_`, `center_`, `scale_`, `n_features_in_`.

    Raises: ValueError for fewer than 6 rows, a series too short for its windows, cells that are missing or infinite,
    and names that are not there.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(300, 4))
        >>> odd = AnomalyDetector(random_state=0).fit(X)
        >>> odd.predict(np.array([[0.0, 0, 0, 0], [9, 9, -9, 9]]))
        array([ 1, -1])
        >>> print(odd.why(np.array([[0.0, 0, 12, 0]]))[0].split(",")[0])
        x2 is 12
    """

    def __init__(
        self,
        recipe: str = "vae",
        by: str = "combined",
        contamination: float | str = "auto",
        false_alarms: float = 0.01,
        training: Training | None = None,
        random_state: Any = None,
        window: int = 1,
    ) -> None:
        self.recipe = recipe
        self.by = by
        self.contamination = contamination
        self.false_alarms = false_alarms
        self.training = training
        self.random_state = random_state
        self.window = window

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns from rows X (n, d), at least 6; with labels y (n,), 1 for anomalies, the threshold has the best F1."""
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=6)
        if self.recipe not in recipes.__all__:
            raise ValueError(misspelt("recipe", self.recipe, recipes.__all__))
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = 0 if seed is None else check_random_state(seed).randint(2**31)
        self.center_, self.scale_ = x.mean(0), x.std(0)
        self.scale_[self.scale_ <= 1e-12 * np.abs(self.center_)] = 1.0  # constant
        rows = self._scaled(x)
        train, held = self._parts(len(rows), int(seed))
        training, some = self.training or Training(), train
        if training.epochs is None:
            some = train[:: math.ceil(len(train) / (STEPS * training.batch))]
            training = training.model_copy(update={"epochs": max(1, round(STEPS * training.batch / len(some)))})
        (width,) = rows.shape
        self.model_, objective = getattr(recipes, self.recipe)(
            (width,),
            latent=max(1, min(16, width // 2)),
            network=partial(Mlp, hidden=(64,)),
            likelihood=Gaussian,
            seed=int(seed),
        )
        fit(
            self.model_,
            objective,
            self._scaled(x, np.float32).take(some),
            training=training.model_copy(update={"seed": int(seed)}),
            quiet=True,
        )
        self.model_.cpu().double()  # a score then does not depend on what is scored beside it
        self.detector_ = Detector(self.model_, rows.take(train), rows.take(held), self.by, int(seed), True)
        if y is not None:
            scores, label = self.detector_.score(rows), torch.from_numpy(column_or_1d(y) == 1)
            self.threshold_ = self.detector_.threshold(scores=scores, label=label)
        elif self.contamination == "auto":
            rate = max(self.false_alarms, 1 / (1 + len(self.detector_.state["held"])))
            self.threshold_ = self.detector_.threshold(false_alarms=rate)
        else:
            self.threshold_ = self.detector_.threshold(
                share=float(self.contamination), scores=self.detector_.score(rows)
            )
        self.offset_ = float(np.nextafter(-self.threshold_.value, np.inf))  # a row at the threshold is flagged
        return self

    def score_samples(self, X: Any) -> Array:
        """How normal each row is, (n,): minus the detector's score."""
        rows = self._rows(X)
        found: Array = -self.detector_.score(rows).numpy()
        return found

    def decision_function(self, X: Any) -> Array:
        """`score_samples` above the threshold, (n,): negative for outliers."""
        found: Array = self.score_samples(X) - self.offset_
        return found

    def predict(self, X: Any) -> Array:
        """-1 for outliers, 1 for others, (n,)."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def p_values(self, X: Any) -> Array:
        """Conformal p-values, (n,): the share of held-out rows at least as strange."""
        rows = self._rows(X)
        found: Array = self.detector_.p_values(self.detector_.score(rows)).numpy()
        return found

    def discoveries(self, X: Any, rate: float = 0.1) -> Array:
        """Which rows to look at so that at most a share `rate` of them is expected to be normal, (n,) bool."""
        found: Array = benjamini_hochberg(torch.from_numpy(self.p_values(X)), rate).numpy()
        return found

    def why(self, X: Any, columns: int = 3) -> list[str]:
        """A sentence for each row: the columns that make it odd, what was seen and what the others make one expect."""
        rows = self._rows(X)
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{i}" for i in range(self.n_features_in_)] if names is None else list(names)
        if self.window == 1:
            found = blame(self.model_, rows)
            evidence, expected = found.evidence, stretch(found.expected.double())
        else:
            evidence, expected = self.detector_.channels(rows, stretch)
        return reasons(
            evidence, np.asarray(X, dtype=np.float64), expected.numpy() * self.scale_ + self.center_, names, columns
        )

    def channels(self, X: Any) -> Array:
        """Of a series X (T, channels): how far each cell is from its reconstruction, in nats (`Detector.channels`)."""
        rows = self._rows(X)
        if self.window == 1:
            raise ValueError("channels are of a series: ask for window=2 or more; why() names the columns of a row")
        found: Array = self.detector_.channels(rows)[0].numpy()
        return found

    def _parts(self, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which rows are learned from and which calibrate; of a series the newest do, and no step is in both."""
        count = max(1, int(HELD * rows))
        if self.window == 1:
            order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
            return order[count:], order[:count]
        last = rows - count - self.window + 1
        if last < 4:
            raise ValueError(
                f"windows of {self.window} steps are learned from a series of {self.window * 3} steps or more; this "
                f"one has {rows + self.window - 1}"
            )
        return torch.arange(last), torch.arange(rows - count, rows)

    def _scaled(self, x: Array, dtype: Any = np.float64) -> Rows:
        scaled = squash(torch.from_numpy((x - self.center_) / self.scale_)).numpy().astype(dtype)
        return Rows(windows(scaled, self.window) if self.window > 1 else tensor(scaled), window=self.window)

    def _rows(self, X: Any) -> Rows:
        check_is_fitted(self)
        return self._scaled(validate_data(self, X, reset=False, dtype=np.float64))
