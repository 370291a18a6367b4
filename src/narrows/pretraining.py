"""What a deep autoencoder is given before it is trained as a whole: weights that one layer after another has learned.

A start is what `Model.start` holds, called by `fit` as `start(model, rows, train)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from narrows.likelihoods import Gaussian, Likelihood
from narrows.models import Autoencoder, Model
from narrows.objectives import Objective
from narrows.posteriors import Deterministic

if TYPE_CHECKING:
    from narrows.data import Rows

__all__ = ["Greedy"]

STEPS = 2_000  # of a layer where nothing is said: it is only to begin well


@dataclass(frozen=True)
class Greedy:
    r"""Trains a deep autoencoder layer by layer, each as a shallow autoencoder of what the layers below make of x.

        x -> layer 1 -> h -> layer 2 -> h' -> ... -> z -> ... -> layer -2 -> h -> layer -1 -> x
        1.   [ layer 1 ]- - - - - - - - - - - - - - - - - - - - - - - - - - - -[ layer -1 ]
        2.                [ layer 2 ] - - - - - - - - - - - - - -[ layer -2 ]

    The first layer scores x by the model's own likelihood; the others score h by squared error, with the ReLU that
    stands between layers left out at the end of the way back. A tenth of the rows decide when a layer is done. The
    layers are the deep model's own, so that nothing is copied. Dropout waits for the training end to end.

    Arguments: `corruption` of what each layer reads, None for none; `epochs` of each layer, None for
        2,000 steps, or as many passes as the whole where that is fewer.
    Raises: ValueError for fewer epochs than one; TypeError for networks that have no `stages()`, as `Mlp` and `Conv`
        have, or that do not mirror each other.
    Reference: Reducing the Dimensionality of Data with Neural Networks (Hinton & Salakhutdinov, 2006); Greedy
        Layer-Wise Training of Deep Networks (Bengio et al., 2007), section 4; with a corruption: Stacked Denoising
        Autoencoders (Vincent et al., 2010), JMLR 11:3371, section 3.
    """

    corruption: Callable[[Tensor], Tensor] | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and (self.epochs != int(self.epochs) or self.epochs < 1):
            raise ValueError(f"pretraining is a whole number of passes of at least 1 a layer; got {self.epochs}")

    def __call__(self, model: Model, rows: "Rows", train: Callable[..., Any]) -> bool:
        down, up = self.stages(model)
        if len(down) == 1 and self.corruption is None:
            return False  # one layer is trained as a whole anyway
        changes = {"steps": STEPS} if self.epochs is None else {"epochs": self.epochs}
        between = getattr(model.encoder, "between", nn.ReLU())
        for depth, (layer, back) in enumerate(zip(down, reversed(up), strict=True)):
            below = nn.Sequential(*(part for stage in down[:depth] for part in (stage, between)))
            h = rows if depth == 0 else _through(below, rows, model.likelihood)
            likelihood = model.likelihood if depth == 0 else Gaussian(tuple(h.shape[1:]))  # type: ignore[union-attr]
            encoder = nn.Sequential(layer, *([] if layer is down[-1] else [between]), nn.Flatten())
            with torch.no_grad():
                width = encoder(below(model.likelihood.shown(rows.batch(torch.arange(1)).x))).shape[1]
            shallow = Autoencoder(encoder, Deterministic(width), back, likelihood, self.corruption)
            train(shallow, Objective(beta=0.0), h, every=10, share=1 / (len(down) + 1), **changes)
        model.train()
        return False

    @staticmethod
    def stages(model: Model) -> tuple[list[nn.Module], list[nn.Module]]:
        """The layers of encoder and decoder. Raises TypeError where they cannot be taken in pairs."""
        for side in (model.encoder, model.decoder):
            if not hasattr(side, "stages"):
                raise TypeError(
                    f"layers are pretrained one by one, and {type(side).__name__} does not tell its own: use "
                    "network=Mlp or Conv, or give your network a method stages() that lists them"
                )
        down, up = model.encoder.stages(), model.decoder.stages()  # type: ignore[operator]
        if len(down) != len(up):
            raise TypeError(
                f"layers are pretrained in pairs, and the encoder has {len(down)} while the decoder has {len(up)}; "
                "give the decoder the encoder's hidden widths in reverse order"
            )
        return down, up


@torch.no_grad()
def _through(network: nn.Module, rows: "Rows", likelihood: Likelihood) -> Tensor:
    """What a network makes of all rows, as an encoder is shown them, a piece at a time, on their device."""
    found, done = torch.empty(0), 0
    for batch in rows.batches(1024):
        h = network(likelihood.shown(batch.x))
        if not done:  # filled in place: a list of parts and their sum would lie in memory together
            found = h.new_empty(len(rows), *h.shape[1:])
        found[done : done + len(h)] = h
        done += len(h)
    return found
