"""Rows of a table: a likelihood for each column, so that one log p(x) covers the row and splits by cell."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import log_softmax, logsigmoid, one_hot, softplus

from narrows.likelihoods.common import Likelihood

__all__ = ["Column", "Columns", "Numbers"]


class Column(NamedTuple):
    """One column in model units. A category is its number, 0 to classes - 1; a number stands on the grid
    origin + step * k, and those in `atoms`, which many rows share, have a probability of their own.

    `periods` are (period, phase) of a date, of which the encoder is shown sine and cosine.
    """

    classes: int = 0
    step: float = 1.0
    origin: float = 0.0
    atoms: tuple[float, ...] = ()
    periods: tuple[tuple[float, float], ...] = ()


class Columns(Likelihood):
    r"""Categories and numbers side by side; cells are independent given z.

    A category has a free probability for each class. A number v is priced as the probability of its place on the grid,
    under a mixture of logistics of u = asinh(v), which is v itself near 0 and its logarithm far out, and of atoms a:

    .. math:: p(v) = \sum_a \pi_a [v = a] + \pi_0 \sum_c w_c \left( \sigma\Big(\frac{u_+ - m_c}{s_c}\Big)
              - \sigma\Big(\frac{u_- - m_c}{s_c}\Big) \right), \quad
              u_\pm = \operatorname{asinh}(v \pm \text{step} / 2)

    A density would be unbounded at values that many rows share; a probability is at most 1. An encoder is shown
    categories one-hot, asinh of numbers, which atom they are, and which cells are missing (NaN).

    Arguments: `columns`, a `Column` or such a tuple for each; `components` of each mixture.
    Shapes: what the decoder says (S, *wants) -> p(x|z) over (S,) x (columns,). `mean` has the likeliest category, and
    for numbers the weighted centre of the mixture.
    Raises: ValueError where columns and shape do not agree, or a column has one class or no grid.
    Reference: for mixed columns, Handling Incomplete Heterogeneous Data using VAEs (Nazabal et al., 2020),
    arXiv:1807.03653, section 2.2; for the discretisation, PixelCNN++ (Salimans et al., 2017), arXiv:1701.05517.

    Example:
        >>> likelihood = Columns((2,), [Column(classes=3), Column(step=0.5, atoms=(0.0,))])
        >>> px = likelihood(torch.zeros(1, *likelihood.wants))
        >>> round(float(px.base_dist.log_prob(torch.tensor([[2.0, 0.0]]))[0, 0].exp()), 4)
        0.3333
    """

    discrete = True
    chosen: Tensor
    counted: Tensor
    classes: Tensor
    shares: Tensor
    mixtures: Tensor
    atoms: Tensor
    steps: Tensor
    origins: Tensor
    start: Tensor

    def __init__(self, shape: tuple[int, ...], columns: Iterable[Any] = (), components: int = 5) -> None:
        super().__init__(shape)
        self.columns = tuple(_column(column) for column in columns)
        if self.shape != (len(self.columns),) or components < 1:
            raise ValueError(
                f"Columns takes rows of as many cells as it has columns, and a component at least; got shape "
                f"{self.shape} for {len(self.columns)} columns, components={components}"
            )
        self.components = components
        self._lay_out()

    def _lay_out(self) -> None:
        """Where each column's parameters stand among what the decoder says; short lists end with the place `wants`."""
        kinds = [bool(column.classes) for column in self.columns]
        classes: list[range] = []
        atoms: list[range] = []
        place, mixtures = 0, []
        for column in self.columns:
            choices = column.classes or len(column.atoms) + 1
            (classes if column.classes else atoms).append(range(place, place + choices))
            place += choices
            if not column.classes:
                mixtures.append(torch.arange(place, place + 3 * self.components).view(3, -1))
                place += 3 * self.components
        numbers = [column for column in self.columns if not column.classes]
        wide = max((len(column.atoms) for column in numbers), default=0)
        values = [[*column.atoms, *[math.nan] * (wide - len(column.atoms))] for column in numbers]
        self.parameters_of_a_row = place
        spread = torch.linspace(-2, 2, self.components) if self.components > 1 else torch.zeros(1)
        for name, held in {
            "chosen": torch.tensor(kinds).nonzero().flatten(),  # columns of categories
            "counted": (~torch.tensor(kinds)).nonzero().flatten() if kinds else torch.empty(0, dtype=torch.int64),
            "classes": _padded(classes, place),  # (categories, most)
            "shares": _padded(atoms, place),  # (numbers, most atoms + 1), the mixture's share first
            "mixtures": torch.stack(mixtures) if mixtures else torch.empty(0, 3, self.components, dtype=torch.int64),
            "atoms": torch.tensor(values).view(len(numbers), wide),
            "steps": torch.tensor([column.step for column in numbers]),
            "origins": torch.tensor([column.origin for column in numbers]),
            "start": spread,
        }.items():
            self.register_buffer(name, held, persistent=False)

    @property
    def wants(self) -> tuple[int, ...]:
        """Numbers wanted from the decoder for a row, one after the other."""
        return (self.parameters_of_a_row,)

    @property
    def reads(self) -> tuple[int, ...]:
        """Shape of what `shown` makes of a row."""
        width = len(self.columns)
        for column in self.columns:
            width += column.classes or 1 + len(column.atoms) + 2 * len(column.periods)
        return (width,)

    def shown(self, x: Tensor) -> Tensor:
        """Rows (B, columns), NaN where a cell is missing, as an encoder reads them, (B, *reads)."""
        lost = x.isnan()
        x = torch.where(lost, 0.0, x)
        parts = [lost.to(x.dtype)]
        atoms = iter(self.atoms.to(x))
        for number, column in enumerate(self.columns):
            cell, there = x[:, number], ~lost[:, number, None]
            if column.classes:
                shown = one_hot(cell.long().clamp(0, column.classes - 1), column.classes).to(x.dtype)
            else:
                also = [angle for period, phase in column.periods for angle in _angle(cell, period, phase)]
                hit = (cell[:, None] - next(atoms)[: len(column.atoms)]).abs() <= column.step / 2
                shown = torch.cat([cell.asinh()[:, None], hit.to(x.dtype), *(angle[:, None] for angle in also)], 1)
            parts.append(shown * there)
        return torch.cat(parts, 1)

    def usual(self, x: Tensor) -> Tensor:
        """Log-shares of classes and of atoms, and weights by the share of the numbers next to where each component
        begins; missing cells take no part, and one row more is spread evenly.
        """
        said = x.new_zeros(self.wants)

        def shares(hits: Tensor) -> Tensor:  # (n, choices), one or none in a row
            return ((hits.sum(0) + 1 / hits.shape[1]) / (hits.sum() + 1)).log()

        for cell, place in zip(x[:, self.chosen].T, self.classes, strict=True):
            place = place[place < len(said)]
            said[place] = shares((cell[:, None] == torch.arange(len(place), device=x.device)).to(x))
        starts = zip(x[:, self.counted].T, self.shares, self.mixtures, self.atoms, self.steps, strict=True)
        for cell, place, mixture, atoms, step in starts:
            place, cell = place[place < len(said)], cell[~cell.isnan()]
            near = (cell[:, None] - atoms[: len(place) - 1]).abs() <= step / 2
            rest = cell[~near.any(1)]
            said[place] = shares(torch.cat([~near.any(1, keepdim=True), near], 1).to(x))
            near_start = (rest.asinh()[:, None] - self.start).abs().argmin(1)
            said[mixture[0]] = shares(one_hot(near_start, self.components).to(x))
        return said

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return CellsDistribution(parameters, self)

    def extra_repr(self) -> str:
        categories = sum(bool(column.classes) for column in self.columns)
        return f"{len(self.columns) - categories} numbers, {categories} categories, components={self.components}"


def _angle(cell: Tensor, period: float, phase: float) -> tuple[Tensor, Tensor]:
    """Sine and cosine of where in its period a date lies."""
    angle = 2 * math.pi * (cell - phase) / period
    return angle.sin(), angle.cos()


def _column(column: Any) -> Column:
    made = Column(*column)
    made = made._replace(atoms=tuple(made.atoms), periods=tuple((float(a), float(b)) for a, b in made.periods))
    if made.classes == 1 or made.classes < 0 or not made.step > 0:
        raise ValueError(
            "a column is a category of at least 2 classes, or a number on a grid with a step above 0; got "
            f"classes={made.classes}, step={made.step}"
        )
    return made


def _padded(places: list[range], end: int) -> Tensor:
    """Lists of places as one tensor, short ones filled with `end`."""
    most = max(map(len, places), default=0)
    return torch.tensor([[*row, *[end] * (most - len(row))] for row in places], dtype=torch.int64).view(
        len(places), most
    )


class CellsDistribution(Distribution):
    """The cells of rows, batch (S, columns), event (); parameters (S, numbers of a row)."""

    arg_constraints = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, parameters: Tensor, layout: Columns) -> None:
        super().__init__(torch.Size((len(parameters), len(layout.columns))), validate_args=False)
        self.layout = layout
        said = torch.cat([parameters, parameters.new_full((len(parameters), 1), -math.inf)], 1)  # what lists end with
        self.log_classes = log_softmax(said[:, layout.classes], -1)  # (S, categories, most)
        self.log_shares = log_softmax(said[:, layout.shares], -1)  # (S, numbers, atoms + 1)
        logits, centre, scale = said[:, layout.mixtures].unbind(2)  # (S, numbers, components) each
        self.log_weights = log_softmax(logits, -1)
        self.centre = centre + layout.start.to(said)
        self.scale = softplus(scale - 0.5) + 1e-4

    def log_prob(self, value: Tensor) -> Tensor:
        layout = self.layout
        value = value.expand(len(self.log_shares), -1)
        out = value.new_zeros(value.shape)
        if len(layout.chosen):
            index = value[:, layout.chosen].long()[..., None].clamp(0, self.log_classes.shape[-1] - 1)
            out = out.index_copy(1, layout.chosen, self.log_classes.gather(-1, index).squeeze(-1))
        if len(layout.counted):
            out = out.index_copy(1, layout.counted, self._numbers(value[:, layout.counted]))
        return out

    def _numbers(self, v: Tensor) -> Tensor:
        """Log-probability of numbers (S, numbers)."""
        step = self.layout.steps.to(v)
        near, far = v.abs() - step / 2, v.abs() + step / 2
        # asinh(far) - asinh(near) without the difference of two that may be equal to the last digit
        root_near, root_far = (1 + near.square()).sqrt(), (1 + far.square()).sqrt()
        width = torch.log1p((step + step * (far + near) / (root_far + root_near)) / (near + root_near))
        low, high = (v - step / 2).asinh(), (v + step / 2).asinh()
        a, b = (low[..., None] - self.centre) / self.scale, (high[..., None] - self.centre) / self.scale
        inner = logsigmoid(b) + logsigmoid(-a) + torch.log(-torch.expm1(-width[..., None] / self.scale))
        log_p = self.log_shares[..., 0] + (self.log_weights + inner).logsumexp(-1)
        if not self.layout.atoms.shape[-1]:
            return log_p
        hit = (v[..., None] - self.layout.atoms.to(v)).abs() <= step[:, None] / 2  # (S, numbers, atoms)
        share = self.log_shares[..., 1:].gather(-1, hit.to(torch.uint8).argmax(-1, keepdim=True)).squeeze(-1)
        return torch.where(hit.any(-1), torch.logaddexp(share, log_p), log_p)

    def numbers(self, w: Tensor, most: int | None = None) -> "Numbers":
        """The numbers under a mixture of these rows, weights w (K, B, numbers) over S = K * B; of at most `most` of
        them, which then stand for the others by systematic resampling.
        """
        w = (w / w.sum(0)).to(self.centre.dtype)
        if not len(self.layout.counted):
            nothing = self.centre.new_zeros(*w.shape, self.layout.components)
            return Numbers(nothing, nothing, nothing, nothing.new_zeros(*w.shape[1:], 0), self.layout)
        shares, weights, centre, scale = (
            t.unflatten(0, w.shape[:2])
            for t in (self.log_shares.exp(), self.log_weights.exp(), self.centre, self.scale)
        )
        heaps = (w[..., None] * shares[..., 1:]).sum(0)
        parts = (w * shares[..., 0])[..., None] * weights
        if most is not None and len(w) > most:
            order = (weights * centre).sum(-1).argsort(0)  # neighbours stand for each other
            heaped = w.gather(0, order).movedim(0, -1).cumsum(-1)  # (B, numbers, K)
            at = (torch.arange(most, dtype=w.dtype, device=w.device) + 0.5) / most
            at = torch.searchsorted(heaped, at.expand(*heaped.shape[:-1], most).contiguous()).clamp_max(len(w) - 1)
            taken = order.gather(0, at.movedim(-1, 0))[..., None].expand(-1, -1, -1, centre.shape[-1])
            centre, scale, weights = (t.gather(0, taken) for t in (centre, scale, weights))
            parts = weights * (shares[..., :1].gather(0, taken[..., :1]) / most)
        return Numbers(parts, centre, scale, heaps, self.layout)

    @property
    def mean(self) -> Tensor:
        layout = self.layout
        out = self.centre.new_zeros(self.batch_shape)
        out[:, layout.chosen] = self.log_classes.argmax(-1).to(out.dtype)
        centre = (self.log_weights.exp() * self.centre.sinh()).sum(-1)
        atoms = layout.atoms.nan_to_num().to(out)
        out[:, layout.counted] = self.log_shares[..., 0].exp() * centre + (self.log_shares[..., 1:].exp() * atoms).sum(
            -1
        )
        return out

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        layout, shape = self.layout, torch.Size(sample_shape)
        out = self.centre.new_zeros(*shape, *self.batch_shape)
        out[..., layout.chosen] = _choice(self.log_classes, shape).to(out.dtype)
        part = _choice(self.log_weights, shape)[..., None]
        centre, scale = (t.expand(*shape, *t.shape).gather(-1, part).squeeze(-1) for t in (self.centre, self.scale))
        u = centre + scale * torch.logit(torch.rand_like(centre), eps=1e-7)
        step, origin = layout.steps.to(out), layout.origins.to(out)
        v = origin + step * ((u.sinh() - origin) / step).round()
        which = _choice(self.log_shares, shape)
        if layout.atoms.shape[-1]:
            atoms = layout.atoms.to(out).expand(*which.shape, -1)
            atom = atoms.gather(-1, (which - 1).clamp_min(0)[..., None]).squeeze(-1)
            v = torch.where(which > 0, atom, v)
        out[..., layout.counted] = v
        return out


class Numbers(NamedTuple):
    """Mixtures of K draws for each number of B rows."""

    parts: Tensor  # (K, B, numbers, components) probabilities, that of the atoms left out
    centre: Tensor  # likewise
    scale: Tensor
    heaps: Tensor  # (B, numbers, atoms) probabilities
    layout: Columns

    def below(self, v: Tensor, inclusive: bool = True) -> Tensor:
        """P(number <= v), or < v, for v (B, numbers); numbers between two places of the grid count as the nearer."""
        step, atoms = self.layout.steps.to(v), self.layout.atoms.to(v)
        edge = v + step / 2 if inclusive else v - step / 2
        smooth = (self.parts * ((edge.asinh()[..., None] - self.centre) / self.scale).sigmoid()).sum((0, 3))
        return smooth + (self.heaps * (atoms <= edge[..., None])).sum(-1)

    def quantile(self, share: float) -> Tensor:
        """The place on the grid below which no more than `share` lies, (B, numbers), by halving on asinh's scale."""
        low, high = (self.centre - 20 * self.scale).amin((0, 3)), (self.centre + 20 * self.scale).amax((0, 3))
        atoms = self.layout.atoms.to(low).asinh()  # (numbers, A), NaN where there are fewer
        if atoms.shape[-1]:
            most = atoms.nan_to_num(0.0).abs().amax(-1)
            low, high = torch.minimum(low, -most), torch.maximum(high, most)
        low, high = low.clamp(-40, 40), high.clamp(-40, 40)
        for _ in range(32):
            u = (low + high) / 2
            below = (self.parts * ((u[..., None] - self.centre) / self.scale).sigmoid()).sum((0, 3))
            below = below + (self.heaps * (atoms <= u[..., None])).sum(-1)
            low, high = torch.where(below < share, u, low), torch.where(below < share, high, u)
        step, origin = self.layout.steps.to(high), self.layout.origins.to(high)
        return origin + step * ((high.sinh() - origin) / step).round()


def _choice(log_p: Tensor, shape: torch.Size) -> Tensor:
    """Draws among the last axis, (*shape, ...)."""
    u = torch.rand(*shape, *log_p.shape, device=log_p.device, dtype=log_p.dtype)
    return (log_p - (-u.clamp_min(torch.finfo(u.dtype).tiny).log()).log()).argmax(-1)
