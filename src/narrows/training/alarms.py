"""Plain sentences for what so often goes wrong, each with its remedy; raised where no good can come of going on."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from narrows.data import Rows
from narrows.diffusion import Diffusion
from narrows.evaluate import ActiveUnits, active_units, features, usage
from narrows.labels import labels_of
from narrows.models import Model
from narrows.objectives import Objective
from narrows.posteriors import Discrete, Quantised, Sparse
from narrows.priors import StandardNormal

__all__ = [
    "COLLAPSED",
    "SKIPPED",
    "after",
    "before",
    "check_codebook",
    "check_discrepancy",
    "check_labels",
    "check_support",
    "collapse",
    "collapsed",
    "dead",
    "not_finite",
    "skipped",
    "skipping",
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


def check_codebook(model: Model, rows: Rows) -> None:
    """Raises ValueError for a codebook larger than the data have vectors, whose rest nothing could ever teach."""
    parts = model.posterior.parts if isinstance(model.posterior, Discrete) else []
    few = [part for part in parts if isinstance(part, Quantised)]
    places = min((math.prod(part.space) for part in few), default=0)
    if few and len(rows) * places < few[0].codebook:
        raise ValueError(
            f"a codebook of {few[0].codebook:,} codewords learns from the vectors of the training rows, and "
            f"there are {len(rows) * places:,} ({len(rows):,} rows of {places}): take codebook="
            f"{max(2, len(rows) * places // 16)} (--set), more rows or a larger grid"
        )


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
    # a map has as a rule more units than values, each paid for what it says; a diffusion has as many
    large = hasattr(model.posterior, "place") or isinstance(model, Diffusion)
    if rows.wanted == rows.shape and units >= width and not sparse and not large:
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


@contextmanager
def _buffers_kept(*modules: nn.Module) -> Iterator[None]:
    """Afterwards every buffer is what it was: a look in training mode moves averages, and this one is no step."""
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)


def _without_gradient(model: Model, objective: Objective, rows: Rows) -> list[str]:
    with _buffers_kept(model, objective):
        terms = objective(model, rows.batch(torch.arange(min(len(rows), 64))))
        weighed: dict[str, Tensor] = {}
        if not isinstance(model, Diffusion):  # whose p(x|z_0) takes no network
            weighed["distortion (reconstruction)"] = terms.distortion
        if objective.beta(None) and not getattr(model.posterior, "certain", False):  # a codeword costs what it costs
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


ONE_CODEWORD = (
    "codebook collapse: all vectors get the same codeword, and the code carries nothing about x. Lower --lr, or take "
    "--set commitment=0.1, or recipe fsq, which has no codebook to lose"
)


def collapse(model: Model) -> str:
    """The sentence for a code that has collapsed."""
    return ONE_CODEWORD if isinstance(model.posterior, Discrete) else COLLAPSED


def collapsed(model: Model, rows: Rows, rate: float) -> bool:
    """Whether no unit of a code with a density carries anything, by rate and by variance, on the first 256 rows.

    `rate` is the mean rate of training rows since the last check, nats: rows are read only where that leaves each unit
    below 0.01 on average, so a healthy run pays nothing. The model is left in training mode. Of codewords it is
    whether the last steps have used but one.
    """
    if isinstance(model.posterior, Discrete):
        return bool(model.posterior.perplexity < 1.01)
    if not model.density or isinstance(model, Diffusion) or not rate < 0.01 * model.latent:
        return False
    units = active_units(model, rows.take(torch.arange(min(len(rows), 256))))
    model.train()
    return not units.by_variance.any() and (units.by_rate is None or not units.by_rate.any())


def after(model: Model, rows: Rows, free: float = 0.0) -> list[str]:
    """What the trained code shows: posterior collapse, units that never change. Sparse codes and codewords: `dead`.

    `free` are the nats of a rung that cost nothing: one that carries no more is idle, whatever its units say.
    """
    if isinstance(model.posterior, (Discrete, Sparse)) or isinstance(model, Diffusion):  # whose code is x's own values
        return []
    units = active_units(model, rows.take(torch.arange(min(len(rows), 2000))))
    if units.rungs and units.rate is not None:
        return _rungs(units, free)
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


def _rungs(units: ActiveUnits, free: float) -> list[str]:
    """Which rungs have collapsed, and how many units of the others are idle."""
    each = units.each()
    rates = [float(rung.rate.sum()) for rung in each]  # type: ignore[union-attr]
    active = [int(rung.by_rate.sum()) for rung in each]  # type: ignore[union-attr]
    idle = [not n or rate <= 1.2 * free for n, rate in zip(active, rates, strict=True)]
    if not any(active):
        return [COLLAPSED]
    found = []
    for place, (rung, rate) in enumerate(zip(each, rates, strict=True)):
        if idle[place]:
            where = "the top" if place == 0 else "the bottom" if place == len(each) - 1 else "from the top"
            found.append(
                f"rung {place + 1} of {len(each)} ({where}, {len(rung.variance)} units, {rate:.2g} nats) has "
                "collapsed: it carries hardly more about x than its free bits. Warm up beta for longer "
                '(--set \'beta={"WarmUp": {"steps": 20000}}\'), free more nats of each rung '
                f"(--set free_bits={max(4 * free, 1.0):g}), or take fewer rungs"
            )
    if sum(active) < len(units.variance):
        kept = [n for n, out in zip(active, idle, strict=True) if not out]
        found.append(
            f"{len(units.variance) - sum(active)} of {len(units.variance)} units are inactive; active from the top "
            f"rung down: {', '.join(map(str, active))}. That is harmless if the rate is what you want to spend; else "
            + (f"--set rungs={json.dumps(kept, separators=(',', ':'))}" if kept else "warm up beta for longer")
        )
    return found


def dead(model: Model, rows: Rows) -> list[str]:
    """Units of a sparse code that fire on no training row (of the first 100,000), where they are 1 % or more of them.

    Fewer ask for nothing to be done; `narrows features` counts every one. Of codewords, where fewer than half are used
    by at most 10,000 rows, which have at least eight vectors for each.
    """
    if isinstance(model.posterior, Discrete):
        return _unused(model, rows.take(torch.arange(min(len(rows), 10_000))))
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


def _unused(model: Model, rows: Rows) -> list[str]:
    found = usage(model, rows)
    if found.perplexity < 1.01:
        return [ONE_CODEWORD]
    if found.used >= 0.5 or found.counts.sum() < 8 * found.counts.numel():
        return []
    smaller = "a smaller --set codebook" if isinstance(model.posterior, Quantised) else "fewer --set levels"
    return [
        f"only {found.used:.0%} of {found.counts.numel():,} codewords are used by {len(rows):,} training rows "
        f"(perplexity {found.perplexity:.4g}). Train longer (--epochs) so that revival can bring the others back, or "
        f"take {smaller}, which loses nothing"
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


def skipping(step: int, count: int, limit: float) -> ValueError:
    """The error where so many steps in a row were left out, so that nothing can come of going on."""
    return ValueError(
        f"at step {step:,} the last {count:,} steps were all left out: the norm of their gradient was above "
        f"skip={limit:g}, or no number. Take a larger one, such as --set skip={10 * limit:g}, or a lower --lr"
    )


SKIPPED = "were left out: the norm of their gradient was above skip="


def skipped(count: int, steps: int, limit: float) -> list[str]:
    """How many steps were left out for the norm of their gradient, where any was."""
    if not count:
        return []
    text = f"{count:,} of {steps:,} steps ({count / steps:.1%}) {SKIPPED}{limit:g}, or no number"
    return [text + (f". That is many: take a larger one, such as skip={10 * limit:g}" if count > 0.05 * steps else "")]
