"""Networks that read whole numbers in an order, each output only those before it: what priors over codes are made of.

Such a network is called as `network(index, context)` with index (S, *grid) of 0 to codebook - 1, and says the logits of
each from those before it, (S, *grid, codebook). `walk(index, context)` says the same one slot after the other, nothing
computed twice: whoever draws writes what was drawn into `index` before asking for the next.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, relu, scaled_dot_product_attention

# built by the priors of module `codes`, and not what a recipe calls a network
__all__ = ["CausalTransformer", "GatedConvolutions", "Told"]


class _Heads(nn.Module):
    """A linear layer for every level, (..., levels, width) -> (..., levels, codebook); it begins with equal logits."""

    def __init__(self, levels: int, codebook: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(levels, codebook, width))
        self.bias = nn.Parameter(torch.zeros(levels, codebook))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...gw,gkw->...gk", x, self.weight) + self.bias

    def one(self, x: Tensor, level: int) -> Tensor:
        """(S, width) -> (S, codebook) of a single level."""
        return x @ self.weight[level].T + self.bias[level]


class Told(nn.Module):
    """What a network is told, for all places or for each: features of the row, and codewords of grids above it.

    The codewords' numbers are the last of what is told, as many as the grids `above` have places. Each grid is
    embedded, every place sees its neighbours, and stands for all the places under it.

    Shapes: (S, context + places of the grids above) -> (S, features, *space), of size 1 where there is none above.
    """

    def __init__(
        self, context: int, above: tuple[tuple[int, ...], ...], codebook: int, width: int, space: tuple[int, ...]
    ) -> None:
        super().__init__()
        flat = len(space) == 1
        self.context, self.above, self.space = context, above, space
        self.places = [torch.Size(grid).numel() for grid in above]
        self.features = context + width * len(above)
        self.words = nn.ModuleList(nn.Embedding(codebook, width) for _ in above)
        self.near = nn.ModuleList((nn.Conv1d if flat else nn.Conv2d)(width, width, 3, padding=1) for _ in above)

    def forward(self, told: Tensor | None) -> Tensor | None:
        if told is None or not self.features:
            return None
        context, *above = told.split([self.context, *self.places], 1)
        context = context.view(len(told), -1, *[1] * len(self.space))
        if not above:
            return context
        found = [context.expand(-1, -1, *self.space)]
        for number, grid, words, near in zip(above, self.above, self.words, self.near, strict=True):
            x = words(number.long()).transpose(1, 2).unflatten(2, grid)  # (S, width, *grid)
            found.append(interpolate(relu(near(x)), self.space))
        return torch.cat(found, 1)


class _Layer(nn.Module):
    """One step of both stacks: v(r, c) reads rows above r, h(r, c) what stands left of c in row r, and v.

        v -- conv --+-- gate ------------> v
                    |
                 1 x 1
                    |
        h -- conv --+-- gate -- 1 x 1 -+-> h
        |                              |
        +------------------------------+   (not in the first)

    Inputs are padded by `reach` at the top and both sides (v), and on the left (h). The first layer leaves out the slot
    itself, the others read features that have left it out already.
    """

    def __init__(self, width: int, reach: int, context: int, first: bool) -> None:
        super().__init__()
        self.reach, self.first, self.span = reach, first, reach + (not first)
        self.above = nn.Conv2d(width, 2 * width, (self.span, 2 * reach + 1))
        self.left = nn.Conv2d(width, 2 * width, (1, self.span))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.told = nn.Linear(context, 4 * width, bias=False) if context else None

    def forward(self, v: Tensor, h: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks of whole grids, (S, width, H, W) each."""
        rows, columns, r = *v.shape[-2:], self.reach
        told = self.biases(given)
        above = self.above(pad(v, (r, r, r, 0))[..., : rows - 1 + self.span, :])
        window = pad(h, (r, 0))[..., : columns - 1 + self.span]
        return self.gate(above, told[0]), self.across_and_left(above, window, h, told[1])

    def across_and_left(self, above: Tensor, window: Tensor, h: Tensor, told: Tensor | None) -> Tensor:
        """The horizontal stack, from what the vertical one says and a window of h."""
        made = self.out(self.gate(self.left(window) + self.across(above), told))
        return made if self.first else h + made

    def gate(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Equation 2: y = tanh(W_f * x + V_f c) sigmoid(W_g * x + V_g c)."""
        a, b = (x if told is None else x + told).chunk(2, 1)
        return a.tanh() * b.sigmoid()

    def biases(self, given: Tensor | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """V c of either stack, (S, 2 width, H, W), from what is given (S, features, H, W); sizes may be 1."""
        if given is None or self.told is None:
            return None, None
        v, h = self.told(given.movedim(1, -1)).movedim(-1, 1).chunk(2, 1)
        return v, h


class GatedConvolutions(nn.Module):
    r"""The gated PixelCNN: grids of whole numbers read line by line, without a blind spot.

    .. math:: y = \tanh(W_f * x + V_f^\top c) \odot \sigma(W_g * x + V_g^\top c)

    A vertical stack of masked convolutions reads all rows above, a horizontal one the same row to the left and the
    vertical one. The first layer reaches 2 slots, each further one 1 more. Where the grid has a third axis, the numbers
    of one place follow each other as the colours of a pixel do.

    Shapes: index (S, H, W) or (S, H, W, G), context (S, context) or None -> (S, H, W, codebook) or (S, H, W, G,
    codebook), logits.
    Reference: Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), arXiv:1606.05328,
    equation 2 and figure 2.
    """

    def __init__(self, grid: tuple[int, ...], codebook: int, told: Told, width: int, layers: int) -> None:
        super().__init__()
        self.grid, self.levels = grid, grid[2] if len(grid) == 3 else 1
        self.offset: Tensor
        self.register_buffer("offset", codebook * torch.arange(self.levels), persistent=False)
        self.told, self.words = told, nn.Embedding(self.levels * codebook, width)
        self.layers = nn.ModuleList(_Layer(width, 1 if n else 2, told.features, not n) for n in range(layers))
        self.level = nn.Embedding(self.levels * codebook, width) if self.levels > 1 else None
        self.place = nn.Parameter(0.02 * torch.randn(*grid[:2], self.levels, width))
        self.mix = nn.Linear(width, width)
        self.heads = _Heads(self.levels, codebook, width)

    def forward(self, index: Tensor, context: Tensor | None) -> Tensor:
        index = index.reshape(-1, *self.grid[:2], self.levels) + self.offset
        v = h = self.words(index).sum(-2).permute(0, 3, 1, 2)
        given = self.told(context)
        for layer in self.layers:
            v, h = layer(v, h, given)
        x = h.permute(0, 2, 3, 1).unsqueeze(-2) + self.place  # (S, H, W, G, width)
        if self.level is not None:
            x = x + pad(self.level(index[..., :-1]).cumsum(-2), (0, 0, 1, 0))  # the levels before
        return self.heads(relu(self.mix(relu(x)))).reshape(-1, *self.grid, self.heads.bias.shape[1])

    def walk(self, index: Tensor, context: Tensor | None) -> Iterator[Tensor]:
        """Logits (S, codebook) of one slot after the other: each feature of both stacks is computed once."""
        index = index.view(-1, *self.grid[:2], self.levels)
        size, rows, columns, _ = index.shape
        layers: list[_Layer] = list(self.layers)  # type: ignore[arg-type]
        width, given = self.words.embedding_dim, self.told(context)
        told = [[t if t is None else t.expand(-1, -1, rows, columns) for t in layer.biases(given)] for layer in layers]
        reaches = [layer.reach for layer in layers] + [0]  # of what reads it
        new = self.mix.weight.new_zeros
        v = [new(size, width, rows + r, columns + 2 * r) for r in reaches]  # padded
        h = [new(size, width, rows, columns + r) for r in reaches]
        for row in range(rows):
            above = []
            for n, layer in enumerate(layers):
                above.append(layer.above(v[n][..., row : row + layer.span, :]))
                r = reaches[n + 1]
                v[n + 1][..., row + r, r : r + columns] = layer.gate(above[n], _part(told[n][0], row))[..., 0, :]
            for column in range(columns):
                here = slice(column, column + 1)
                for n, layer in enumerate(layers):
                    window = h[n][..., row : row + 1, column : column + layer.span]
                    made = layer.across_and_left(
                        above[n][..., here], window, window[..., -1:], _part(told[n][1], row, here)
                    )
                    h[n + 1][..., row, column + reaches[n + 1]] = made[..., 0, 0]
                x = h[-1][..., row, column]
                for level in range(self.levels):
                    yield self.heads.one(relu(self.mix(relu(x + self.place[row, column, level]))), level)
                    if self.level is not None:
                        x = x + self.level(index[:, row, column, level] + self.offset[level])
                words = self.words(index[:, row, column] + self.offset).sum(-2)
                v[0][..., row + reaches[0], column + reaches[0]] = words
                h[0][..., row, column + reaches[0]] = words


def _part(told: Tensor | None, row: int, columns: slice = slice(None)) -> Tensor | None:
    """A row of a map, or a part of it."""
    return None if told is None else told[..., row : row + 1, columns]


class _Block(nn.Module):
    """Attention to what came before, then a perceptron; both on normed inputs, both added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cache: Tensor | None = None, place: int = 0) -> Tensor:
        """(S, N, width); or a single slot (S, 1, width), which leaves its keys and values in the cache."""
        q, k, v = self.asked(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:  # (2, S, heads, N, width / heads)
            cache[0, :, :, place], cache[1, :, :, place] = k[:, :, 0], v[:, :, 0]
            k, v = cache[:, :, :, : place + 1]
        found = scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.second(x))))


class CausalTransformer(nn.Module):
    """A transformer that reads whole numbers in the order of the grid's axes, the last axis fastest.

    Norms before the layers, learned positions; context is added to every input. `walk` keeps keys and values.

    Shapes: index (S, *grid), context (S, context) or None -> (S, *grid, codebook), logits.
    References: Attention Is All You Need (Vaswani et al., 2017), arXiv:1706.03762; norms first as in Xiong et al. 2020,
    arXiv:2002.04745.
    """

    def __init__(self, grid: tuple[int, ...], codebook: int, given: Told, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.grid, self.levels = grid, grid[2] if len(grid) == 3 else 1
        slots = torch.Size(grid).numel()
        self.offset: Tensor
        self.register_buffer("offset", codebook * (torch.arange(slots) % self.levels), persistent=False)
        self.words = nn.Embedding(self.levels * codebook, width)
        self.places = nn.Parameter(0.02 * torch.randn(slots, width))
        self.given, self.told = given, nn.Linear(given.features, width) if given.features else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.heads = _Heads(self.levels, codebook, width)

    def forward(self, index: Tensor, context: Tensor | None) -> Tensor:
        index = index.reshape(len(index), -1)
        x = pad(self.words(index[:, :-1] + self.offset[:-1]), (0, 0, 1, 0)) + self.places + self._bias(context)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x).unflatten(1, (-1, self.levels))
        return self.heads(x).reshape(-1, *self.grid, self.heads.bias.shape[1])

    def walk(self, index: Tensor, context: Tensor | None) -> Iterator[Tensor]:
        """Logits (S, codebook) of one slot after the other."""
        index, bias = index.view(len(index), -1), self._bias(context)
        blocks: list[_Block] = list(self.blocks)  # type: ignore[arg-type]
        size, slots, width = len(index), len(self.places), self.words.embedding_dim
        each = (2, size, blocks[0].heads, slots, width // blocks[0].heads) if blocks else ()
        caches = [self.places.new_zeros(each) for _ in blocks]
        for slot in range(slots):
            x = self.places[slot] + bias[:, slot : slot + 1]  # nothing comes before the first
            if slot:
                x = x + self.words(index[:, slot - 1 : slot] + self.offset[slot - 1])
            x = x.expand(size, 1, width)
            for block, cache in zip(blocks, caches, strict=True):
                x = block(x, cache, slot)
            yield self.heads.one(self.norm(x)[:, 0], slot % self.levels)

    def _bias(self, context: Tensor | None) -> Tensor:
        """(S, slots, width) of what is told, or zeros (1, slots, width)."""
        given = self.given(context)
        if given is None or self.told is None:
            return torch.zeros_like(self.places)[None]
        bias = self.told(given.movedim(1, -1)).flatten(1, -2)  # (S, places or 1, width)
        each = bias.repeat_interleave(self.levels, 1) if bias.shape[1] > 1 else bias
        return each.expand(-1, len(self.places), -1)
