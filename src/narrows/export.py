"""Encoder and decoder as files that need no Narrows: ONNX, or PyTorch's exported programs."""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from narrows import store
from narrows.data import Scaling, TableCodec
from narrows.models import Model
from narrows.store import Run

__all__ = ["Decode", "Encode", "export"]


class Encode(nn.Module):
    """Stored values (n, *event), float32, to codes (n, latent): the mean, nothing drawn."""

    def __init__(self, model: Model, scaling: Scaling | TableCodec | None) -> None:
        super().__init__()
        self.model, self.scaling = model, scaling

    def forward(self, x: Tensor) -> Tensor:
        return self.model.encode(x if self.scaling is None else self.scaling(x)).z


class Decode(nn.Module):
    """Codes (n, latent) to E[x|z] (n, *event), float32, in stored units (not rounded)."""

    def __init__(self, model: Model, scaling: Scaling | TableCodec | None) -> None:
        super().__init__()
        self.model, self.scaling = model, scaling

    def forward(self, z: Tensor) -> Tensor:
        mean = self.model.decode(z).mean
        return mean if self.scaling is None else self.scaling.unscale(mean)


def export(run: Run, folder: Path, form: str = "onnx") -> list[Path]:
    """Writes encoder.<form> and decoder.<form> for any number of rows.

    Raises: ValueError for another form, ImportError where narrows[onnx] is not installed.
    """
    if form not in ("onnx", "pt2"):
        raise ValueError(f"export writes onnx or pt2; got {form!r}")
    if run.model.context:
        raise ValueError(
            f"this model is told {run.model.context} features of every row, and files of one input cannot tell it; "
            "train without context to export"
        )
    model = run.model.eval().cpu()
    rows = torch.zeros(3, *model.shape)  # more than one, or a compiler takes the number for fixed
    parts = [
        ("encoder", run.encoder, rows),
        ("decoder", run.decoder, torch.zeros(3, model.latent)),
    ]
    written = []
    for name, module, example in parts:
        target = Path(folder) / f"{name}.{form}"
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            made = Path(place) / target.name
            _onnx(module, example, made, name) if form == "onnx" else _pt2(module, example, made)
            store.write(target, made.read_bytes())
        written.append(target)
    return written


def _pt2(module: nn.Module, example: Tensor, path: Path) -> None:
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=({0: batch},)), path)


def _onnx(module: nn.Module, example: Tensor, path: Path, name: str) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("export to onnx needs onnx and onnxscript: pip install 'narrows[onnx]'") from None
    names = {"encoder": ("x", "z"), "decoder": ("z", "x")}[name]
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
