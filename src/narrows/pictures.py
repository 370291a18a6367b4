"""Pictures for people who would rather look than read: figures, and grids of images."""

import base64
import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = [
    "curves",
    "firing",
    "gaps",
    "grid",
    "inline",
    "paired",
    "png",
    "profiles",
    "rates",
    "scatter",
    "series",
    "shown",
    "usage",
]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9822b", "#3a8a5f", "#8a8f98"


def _figure(columns: int = 1, width: float = 9.0, height: float = 2.6) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure, axes


def curves(metrics: list[dict[str, Any]], best_step: int) -> "Figure":
    """The loss and the terms of the equation over the steps, training and held-out rows, the stopping point marked."""
    names = {"loss": "loss", "distortion": "distortion (reconstruction)", "rate": "rate (KL)", "penalty": "penalty"}
    shown = [n for n in names if n in ("loss", "distortion") or any(m["train"][n] for m in metrics)]
    figure, axes = _figure(len(shown), height=2.8)
    steps = [m["step"] for m in metrics]
    dot = "o" if len(metrics) == 1 else ""  # a line of one point cannot be seen
    for ax, name in zip(axes, shown, strict=True):
        ax.plot(steps, [m["train"][name] for m in metrics], color=BLUE, lw=1.4, marker=dot, label="training")
        if metrics and metrics[0]["valid"]:
            held = [m["valid"][name] for m in metrics]
            ax.plot(steps, held, color=ORANGE, lw=1.4, marker=dot, label="held out")
            low, high = np.percentile([m["train"][name] for m in metrics] + held, [0, 97])
            ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9)
        ax.axvline(best_step, color=GREY, lw=0.9, ls="--", label=f"best, step {best_step:,}")
        ax.set_title(f"{names[name]}, nats", fontsize=10)
        ax.set_xlabel("step", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def rates(variance: Tensor, rate: Tensor | None, rungs: tuple[int, ...] = ()) -> "Figure":
    """Rate of each unit (KL, nats), or its variance where the code has no density, largest first, rung by rung."""
    values = (variance if rate is None else rate).numpy()
    starts = np.cumsum([0, *(rungs or (len(values),))])
    groups = [a + np.argsort(-values[a:b]) for a, b in pairwise(starts)]
    order = np.concatenate(groups)
    place = np.concatenate([range(a + 2 * i, b + 2 * i) for i, (a, b) in enumerate(pairwise(starts))])
    figure, (ax,) = _figure(width=min(9.0, 2.5 + 0.22 * (len(values) + 2 * len(rungs))))
    ax.bar(place, values[order], color=[BLUE if values[i] > 0.01 else GREY for i in order], width=0.8)
    ax.set_xticks(place, [str(i) for i in order] if len(values) <= 40 else ["" for _ in order])
    for i, (group, units) in enumerate(zip(groups, rungs, strict=False)):
        text = f"rung {i + 1}" + (f"\n{values[group].sum():.3g} nats" if rate is not None else "")
        middle = starts[i] + 2 * i + (units - 1) / 2
        ax.annotate(text, (middle, 1), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=8)
    if rungs:
        ax.set_ylim(top=max(1.3 * values.max(), 0.02))
    ax.set_title("rate per unit, nats" if rate is not None else "variance of each unit of the code", fontsize=10)
    ax.set_xlabel("unit of the code (grey: inactive)", fontsize=9)
    return figure


def usage(counts: Tensor, perplexity: float) -> "Figure":
    """How often each codeword of each book is chosen, (books, K) counts, most frequent first, beside equal use."""
    figure, (ax,) = _figure(width=6.2)
    shares = (counts / counts.sum(1, keepdim=True)).sort(1, descending=True).values
    for number, share in enumerate(shares):
        name = f"book {number + 1}" if len(shares) > 1 else "codewords"
        ax.plot(range(1, len(share) + 1), share.numpy(), lw=1.4, label=name, color=BLUE if len(shares) == 1 else None)
    ax.axhline(1 / counts.shape[1], color=GREY, lw=0.9, ls="--", label="equal use")
    ax.set_ylim(bottom=0)
    ax.set_title(f"share of the choices (perplexity {perplexity:.4g} of {counts.shape[1]:,})", fontsize=10)
    ax.set_xlabel("codewords, by how often they are chosen", fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    return figure


def firing(rate: Tensor) -> "Figure":
    """Histogram of how often units fire, (D,) shares of the rows, by powers of ten; units that never do stand left."""
    figure, (ax,) = _figure(width=6.2)
    some = rate[rate > 0].log10().numpy()
    edges = np.linspace(min(-4.0, some.min() if len(some) else 0.0), 0.0, 33)
    ax.hist(some, edges.tolist(), color=BLUE)
    dead = int((rate == 0).sum())
    ax.bar(edges[0] - 0.3, dead, 0.2, color=GREY)
    ticks = [t for t in range(-6, 1) if t >= edges[0]]
    ax.set_xticks([edges[0] - 0.3, *ticks], ["never", *(f"{10.0**t:g}" for t in ticks)])
    ax.set_title("units by the share of rows for which they fire", fontsize=10)
    return figure


def gaps(log_p: Tensor, best: Tensor, bound: Tensor) -> "Figure":
    """Of each row (n,) nats, log p(x) - L[q*] and L[q*] - L[q] one on the other, rows by their sum."""
    figure, (ax,) = _figure(width=6.2)
    order = (log_p - bound).argsort(descending=True)
    parts = [t[order].numpy() for t in (log_p - best, best - bound)]
    approximation, amortisation = (part.clip(0) for part in parts)  # below 0 is Monte Carlo error; the means keep it
    place = np.arange(len(order))
    ax.bar(place, approximation, 1.0, color=BLUE, label=f"approximation, mean {parts[0].mean():.3g}")
    name = f"amortisation, mean {parts[1].mean():.3g}"
    ax.bar(place, amortisation, 1.0, approximation, color=ORANGE, label=name)
    ax.set_title("log p(x) - ELBO of each row, nats", fontsize=10)
    ax.set_xlabel("rows, by their gap", fontsize=9)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    return figure


def scatter(points: Tensor, title: str, label: Tensor | None, classes: list[str] | None) -> "Figure":
    """Points (n, 2), coloured by label (n,)."""
    figure, (ax,) = _figure(width=6.2, height=5.0)
    xy = points.numpy()
    if label is None:
        ax.scatter(xy[:, 0], xy[:, 1], s=7, color=BLUE, alpha=0.5, lw=0)
    else:
        from matplotlib import colormaps

        kinds = sorted(int(k) for k in set(label.tolist()))
        colours = colormaps["tab10" if len(kinds) <= 10 else "tab20"]
        for i, kind in enumerate(kinds[:20]):
            name = "unlabelled" if kind < 0 else classes[kind] if classes else str(kind)
            chosen = (label == kind).cpu().numpy()
            ax.scatter(xy[chosen, 0], xy[chosen, 1], s=8, color=colours(i), alpha=0.7, lw=0, label=name)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    ax.set_aspect("equal", "datalim")
    ax.set_title(title, fontsize=10)
    return figure


def profiles(first: Tensor, second: Tensor, titles: list[str]) -> "Figure":
    """Rows that are no images (n, *event), each a small plot of its values: the first in blue, the second in orange."""
    from matplotlib.figure import Figure

    across = 4
    down = math.ceil(len(first) / across)
    figure = Figure(figsize=(9.0, 1.5 * down), layout="constrained")
    for i, title in enumerate(titles):
        ax = figure.add_subplot(down, across, i + 1)
        ax.plot(first[i].flatten().numpy(), color=BLUE, lw=1.2)
        ax.plot(second[i].flatten().numpy(), color=ORANGE, lw=1.0)
        ax.set_title(title, fontsize=8)
        ax.tick_params(labelsize=6)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def series(
    scores: Tensor,
    flagged: Tensor,
    truth: Tensor | None,
    channels: "dict[str, tuple[NDArray[Any], NDArray[Any]]]",
) -> "Figure":
    """The score (T,) of each step over time, flagged steps shaded; below it channels, seen in blue, expected in orange.

    True steps (T,) stand as a green line under the score.
    """
    from matplotlib.figure import Figure

    down, steps = 1 + len(channels), np.arange(len(scores))
    figure = Figure(figsize=(10.0, 1.5 * down + 0.3), layout="constrained")
    axes: list[Axes] = []
    for i, name in enumerate(["score", *channels]):
        ax = figure.add_subplot(down, 1, i + 1, sharex=axes[0] if axes else None)
        axes.append(ax)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flagged.int().numpy(), [0]])))
        for begin, end in edges.reshape(-1, 2):
            ax.axvspan(begin - 0.5, end - 0.5, color=ORANGE, alpha=0.2, lw=0)
        if i == 0:
            ax.plot(steps, scores.numpy(), color=BLUE, lw=0.8)
            if truth is not None:
                low = float(scores[~scores.isnan()].min())
                ax.plot(steps, np.where(truth.numpy() == 1, low, np.nan), color=GREEN, lw=3, label="known anomalies")
                ax.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95))
        else:
            seen, expected = channels[name]
            ax.plot(steps, seen, color=BLUE, lw=0.9, label="seen")
            ax.plot(steps, expected, color=ORANGE, lw=0.9, label="expected")
            if i == 1:
                ax.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95), ncols=2)
        ax.set_title(f"{name} (flagged steps shaded)" if i == 0 else name, fontsize=9, loc="left")
        ax.tick_params(labelsize=7, labelbottom=i == down - 1)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("step", fontsize=9)
    return figure


def grid(x: Tensor, across: int, gap: int = 1) -> Pixels:
    """Images (n, C, H, W), pixels in 0..1, C of 1 or 3 (others: the first), as one picture (rows, columns, 1 or 3)."""
    n, channels, height, width = x.shape
    x = x if channels in (1, 3) else x[:, :1]
    channels = x.shape[1]
    down = -(-n // across)
    canvas = np.full((down * (height + gap) + gap, across * (width + gap) + gap, channels), 255, np.uint8)
    values = (x.clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
    for i in range(n):
        top, left = gap + i // across * (height + gap), gap + i % across * (width + gap)
        canvas[top : top + height, left : left + width] = values[i]
    return canvas


def paired(first: Tensor, second: Tensor, across: int = 12) -> Pixels:
    """Two sets of images (n, C, H, W) as one grid, each line of the first above its line of the second."""
    lines = [part[i : i + across] for i in range(0, len(first), across) for part in (first, second)]
    return grid(torch.cat(lines), across)


def shown(pixels: Pixels) -> "Figure":
    """A grid as a figure."""
    height, width = pixels.shape[:2]
    figure, (ax,) = _figure(width=9.0, height=max(1.0, 9.0 * height / width))
    ax.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    return figure


def png(picture: "Pixels | Figure", scale: int = 1) -> bytes:
    """A figure or a grid as the bytes of a PNG."""
    buffer = io.BytesIO()
    if isinstance(picture, np.ndarray):
        from PIL import Image

        image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    else:
        picture.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def inline(picture: "Pixels | Figure", alt: str, scale: int = 1) -> str:
    """The picture as an <img> that needs no other file."""
    data = base64.b64encode(png(picture, scale)).decode()
    kind = "pixels" if isinstance(picture, np.ndarray) else "figure"
    return f'<img class="{kind}" alt="{alt}" src="data:image/png;base64,{data}">'
