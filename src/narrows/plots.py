"""run.plot: what a run looks like, as matplotlib figures that a notebook shows and `savefig` keeps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from narrows import draws, pictures
from narrows.data import Data, Rows
from narrows.defaults import readable
from narrows.evaluate import active_units, codes, inputs, reconstruct, usage
from narrows.models import Ladder
from narrows.posteriors import Discrete
from narrows.store import Run
from narrows.tasks import project, redraw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pairs", "Plot", "judged", "kept_rungs", "reconstructions", "samples", "told"]


class Pairs(NamedTuple):
    """Rows and what belongs to each."""

    first: Tensor  # (n, *event) model units
    second: Tensor
    titles: list[str]


def judged(data: Data) -> tuple[Rows, str]:
    """The rows that a model is shown on: test rows where there are any."""
    return (data.test, "test") if len(data.test) else (data.train, "training")


def reconstructions(run: Run, worst: bool = False, count: int = 12) -> Pairs:
    """Rows and their reconstructions: chosen by a fixed seed, or those with the largest error."""
    few = judged(run.data)[0]
    few = few.take(torch.arange(min(len(few), readable(run.model, 2000))))
    x = inputs(run.model, few)
    again = reconstruct(run.model, few)
    errors = (again - x).square().flatten(1).sum(1)
    with draws.seeded(0, 8, 0):
        index = errors.topk(min(count, len(few))).indices if worst else torch.randperm(len(few))[:count]
    return Pairs(x[index], again[index], [f"row {int(i)}, error {float(errors[i]):.3g}" for i in index])


def told(run: Run, count: int) -> Tensor | None:
    """What samples are told: classes in turn; other features as they are in the first rows."""
    if run.data.telling is not None:
        return run.data.train.batch(torch.arange(count) % len(run.data.train)).context
    classes = run.data.context
    return one_hot(torch.arange(count) % classes, classes).float() if classes else None


@torch.no_grad()
def samples(run: Run, count: int = 24) -> Pairs:
    """Means of p(x|z) for z from the prior, each with its nearest training row (of the first 20,000).

    Raises: TypeError where there is no prior.
    """
    train = run.data.train
    with draws.seeded(0, 9, 0):
        made = run.model.sample(count, told(run, count)).mean.cpu()
        few = train.take(torch.arange(min(len(train), 20_000)))
        rows = inputs(run.model, few)
    near = torch.cdist(made.flatten(1), rows.flatten(1)).argmin(1)
    return Pairs(made, rows[near], [f"nearest: training row {int(i)}" for i in near])


def kept_rungs(model: Ladder, rows: Rows, temperature: float | Sequence[float] = 1.0, seed: int = 0) -> Tensor:
    """Rows as they are, then with all rungs kept, all but the bottom one, ... none: (lines * n, *event)."""
    lines = [
        redraw(model, rows, keep, temperature=temperature, seed=seed)[0] for keep in range(len(model.rungs), -1, -1)
    ]
    return torch.cat([inputs(model, rows), *lines])


class Plot:
    """Figures of one run.

    Example:
        >>> from narrows.data import load
        >>> from narrows import recipes, fit, Training
        >>> data = load("digits")
        >>> model, objective = recipes.vae(data.shape, latent=2, likelihood=data.likelihood)
        >>> run = fit(model, objective, data, training=Training(epochs=1), quiet=True)
        >>> type(run.plot.curves()).__name__
        'Figure'
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def curves(self) -> "Figure":
        """The terms of the loss over the steps, the best step marked."""
        return pictures.curves(self.run.metrics, self.run.config["best_step"])

    def rates(self) -> "Figure":
        """Rate of each unit of the code on training rows, its variance where it has none; of codewords their use."""
        train = self.run.data.train
        train = train.take(torch.arange(min(len(train), readable(self.run.model))))
        if isinstance(self.run.model.posterior, Discrete):
            return pictures.usage(*usage(self.run.model, train)[:2])
        units = active_units(self.run.model, train)
        return pictures.rates(units.variance, units.rate, units.rungs)

    def rungs(self) -> "Figure":
        """Test images whose top rungs are kept, fewer from line to line, and whose others are drawn anew."""
        few = judged(self.run.data)[0]
        few = few.take(torch.arange(min(len(few), 12)))
        if not self.run.data.image or not isinstance(self.run.model, Ladder):
            raise TypeError(
                "this picture is of images and a code of rungs: recipe ladder, hvae or conv_ladder on images"
            )
        return pictures.shown(pictures.grid(kept_rungs(self.run.model, few), len(few)))

    def latent(self, method: str = "auto") -> "Figure":
        """Codes of the test rows in two dimensions, coloured by label."""
        shown = judged(self.run.data)[0]
        few = shown.take(torch.arange(min(len(shown), readable(self.run.model, 5000))))
        return pictures.scatter(*project(codes(self.run.model, few), method), few.label, self.run.data.classes)

    def reconstructions(self, worst: bool = False) -> "Figure":
        """Test rows and, below or over them, what comes back through the code."""
        return self._pairs(reconstructions(self.run, worst))

    def samples(self) -> "Figure":
        """Rows drawn from the prior and, below or over them, the nearest training rows."""
        return self._pairs(samples(self.run, 24 if self.run.data.image else 12))

    def _pairs(self, pairs: Pairs) -> "Figure":
        if self.run.data.image:
            return pictures.shown(pictures.paired(pairs.first, pairs.second))
        return pictures.profiles(pairs.first, pairs.second, pairs.titles)
