"""Codes of codewords: each vector that the encoder says gives way to the nearest of a codebook."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize, one_hot

from narrows import draws
from narrows.contract import Code, repeated

__all__ = ["Discrete", "OnGrid", "Places", "Quantised", "nearest", "rotated", "vectors"]

ROUNDS = 10  # of k-means
VECTORS = 32  # of each codeword, at most, from which k-means starts
RECENT = 100  # steps: a codeword that none of them used is not in use


class Places(NamedTuple):
    """Where codewords stand, and how many there are: all that a quantiser asks of a prior."""

    grid: tuple[int, ...]
    codebook: int


def nearest(v: Tensor, vectors: Tensor) -> Tensor:
    """Which of the codewords (K, d) is nearest to each vector (n, d): argmin of |e|^2 / 2 - v e, (n,)."""
    return torch.addmm(vectors.square().sum(1) / 2, v, vectors.T, alpha=-1).min(1).indices


def _sums(index: Tensor, v: Tensor, k: int) -> Tensor:
    """Sums (k, d) of the vectors (n, d) of each index."""
    found = v.new_zeros(k, v.shape[1])
    if not v.is_cuda:
        return found.index_add_(0, index, v)
    for some, i in zip(v.split(8192), index.split(8192), strict=True):  # atomic additions differ from run to run
        found.addmm_(one_hot(i, k).to(v).T, some)
    return found


def rotated(v: Tensor, e: Tensor) -> Tensor:
    r"""The codewords e (n, d), their gradient turned and scaled to that of v (n, d) as v is turned and scaled to e.

    .. math:: z = \frac{|e|}{|v|} \big( I - 2 r r^\top + 2 \hat e \hat v^\top \big) v, \quad
              r = \frac{\hat v + \hat e}{|\hat v + \hat e|}

    with the map held constant (Fifty et al. 2024, arXiv:2410.06424, section 4.2). Its value is e.
    """
    with torch.no_grad():
        sizes = [t.norm(dim=1, keepdim=True).clamp_min(1e-12) for t in (v, e)]
        here, there = v / sizes[0], e / sizes[1]
        r = normalize(here + there, dim=1)
        scale = sizes[1] / sizes[0]
    turned = v - 2 * r * (r * v).sum(1, keepdim=True) + 2 * there * (here * v).sum(1, keepdim=True)
    return _valued(e, scale * turned)


def _valued(value: Tensor, gradient: Tensor) -> Tensor:
    """The value of one, to the last bit, and the gradient of the other."""
    return value.detach() + (gradient - gradient.detach())


class Discrete(nn.Module, ABC):
    """What codes of codewords share: numbers of codewords for vectors, and how often each codeword is chosen.

    q(z|x) puts all on one code: draws are the same, log q = 0, and the rate of a choice is -log p(index) under the
    prior. `grid` is the shape of a code's numbers, `parts` what quantises the vectors of one grid each.

    `count` (books, K) is the moving average of how often a training step uses each codeword, `idle` how many steps it
    has not been used; over processes that share a batch they are of the whole batch.
    """

    density = closed = certain = True  # `certain`: further draws are the same
    grid: tuple[int, ...]
    codebook: int
    latent: int
    count: Tensor
    idle: Tensor

    @property
    @abstractmethod
    def parts(self) -> "list[OnGrid]":
        """What quantises each grid of vectors, the top first."""

    @abstractmethod
    def embed(self, index: Tensor) -> Tensor:
        """Z (S, latent) of codes (S, *grid)."""

    @abstractmethod
    def by_book(self, index: Tensor) -> list[Tensor]:
        """The choices (n,) from every book in codes (S, *grid)."""

    @property
    def variables(self) -> int:
        """Choices that a code consists of."""
        return math.prod(self.grid)

    @property
    def groups(self) -> int:
        """Columns of the rates: choices."""
        return self.variables

    @property
    def perplexity(self) -> Tensor:
        """The exponential of the entropy of how often each codeword is used, from 1 to K; of several books the mean."""
        p = self.count / self.count.sum(1, keepdim=True)
        return torch.special.entr(p).sum(1).exp().sum() / len(p)

    @property
    def used(self) -> Tensor:
        """Share of the codewords that any of the last 100 training steps has used."""
        return (self.idle < RECENT).to(self.count).sum() / self.idle.numel()


class OnGrid(Discrete):
    """Codewords in one grid.

        h (B, width, *space) -> vectors (B places, width) -> `quantise` -> index (B, *grid) -> z (S, latent)

    z is flat, as the map (width, *space) that a decoder reads. Where a place has several codewords (`books`), they are
    the last axis of the grid. A prior that stands elsewhere is replaced by where its codewords stand (`Places`).
    """

    def __init__(self, prior: "nn.Module | Places", width: int, books: int = 1, decay: float = 0.99) -> None:
        super().__init__()
        if not hasattr(prior, "codebook"):
            raise TypeError(
                "a code of codewords takes a prior over codewords. Wrong: Quantised(StandardNormal(latent), width); "
                f"right: Quantised(Codewords(grid=(7, 7), codebook=512), width); got {type(prior).__name__}"
            )
        if width < 1:
            raise ValueError(f"a code needs at least one unit; got latent={width}")
        self.prior: Any = prior
        self.width, self.books = width, books
        self.grid = prior.grid  # type: ignore[assignment]
        self.codebook = int(prior.codebook)  # type: ignore[arg-type]
        if books > 1 and self.grid[-1] != books:
            raise ValueError(f"the last axis of the grid is for the {books} codewords of a place; got grid={self.grid}")
        self.space = (self.grid[:-1] or (1,)) if books > 1 else self.grid
        self.latent = width * math.prod(self.space)
        self.features = (width,) if self.space == (1,) else (width, *self.space)
        self.averaged = decay
        self.register_buffer("count", torch.ones(books, self.codebook))
        self.register_buffer("idle", torch.zeros(books, self.codebook, dtype=torch.int64))

    @property
    def parts(self) -> "list[OnGrid]":
        """Itself."""
        return [self]

    @abstractmethod
    def quantise(self, v: Tensor, learning: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors (n, width) -> codewords (n, width) with the encoder's gradient, index (n, books), penalty (n,)."""

    @abstractmethod
    def vectors_of(self, index: Tensor) -> Tensor:
        """The vectors (n, width) of choices (n, books)."""

    def embed(self, index: Tensor) -> Tensor:
        """Z (S, latent) of codes (S, *grid)."""
        return self.joined(self.vectors_of(index.reshape(-1, self.books)), index.shape[0])

    def by_book(self, index: Tensor) -> list[Tensor]:
        """The choices (n,) from every book in codes (S, *grid)."""
        return list(index.reshape(-1, self.books).unbind(1))

    def apart(self, h: Tensor) -> Tensor:
        """Maps (rows, width, *space) as vectors (rows places, width)."""
        return h.reshape(h.shape[0], self.width, -1).transpose(1, 2).reshape(-1, self.width)

    def joined(self, v: Tensor, rows: int) -> Tensor:
        """Vectors (rows places, width) as flat maps (rows, width places)."""
        return v.view(rows, -1, self.width).transpose(1, 2).flatten(1)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        v = self.apart(h)
        learning = self.training and draw and torch.is_grad_enabled()
        e, index, penalty = self.quantise(v, learning)
        index = index.view(h.shape[0], *self.grid)
        z = self.joined(e, h.shape[0])
        paid = z.new_zeros(h.shape[0]) if penalty is None else penalty.view(h.shape[0], -1).sum(1)
        rates = -self.prior(context).each(index).flatten(1).to(z.dtype)  # (B, choices)
        z, rates, paid, index = (repeated(t, samples) for t in (z, rates, paid, index))
        return Code(z, rates, torch.zeros_like(paid), -rates.sum(1), paid, index)

    @torch.no_grad()
    def tally(self, book: int, index: Tensor, v: Tensor | None = None) -> Tensor | None:
        """Counts the codewords (n,) that a step has used; the sums (K, d) of the vectors (n, d) that chose each."""
        ones = self.count.new_ones(len(index), 1)
        v = ones if v is None else torch.cat([ones, v], 1)
        found = draws.summed(_sums(index, v, self.codebook))
        self.count[book].lerp_(found[:, 0], 1 - self.averaged)
        self.idle[book].add_(1).mul_(found[:, 0] == 0)
        return found[:, 1:]

    def extra_repr(self) -> str:
        return f"latent={self.latent}, width={self.width}"


class Quantised(OnGrid):
    r"""Vector quantisation: each vector of the encoder gives way to the nearest codeword.

    .. math:: k_i = \arg\min_k |h_i - e_k|, \quad z_i = e_{k_i}, \quad
              \text{penalty} = \sum_i \beta\, |h_i - \operatorname{sg} e_{k_i}|^2

    The codebook learns by moving averages of the vectors that choose each codeword (`decay`),

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma)\, n_k, \quad
              m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{i: k_i = k} h_i, \quad e_k = m_k / N_k,

    or (`decay=None`) by the gradient of :math:`\sum_i |\operatorname{sg} h_i - e_{k_i}|^2`, which joins the penalty.
    Penalties are sums over the places and units of a row. `fit` starts it with k-means of training rows. Averages move
    in training alone, once a step: where draws are asked for and gradients kept.

    Arguments:
        prior: over codewords, such as `Codewords(grid, codebook)`, which says how many there are and where.
        width: units of a vector.
        commitment: beta.
        decay: gamma, or None for a codebook that learns by gradients.
        levels: codewords of a place, each of what those before it left over (residual quantiser).
        groups: codewords of a place, each of a part of its units (product quantiser). With either the last axis of the
            grid is theirs, and each has a codebook of its own.
        rotation: the encoder's gradient is the decoder's, turned and scaled as h is to e; else it is just that
            (straight-through).
        revive: steps after which a codeword that none has used becomes a vector of the batch; None for never.

    Shapes: h (B, width, *space) -> z (S, latent), rates (S, choices) nats, index (S, *grid).
    Raises: TypeError for a prior of another kind, ValueError for a setting that means nothing.
    References: Neural Discrete Representation Learning (van den Oord et al., 2017), arXiv:1711.00937, equations 1 to 3
    and 6 to 8 (appendix A.1); rotation: Fifty et al. 2024, arXiv:2410.06424; revival: Jukebox (Dhariwal et al., 2020),
    arXiv:2005.00341, section 3.2; residual: SoundStream (Zeghidour et al., 2021), arXiv:2107.03312, section III.C.

    Example:
        >>> from narrows.priors import Codewords
        >>> q = Quantised(Codewords((7, 7), codebook=512), width=64).eval()
        >>> code = q(torch.randn(5, 64, 7, 7))
        >>> code.index.shape, code.z.shape, torch.equal(q.embed(code.index), code.z)
        (torch.Size([5, 7, 7]), torch.Size([5, 3136]), True)
    """

    def __init__(
        self,
        prior: "nn.Module | Places",
        width: int,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        levels: int = 1,
        groups: int = 1,
        rotation: bool = False,
        revive: int | None = RECENT,
    ) -> None:
        _check(width, commitment, decay, levels, groups, revive)
        super().__init__(prior, width, levels * groups, 0.99 if decay is None else decay)
        self.commitment, self.decay, self.rotation, self.revive = commitment, decay, rotation, revive
        self.levels, self.part = levels, width // groups
        # of one length, that of what fresh networks say: directions decide until `start` has seen vectors
        vectors = normalize(torch.randn(self.books, self.codebook, self.part), dim=-1) * math.sqrt(self.part) / 4
        self.vectors: Tensor
        self.sums: Tensor
        self.began: Tensor
        if decay is None:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("sums", vectors.clone())  # count * vectors
        self.register_buffer("began", torch.zeros((), dtype=torch.bool))

    def vectors_of(self, index: Tensor) -> Tensor:
        """The vectors (n, width) of choices (n, books)."""
        return self._together([embedding(i, e) for i, e in zip(index.unbind(1), self.vectors, strict=True)])

    def quantise(self, v: Tensor, learning: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors (n, width) -> codewords (n, width) with the encoder's gradient, index (n, books), penalty (n,)."""
        slope, left, penalty = v - v.detach(), v.detach(), v.new_zeros(v.shape[0])
        found, seen = [], []
        for book in range(self.books):
            part = slice(book * self.part, (book + 1) * self.part) if self.levels == 1 else slice(None)
            own = left[:, part]
            if learning and self.revive is not None:
                self._revive(book, own, self.revive)
            index = nearest(own, self.vectors[book].detach())
            e = embedding(index, self.vectors[book])
            if self.decay is None:
                penalty = penalty + (own - e).square().sum(1)
            e = e.detach()
            penalty = penalty + self.commitment * (own - e + slope[:, part]).square().sum(1)
            if self.levels > 1:
                left = left - e
            found.append(e)
            seen.append((index, own))
        if learning:
            for book, one in enumerate(seen):
                self._learn(book, *one)
        e, index = self._together(found), torch.stack([index for index, _ in seen], 1)
        if self.rotation:
            return rotated(v.reshape(-1, self.part), e.reshape(-1, self.part)).view_as(v), index, penalty
        return _valued(e, v), index, penalty

    def _together(self, found: list[Tensor]) -> Tensor:
        """One vector (n, width) from what each book says."""
        if self.books == 1:
            return found[0]
        return torch.stack(found).sum(0) if self.levels > 1 else torch.cat(found, 1)

    def _learn(self, book: int, index: Tensor, v: Tensor) -> None:
        """One step of the moving averages."""
        sums = self.tally(book, index, None if self.decay is None else v)
        if self.decay is not None:
            self.sums[book].lerp_(sums, 1 - self.decay)  # type: ignore[arg-type]
            count = self.count[book][:, None]
            # one that is never chosen stays where it is, and both averages shrink together
            self.vectors[book].copy_(torch.where(count > 1e-6, self.sums[book] / count, self.vectors[book]))

    @torch.no_grad()
    def _revive(self, book: int, v: Tensor, after: int) -> None:
        """Codewords out of use become vectors of the batch, before it chooses."""
        fresh, gone = draws.some(self.codebook, v), self.idle[book] >= after
        for vectors in (self.vectors, *([] if self.decay is None else [self.sums])):
            vectors[book].copy_(torch.where(gone[:, None], fresh, vectors[book]))
        self.count[book].masked_fill_(gone, 1.0)
        self.idle[book].masked_fill_(gone, 0)

    @torch.no_grad()
    def start(self, model: Any, rows: Any, train: Any) -> bool:
        """Before the first step: the codebook is what k-means finds in what the encoder says of training rows."""
        if not self.began:
            self.begin(vectors(model, rows, self, self.apart))
        return False

    @torch.no_grad()
    def begin(self, v: Tensor) -> None:
        """The codebook is what k-means finds in vectors (n, width)."""
        for book in range(self.books):
            own = v if self.levels > 1 else v[:, book * self.part : (book + 1) * self.part]
            found = _means(own, self.codebook)
            self.vectors[book].copy_(found)
            if self.decay is not None:
                self.sums[book].copy_(found)
            if self.levels > 1:
                v = v - found[_chosen(v, found)]
        self.began.fill_(True)

    def extra_repr(self) -> str:
        learns = "by loss" if self.decay is None else f"decay={self.decay}"
        several = "".join(
            f", {name}={n}" for name, n in (("levels", self.levels), ("groups", self.width // self.part)) if n > 1
        )
        return f"{super().extra_repr()}, commitment={self.commitment}, {learns}{several}, rotation={self.rotation}"


def vectors(model: Any, rows: Any, part: OnGrid, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Vectors (n, width) of random training rows for a codebook to begin with; `read` takes them from h."""
    wanted = -(-VECTORS * part.codebook // math.prod(part.space))  # rows
    was = model.training
    model.eval()
    batches = [rows.batch(some) for some in torch.randperm(len(rows))[:wanted].split(256)]
    found = torch.cat([read(model.hidden(batch.x, batch.context)) for batch in batches])
    model.train(was)
    return found


def _check(width: int, commitment: float, decay: float | None, levels: int, groups: int, revive: int | None) -> None:
    """Raises ValueError for settings of a codebook that mean nothing."""
    if not 0 < commitment < math.inf:
        raise ValueError(
            "commitment is the weight of what keeps the encoder near its codewords, above 0, such as 0.25; got "
            f"commitment={commitment}"
        )
    if decay is not None and not 0 < decay < 1:
        raise ValueError(
            "decay is between 0 and 1, such as 0.99, or None for a codebook that learns by gradients; got "
            f"decay={decay}"
        )
    if revive is not None and (revive != int(revive) or revive < 1):
        raise ValueError(f"revive is a number of steps of at least 1, or None for never; got revive={revive}")
    if min(levels, groups) < 1 or max(levels, groups) > 1 < min(levels, groups):
        raise ValueError(
            f"a place has several codewords as levels of a residual quantiser or as groups of a product quantiser, and "
            f"not both; got levels={levels}, groups={groups}"
        )
    if width > 0 and width % groups:
        raise ValueError(f"groups divide the units of a vector into equal parts; got latent={width}, groups={groups}")


def _chosen(v: Tensor, vectors: Tensor) -> Tensor:
    """`nearest` for any number of vectors."""
    return torch.cat([nearest(part, vectors) for part in v.split(max(1, 8_000_000 // len(vectors)))])


def _means(v: Tensor, k: int) -> Tensor:
    """K-means (k, d) of vectors (n, d), ten rounds of Lloyd's from different vectors; means of nothing stay put."""
    again = torch.randint(len(v), (max(0, k - len(v)),))
    means = v[torch.cat([torch.randperm(len(v))[:k], again]).to(v.device)].clone()
    for _ in range(ROUNDS):
        sums = _sums(_chosen(v, means), torch.cat([v, torch.ones_like(v[:, :1])], 1), k)
        means = torch.where(sums[:, -1:] > 0, sums[:, :-1] / sums[:, -1:].clamp_min(1), means)
    return means
