"""What is chosen where nothing was said: resolved here, printed, and stored in the run folder."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from narrows import recipes
from narrows.baselines import fit_pca
from narrows.corruptions import Missing
from narrows.data import Data, Rows, TableCodec
from narrows.diffusion import Diffusion
from narrows.likelihoods import Bernoulli, Columns, DiscretisedLogistic, Gaussian, LogisticMixture, NegativeBinomial
from narrows.models import Model
from narrows.networks import Conv, Grid, Mlp, Unet
from narrows.posteriors import QuantisedRungs
from narrows.priors import VampPrior

__all__ = ["arguments", "bound", "counted", "latent", "operations", "readable"]

WIDEST = 4096  # units of a sparse code where nobody says how many
CLASSES = 10  # of each choice
CODEBOOK = 512  # codewords (van den Oord et al. 2017, section 4)
PSEUDO = 500  # pseudo-inputs of a VampPrior (Tomczak & Welling 2018, section 4)
READ = 2e10  # floating-point operations of reading the rows of one part by a diffusion
BOUND = 5e11  # floating-point operations of a first look at the likelihood: a quarter of a minute on two cores


def latent(rows: Rows) -> int:
    """What PCA needs for 90 % of the variance of at most 10,000 rows, within 2 to 64 and below the width.

    A table of mixed columns is taken as an encoder is shown it.
    """
    few = rows.take(torch.arange(min(len(rows), 10_000)))
    x = torch.cat([batch.x.cpu() for batch in few.batches(4096)]).flatten(1)
    most = min(64, x.shape[1] - 1, len(x) - 1)
    if isinstance(rows.scaling, TableCodec):
        x = rows.scaling.likelihood(rows.shape).shown(x)
    pca = fit_pca(x, max(most, 1))
    total = float(x.double().var(0, correction=0).sum())
    enough = int((pca.variances.cumsum(0) < 0.9 * total).sum()) + 1
    return max(1, min(max(enough, 2), most))


def arguments(data: Data, recipe: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a recipe for a data set: those given, and for the others what suits the data.

    A sparse code gets four units for each value of a row, at most 4,096, a code of choices ten classes for each
    component, a code of maps the recipe's own number of channels; a VampPrior at most one pseudo-input for ten training
    rows. Images of 32 x 32 and more get convolutions from 16 channels up, everything else a perceptron of 512 hidden
    units. Codewords stand in a grid of a quarter of the sides of an image (half of them below 16 pixels), between
    convolutions, or one for each component of a row that is none, at most 16; a codebook has 512, or fewer where there
    are not sixteen vectors for each. Where the code is as large as a row, so is `latent`, and images from 8 x 8 up get
    a U-Net of 16 channels. A recipe whose own network or likelihood is another means just that, whatever the data; one
    with a mixture of logistics takes the data's number of levels.
    """
    standard = {name: p.default for name, p in inspect.signature(getattr(recipes, recipe)).parameters.items()}
    meant = {name: standard[name] for name in ("likelihood", "network") if isinstance(standard[name], partial)}
    chosen = meant | given
    chosen["shape"] = data.shape
    many = recipes.overcomplete(recipe)
    if isinstance(chosen.get("rungs"), Sequence) and "rungs" in standard:
        chosen["latent"] = sum(chosen["rungs"])  # they are all the units that there are
    if recipes.coded(recipe):
        chosen = _coded(data, standard, chosen)
    if chosen.get("latent") in (None, "auto"):
        chosen["latent"] = min(4 * math.prod(data.shape), WIDEST) if many else latent(data.train)
        chosen["latent"] *= CLASSES if recipes.choices(recipe) else 1
        if recipes.mapped(recipe):
            chosen["latent"] = standard["latent"]
        if standard["latent"] is None:  # as large as a row
            chosen["latent"] = math.prod(data.shape)
    if standard["prior"] is VampPrior and "prior" not in chosen:
        few = min(len(data.train) // 10 + 1, PSEUDO)
        chosen["prior"] = partial(VampPrior, pseudo=few)
    if "likelihood" not in chosen:
        # with beta = 0 a learned sigma or scale has no optimum, and squared errors are what such members are for
        plain = getattr(data.likelihood, "func", data.likelihood)
        fixed = recipes.deterministic(recipe) and plain not in (Bernoulli, Columns, NegativeBinomial)
        chosen["likelihood"] = partial(Gaussian, sigma=1.0) if fixed else data.likelihood
        if plain is DiscretisedLogistic and standard["likelihood"] is LogisticMixture:
            chosen["likelihood"] = partial(LogisticMixture, **getattr(data.likelihood, "keywords", {}))
    if isinstance(data.scaling, TableCodec) and standard.get("corruption") is not None:
        chosen.setdefault("corruption", Missing())  # noise on the number of a category means nothing
    if data.context:
        chosen.setdefault("context", data.context)
    if recipes.told(recipe) and not chosen.get("context"):
        raise ValueError(
            f"recipe {recipe} tells the model something of every row, and {data.source} was loaded without: "
            "load(..., context='label') (--context label) where rows have labels (--label COLUMN), or take recipe vae"
        )
    if recipes.labelled(recipe):
        if len(data.classes or []) < 2:
            raise ValueError(
                f"recipe {recipe} learns a label that some rows bring, and {data.source} has "
                f"{'one class only' if data.classes else 'no labels'}: name the column by label (--label COLUMN), in "
                "which rows without one are blank, or take recipe vae"
            )
        chosen.setdefault("classes", len(data.classes or []))
    if "network" not in chosen:
        large = data.image and min(data.shape[-2:]) >= 32 and standard["network"] is Mlp and "hidden" not in chosen
        chosen["network"] = partial(Conv, width=16) if large else standard["network"]
        if standard["latent"] is None and data.image and min(data.shape[-2:]) >= 8:
            chosen["network"] = partial(Unet, width=16)
    return chosen


def _coded(data: Data, standard: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a code of codewords gets where nothing is said: its grids, its codebook, and convolutions for images."""
    chosen, several = dict(given), standard.get("posterior") is QuantisedRungs
    if chosen.get("grid") is None:
        by = 4 if min(data.shape[-2:]) >= (32 if several else 16) else 2
        grid = tuple(-(-side // by) for side in data.shape[-2:])  # Grid refuses what is not divisible
        grid = grid if data.image else (min(16, latent(data.train)),)
        chosen["grid"] = (tuple(-(-side // 2) for side in grid), grid) if several else grid
    coarse = chosen["grid"][0] if several else chosen["grid"]
    if data.image and len(coarse) == 2:
        chosen.setdefault("network", partial(Grid, width=32))
    if chosen.get("latent") in (None, "auto"):
        chosen["latent"] = standard["latent"] if data.image else min(16, standard["latent"])
    if "codebook" in standard and chosen.get("codebook") is None:
        vectors = len(data.train) * math.prod(coarse)
        chosen["codebook"] = max(2, min(CODEBOOK, 1 << int(math.log2(max(vectors // 16, 2)))))
    return chosen


def counted(likelihood: Any) -> bool:
    """Whether a likelihood, as a recipe takes it, is one of counts: its data are then kept as they are."""
    return bool(getattr(getattr(likelihood, "func", likelihood), "counts", False))


def operations(call: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call: the same on every machine."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def bound(forward: Callable[[], Any], parts: int) -> tuple[int, int]:
    """Draws K and rows a part for importance-weighted bounds: 1000 and 1000, fewer where decoding costs too much.

    `forward` takes one row through the model. Draws give way down to 250, then rows down to 100, then draws down
    to 50: fewer draws loosen the bound, fewer rows widen its interval.
    """
    pairs = BOUND / max(operations(forward), 1) / parts  # of a row and a draw
    rows = int(min(1000, max(100, pairs / 250)))
    return int(min(1000, max(50, pairs / rows))), rows


def readable(model: Model, most: int = 10_000) -> int:
    """Rows that are read where `most` could be: fewer where a way there and back takes many passes, at least 100."""
    if not isinstance(model, Diffusion):
        return most
    one = next(model.parameters()).new_zeros(1, *model.shape)
    told = one.new_zeros(1, model.context) if model.context else None
    with torch.no_grad():
        each = operations(lambda: model.decode(model.encode(one, told).z, told))
    return int(min(most, max(100, READ / max(each, 1))))
