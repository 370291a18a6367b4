"""Plain networks from one shape to another: the functions h(x) and theta(z) of the equation.

A network is built as `network(inputs, outputs, context)`, with shapes of one row and the number of context features,
and called as `network(x, context)`. Any module with that call will do in their place.
"""

from narrows.networks.cells import Cell, Cells
from narrows.networks.dense import Dictionary, Mlp, Norm, Residual, bend, ending, mirrored
from narrows.networks.grids import Grid
from narrows.networks.images import Conv
from narrows.networks.unet import Unet

__all__ = [
    "Cell",
    "Cells",
    "Conv",
    "Dictionary",
    "Grid",
    "Mlp",
    "Norm",
    "Residual",
    "Unet",
    "bend",
    "ending",
    "mirrored",
]
