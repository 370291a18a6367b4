"""Plain sentences for what so often goes wrong, each with its remedy; raised where no good can come of going on."""

import torch
from torch import Tensor
from torch.distributions import constraints

from narrows.data import Rows
from narrows.diffusion import Diffusion
from narrows.evaluate import active_units, features
from narrows.labels import labels_of
from narrows.models import Model
from narrows.objectives import Objective
from narrows.posteriors import Sparse
from narrows.priors import StandardNormal

__all__ = [
    "COLLAPSED",
    "after",
    "before",
    "check_discrepancy",
    "check_labels",
    "check_support",
    "collapsed",
    "dead",
    "not_finite",
]


def check_support(model: Model, rows: Rows, name: str = "training") -> None:
    """Raises ValueError at the first row with a value that p(x|z) cannot produce."""
    support = model.likelihood.support
    if support is constraints.real:
        return
    for batch in rows.batches(4096):
        bad = ~support.check(batch.target)
        if bad.any():
            row = int(bad.flatten(1).any(1).nonzero()[0])
            value, number = float(batch.target[row][bad[row]][0]), int(batch.row[row])  # type: ignore[index]
            kind = type(model.likelihood).__name__
            raise ValueError(
                f"{name} row {number} holds {value:g} (after scaling), which {kind} cannot produce: "
                f"it covers {_named(support)}. "
                + ("Load counts as they are (counts=True, --counts)" if model.likelihood.counts else "Scale the data")
                + ", or choose another likelihood (Gaussian takes any number)"
            )


def check_discrepancy(model: Model, objective: Objective, rows: Rows, size: int) -> None:
    """Raises ValueError for batches too small for the discrepancy, TypeError for a prior that cannot be sampled."""
    if objective.discrepancy is None:
        return
    least = getattr(objective.discrepancy, "least", 1)
    name, n = type(objective.discrepancy).__name__, len(rows)
    prior_draws = getattr(objective.discrepancy, "prior_draws", True)
    does = "compares the codes of a batch with " + ("draws from the prior" if prior_draws else "one another")
    if n < least:
        raise ValueError(
            f"{name} {does}, which takes at least {least} rows; there are {n}. Use recipe autoencoder, or more rows"
        )
    size = min(size, n)

    def last(batch: int) -> int:
        return n % batch or batch

    if last(size) < least:
        fits = next(b for b in (*range(size - 1, least - 1, -1), *range(size + 1, n + 1)) if last(b) >= least)
        raise ValueError(
            f"{name} {does}, which takes at least {least} rows; "
            f"{n} rows in batches of {size} leave a last batch of {last(size)}. Use --batch {fits}"
        )
    if not prior_draws:
        return
    try:
        model.prior(rows.batch(torch.arange(1)).context).sample()  # type: ignore[misc]
    except NotImplementedError:
        raise TypeError(
            f"{name} compares codes with draws from the prior, and {type(model.prior).__name__} cannot be sampled. "
            "Wrong: a prior that only has log_prob; right: one whose distribution has sample(), such as "
            "StandardNormal(latent)"
        ) from None


def check_labels(model: Model, rows: Rows) -> None:
    """Raises ValueError where a code with a label is to learn from rows of which none has one, or of more classes."""
    classes = labels_of(model)
    if not classes:
        return
    most = -1 if rows.label is None or not len(rows) else int(rows.label.max())
    if most < 0:
        raise ValueError(
            "a label in the code is learned from rows that have one, and no training row does: load(..., label=...) "
            "(--label COLUMN) with blanks for the others, or take recipe vae"
        )
    if most >= classes:
        raise ValueError(
            f"the code has {classes} classes and a training row is of class {most}: give classes={most + 1}"
        )


def _named(support: constraints.Constraint) -> str:
    names = {
        constraints.boolean: "0 and 1",
        constraints.unit_interval: "0 to 1",
        constraints.nonnegative_integer: "whole numbers from 0 up",
    }
    return names.get(support, repr(support))


def before(model: Model, objective: Objective, rows: Rows, size: int) -> list[str]:
    """What can be known before the first step."""
    found = []
    if len(rows) < size:
        found.append(f"{len(rows)} rows are fewer than a batch of {size}: every step takes all of them")
        size = len(rows)
    width = int(torch.Size(rows.shape).numel())
    sparse = isinstance(model.posterior, Sparse)
    if sparse and getattr(model.posterior.activation, "active", 0) >= width:
        found.append(
            f"{model.posterior.activation.active} units may fire for a row of only {width} values: nothing forces "  # type: ignore[union-attr]
            f"the model to choose; take --set active={max(width // 4, 1)} or less"
        )
    units = int(getattr(model.posterior, "variables", model.latent))  # a choice is one number, whatever its classes
    if rows.wanted == rows.shape and units >= width and not sparse and not isinstance(model, Diffusion):
        found.append(
            f"the code has {model.latent} units and a row only {width} values: nothing forces the model to compress; "
            f"take --latent {max(width // 2, 1)} or less"
        )
    if model.density and objective.rate == "closed" and not getattr(model.posterior, "closed", True):
        found.append(
            "the rate is estimated from the draws, as the mean of log q - log p: the KL from "
            f"{type(model.posterior).__name__} to {type(model.prior).__name__} has no closed form"
        )
    sample = rows.batch(torch.arange(min(len(rows), 10_000))).x.flatten(1)
    constant = int((sample == sample[0]).all(0).sum())
    if constant > 0 and len(rows.shape) == 1:
        found.append(f"{constant} of {width} columns never change and teach nothing; drop them")
    if len(rows) % size == 1 and len(rows) > 1:
        found.append(
            f"the last batch of every epoch has one row ({len(rows)} rows in batches of {size}), whose gradient is "
            f"noisier than the others; --batch {size - 1} avoids it"
        )
    return found + _without_gradient(model, objective, rows)


def _without_gradient(model: Model, objective: Objective, rows: Rows) -> list[str]:
    terms = objective(model, rows.batch(torch.arange(min(len(rows), 64))))
    weighed: dict[str, Tensor] = {"distortion (reconstruction)": terms.distortion}
    if isinstance(model, Diffusion):  # whose p(x|z_0) takes no network
        weighed = {}
    if objective.beta(None):
        weighed["rate (KL)"] = terms.rate
    parameters = [p for p in (*model.parameters(), *objective.parameters()) if p.requires_grad]
    dead = []
    for name, term in weighed.items():
        gradients: tuple[Tensor | None, ...] = (None,)
        if term.requires_grad:
            gradients = torch.autograd.grad(term.sum(), parameters, retain_graph=True, allow_unused=True)
        if not any(g is not None and bool(g.any()) for g in gradients):
            dead.append(
                f"the gradient of the {name} is zero, so this term changes nothing; look for a detach() or a layer "
                "that ignores its input"
            )
    return dead


COLLAPSED = (
    "posterior collapse: no unit of the code carries anything about x, and the decoder ignores it. Warm up "
    'beta (--set \'beta={"WarmUp": {"steps": 2000}}\'), keep free bits (--set free_bits=0.1), or lower --beta'
)


def collapsed(model: Model, rows: Rows, rate: float) -> bool:
    """Whether no unit of a code with a density carries anything, by rate and by variance, on the first 256 rows.

    `rate` is the mean rate of training rows since the last check, nats: rows are read only where that leaves each unit
    below 0.01 on average, so a healthy run pays nothing. The model is left in training mode.
    """
    if not model.density or isinstance(model, Diffusion) or not rate < 0.01 * model.latent:
        return False
    units = active_units(model, rows.take(torch.arange(min(len(rows), 256))))
    model.train()
    return not units.by_variance.any() and (units.by_rate is None or not units.by_rate.any())


def after(model: Model, rows: Rows) -> list[str]:
    """What the trained code shows: posterior collapse, units that never change (of sparse codes see `dead`)."""
    if isinstance(model.posterior, Sparse) or isinstance(model, Diffusion):  # the latter's code is x's own values
        return []
    units = active_units(model, rows.take(torch.arange(min(len(rows), 2000))))
    style = slice(labels_of(model), None)  # labels in a code are no units that could be left out
    variance, total = units.variance[style], len(units.variance[style])
    active = int(units.by_variance[style].sum())
    scaled = units.by_rate is not None or isinstance(model.prior, StandardNormal)
    if not scaled:  # a code without a rate has no scale of its own, and a contracted one is small
        active = int((variance > 1e-4 * variance.max()).sum())
    if active == total:
        return []
    if not scaled:
        return [f"{total - active} of {total} units of the code never change; a smaller --latent loses nothing"]
    if active == 0:
        return [COLLAPSED]
    return [
        f"{total - active} of {total} units of the code are inactive (posterior collapse of single units). That is "
        f"harmless if the rate is what you want to spend; else --set free_bits=0.1, or --latent {active}"
    ]


def dead(model: Model, rows: Rows) -> list[str]:
    """Units of a sparse code that fire on no training row (of the first 100,000), where they are 1 % or more of them.

    Fewer ask for nothing to be done; `narrows features` counts every one.
    """
    if not isinstance(model.posterior, Sparse):
        return []
    few = rows.take(torch.arange(min(len(rows), 100_000)))
    count = int(features(model, few, top=1).dead.sum())
    if count < 0.01 * model.latent or not count:
        return []
    return [
        f"{count:,} of {model.latent:,} units of the sparse code are dead: they fire on none of {len(few):,} training "
        "rows. Train longer (--epochs), so that --set revive=auxk can bring them back; try --set revive=resampling or "
        f"a larger --set active; or take --latent {model.latent - count}"
    ]


def not_finite(step: int, rows: Rows, index: Tensor, kept: int | None) -> FloatingPointError:
    """The error for a loss that is no number: where, in which rows, what is kept, what to do."""
    x = rows.batch(index).x.flatten(1).abs()
    column = int(x.amax(0).argmax())
    numbers = ", ".join(str(int(i)) for i in index[:5]) + (", ..." if len(index) > 5 else "")
    return FloatingPointError(
        f"the loss is not finite at step {step} (training rows {numbers}; the largest value is {float(x.max()):.3g} in "
        f"column {column}). "
        + (f"The weights of step {kept} are kept. " if kept is not None else "")
        + "Try a lower --lr, --clip 1, or look at that column"
    )
