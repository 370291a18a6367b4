"""The scikit-learn face of anomaly detection."""

from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from narrows import recipes
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

    Arguments:
        recipe: the autoencoder's, such as "vae", "autoencoder", "dropout", "denoising".
        by: one of `tasks.anomaly.SCORES`.
        contamination: the share of the training rows to flag, or "auto": by `false_alarms`.
        false_alarms: the share of rows like the held-out ones to flag at most, where contamination is "auto"; with
            fewer than 1 / false_alarms held-out rows, none of these.
        training: a `Training`, whose epochs are else set to 400 steps.
        random_state: seeds weights, order, draws and who is held out.

    After `fit` it has `model_`, `detector_`, `offset_`, `center_`, `scale_`, `n_features_in_`.

    Raises: ValueError for fewer than 6 rows, cells that are missing or infinite, and names that are not there.

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
    ) -> None:
        self.recipe = recipe
        self.by = by
        self.contamination = contamination
        self.false_alarms = false_alarms
        self.training = training
        self.random_state = random_state

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
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(int(seed)))
        held, train = order[: max(1, int(HELD * len(rows)))], order[max(1, int(HELD * len(rows))) :]
        training = self.training or Training()
        if training.epochs is None:
            train = train[: STEPS * training.batch]
            training = training.model_copy(update={"epochs": max(1, round(STEPS * training.batch / len(train)))})
        width = rows.shape[1]
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
            rows[train].float(),
            training=training.model_copy(update={"seed": int(seed)}),
            quiet=True,
        )
        self.model_.cpu().double()  # a score then does not depend on what is scored beside it
        self.detector_ = Detector(self.model_, rows[train], rows[held], self.by, int(seed), True)
        if y is not None:
            scores, label = self.detector_.score(rows), torch.from_numpy(column_or_1d(y) == 1)
            self.threshold_ = self.detector_.threshold(scores=scores, label=label)
        elif self.contamination == "auto":
            rate = max(self.false_alarms, 1 / (1 + len(held)))
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
        found = blame(self.model_, rows)
        names = getattr(self, "feature_names_in_", None)
        names = [f"x{i}" for i in range(rows.shape[1])] if names is None else list(names)
        return reasons(
            found, names, lambda cells: stretch(cells.double()).numpy() * self.scale_ + self.center_, columns
        )

    def _scaled(self, x: Array) -> torch.Tensor:
        return squash(torch.from_numpy((x - self.center_) / self.scale_))

    def _rows(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        return self._scaled(validate_data(self, X, reset=False, dtype=np.float64))
