"""The run folder: JSON and safetensors, never a pickle; every file atomic, the finished folder checksummed.

config.json            how it was made: spec, training, data, versions, alarms
weights.safetensors    the best weights of model and objective
metrics.jsonl          one line a check, appended as training goes
evaluation.json        what `run.evaluate()` measured
report.html            for people
checkpoint/            what `resume` needs: latest.json names the newest state and its checksum
SHA256SUMS             of all the above, and in its last line of itself
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from narrows import draws, recipes
from narrows.models import Model
from narrows.objectives import Objective
from narrows.spec import restore

if TYPE_CHECKING:
    from narrows.data import Data, Scaling, TableCodec
    from narrows.export import Decode, Encode
    from narrows.plots import Plot

__all__ = [
    "FORMAT",
    "Run",
    "digest",
    "load",
    "read_tensors",
    "seal",
    "unused",
    "verify",
    "write",
    "write_json",
    "write_tensors",
]

FORMAT = 1
SUMS = "SHA256SUMS"


def write(path: Path, content: bytes) -> None:
    """Puts content at path in one step: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(f"the disk is full: {path} was not written, and what stood there is untouched") from None
        raise


def write_json(path: Path, value: Any) -> None:
    """JSON for people: indented, a trailing newline."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any] | None = None) -> str:
    """A safetensors file with a JSON note in its header; returns its SHA-256. The same tensors give the same bytes."""
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = safetensors.torch.save(held, {"about": json.dumps(about, sort_keys=True)} if about is not None else None)
    write(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and the note of a file from `write_tensors`. Raises ValueError where it is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            about = (file.metadata() or {}).get("about")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged and cannot be read ({error}); restore it from a copy") from None
    return tensors, json.loads(about) if about else {}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Writes SHA256SUMS over the files of a run; what else lies in the folder is its owner's."""
    files = [folder / name for name in ("config.json", "evaluation.json", "metrics.jsonl", "report.html")]
    files += [folder / "weights.safetensors", *sorted((folder / "checkpoint").glob("*"))]
    held = [f for f in files if f.exists() and not f.name.endswith(".part")]
    lines = "".join(f"{digest(f)}  {f.relative_to(folder).as_posix()}\n" for f in held)
    write(folder / SUMS, f"{lines}{hashlib.sha256(lines.encode()).hexdigest()}  -\n".encode())


def verify(folder: Path) -> None:
    """Raises ValueError naming the first file that is missing or not as it was sealed."""
    if not (folder / SUMS).exists():
        raise ValueError(
            f"{folder} is no finished run (it has no {SUMS}); go on with it by `narrows fit --resume --folder {folder}`"
        )
    *lines, last = (folder / SUMS).read_text(errors="replace").splitlines(keepends=True)
    if last != f"{hashlib.sha256(''.join(lines).encode()).hexdigest()}  -\n":
        raise ValueError(f"{folder / SUMS} has been changed since it was written; restore the folder from a copy")
    for line in lines:
        sealed, name = line.rstrip("\n").split("  ", 1)
        if not (folder / name).exists():
            raise ValueError(f"{folder / name} is missing; restore the folder from a copy")
        if digest(folder / name) != sealed:
            raise ValueError(f"{folder / name} has been changed since it was written; restore the folder from a copy")


def refuse_used(folder: Path) -> None:
    """Raises ValueError where the folder holds anything: a run is never overwritten."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} exists already and is never overwritten: give another --folder, or go on with it by --resume"
        )


def unused(base: Path, stem: str) -> Path:
    """The first of base/stem-1, base/stem-2 ... that does not exist."""
    n = 1
    while (base / f"{stem}-{n}").exists():
        n += 1
    return base / f"{stem}-{n}"


def prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """State of a module, with every name under `prefix`."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix`, with it taken off."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


@dataclass
class Run:
    """A trained model and all that is known of it.

    Attributes: `model` (best weights, in evaluation mode), `objective`, `config` as in config.json, `metrics` a list of
    one record a check, `alarms` sentences, `evaluation` once measured, `folder` None where nothing was to be kept.
    """

    model: Model
    objective: Objective
    config: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    folder: Path | None = None
    _data: "Data | None" = None

    @property
    def alarms(self) -> list[str]:
        """What went wrong or might have, each a plain sentence with its remedy."""
        return list(self.config.get("alarms", []))

    @property
    def data(self) -> "Data":
        """The data of this run; read again from its source, and refused if it is no longer the same."""
        if self._data is None:
            from narrows.data import reload

            self._data = reload(self.config["data"])
        return self._data

    def save(self, folder: str | Path) -> Path:
        """Keeps a run that was changed after training (a fitted prior, another choice of axes) in a new folder.

        What was measured before the change is not taken along. Raises: ValueError for a folder that is used.
        """
        target = Path(folder)
        refuse_used(target)
        self.folder, self.evaluation = target, None
        self.config = {**self.config, "spec": self.model.spec}
        write_tensors(target / "weights.safetensors", state_of(self.model, self.objective))
        write(target / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in self.metrics).encode())
        write_json(target / "config.json", self.config)
        seal(target)
        return target

    @property
    def scaling(self) -> "Scaling | TableCodec | None":
        """From values as they are stored to model units; None where the model was given model units."""
        from narrows.data import read_scaling

        record = self.config["data"].get("scaling")
        return read_scaling(record) if record else None

    @property
    def encoder(self) -> "Encode":
        """X as stored (n, *event) -> z (n, latent), nothing drawn: a plain module that needs no more of Narrows.

        It shares the run's weights, and scales by itself. `narrows export` writes it to a file.

        Example:
            >>> import narrows as nr
            >>> run = nr.fit(*nr.recipes.vae((4,), latent=2), torch.ones(9, 4), training=nr.Training(epochs=1))
            >>> head = torch.nn.Sequential(run.encoder, torch.nn.Linear(2, 3))
            >>> head(torch.ones(5, 4)).shape, run.decoder(torch.zeros(5, 2)).shape
            (torch.Size([5, 3]), torch.Size([5, 4]))
        """
        from narrows.export import Encode

        return Encode(self.model, self.scaling)

    @property
    def decoder(self) -> "Decode":
        """Z (n, latent) -> E[x|z] (n, *event) in stored units, not rounded: a plain module like `encoder`."""
        from narrows.export import Decode

        return Decode(self.model, self.scaling)

    def evaluate(self, samples: int | None = None) -> dict[str, Any]:
        """Measures the run on its stored train, valid and test rows beside the baselines; kept in evaluation.json."""
        from narrows.evaluate import evaluate

        self.evaluation = evaluate(self.model, self.data, samples=samples)
        if self.folder is not None:
            write_json(self.folder / "evaluation.json", self.evaluation)
            seal(self.folder)
        return self.evaluation

    def report(self, path: str | Path | None = None) -> Path:
        """Writes report.html, one file that opens offline; measures first what has not been measured."""
        from narrows.report import page

        if self.evaluation is None:
            self.evaluate()
        if path is None and self.folder is None:
            raise ValueError("this run has no folder: say where the report goes, report('report.html')")
        target = Path(path) if path is not None else self.folder / "report.html"  # type: ignore[operator]
        write(target, page(self).encode())
        if self.folder is not None and target.parent == self.folder:
            seal(self.folder)
        return target

    @property
    def plot(self) -> "Plot":
        """Figures: `run.plot.latent()`, `.curves()`, `.samples()`, `.reconstructions()`, `.rates()`."""
        from narrows.plots import Plot

        return Plot(self)

    def _repr_html_(self) -> str:
        from narrows.report import summary

        return summary(self)

    def __repr__(self) -> str:
        spec = self.config.get("spec") or {}
        best = next((m for m in self.metrics if m["step"] == self.config.get("best_step")), None)
        loss = f", held-out loss {best['valid']['loss']:.4g} nats" if best and best.get("valid") else ""
        return (
            f"Run({spec.get('recipe', 'own model')}, {self.config.get('steps', 0)} steps{loss}, folder={self.folder})"
        )


def load(folder: str | Path, model: Model | None = None, objective: Objective | None = None) -> Run:
    """A finished run from its folder, on the CPU whatever trained it.

    `model` (and `objective`) are needed only where the run was trained on parts of your own; names and shapes are
    checked then.

    Raises: FileNotFoundError for a folder that is not there; ValueError for one that is unfinished, changed, of a newer
    format, or that does not fit `model`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}; `narrows fit` makes one")
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["format"] > FORMAT:
        raise ValueError(
            f"{folder} has format {config['format']}, written by Narrows {config['versions']['narrows']}; this version "
            f"reads up to {FORMAT}: upgrade narrows"
        )
    if model is None:
        if config["spec"] is None:
            raise ValueError(
                f"{folder} was trained on networks of your own, and code is never loaded from a folder: build the same "
                "model and call load(folder, model=model)"
            )
        model = recipes.build(config["spec"])[0]
    if objective is None:
        if config["objective"] is None:
            raise ValueError(
                f"{folder} was trained with a schedule or bound of your own, and code is never loaded from a folder: "
                "build the same objective and call load(folder, objective=objective)"
            )
        with draws.seeded(0):  # a critic draws weights, which are read next
            objective = Objective(**{name: restore(name, value) for name, value in config["objective"].items()})
    tensors, _ = read_tensors(folder / "weights.safetensors")
    _fit_state(model, unprefixed("model", tensors), f"{folder / 'weights.safetensors'}")
    model.check()
    objective.load_state_dict(unprefixed("objective", tensors))
    evaluation = folder / "evaluation.json"
    return Run(
        model.eval(),
        objective.eval(),
        config,
        read_metrics(folder / "metrics.jsonl"),
        json.loads(evaluation.read_text()) if evaluation.exists() else None,
        folder,
    )


def _fit_state(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    own = model.state_dict()
    for kind, names in (("lacks", own.keys() - state.keys()), ("has no place for", state.keys() - own.keys())):
        if names:
            subject = source if kind == "lacks" else "the model given"
            raise ValueError(f"{subject} {kind} {sorted(names)[0]!r} ({len(names)} such names): it is another model")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(state[name].shape)} in {source} and {tuple(tensor.shape)} in the model "
                "given"
            )
    model.load_state_dict(state)


def read_metrics(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The records of metrics.jsonl up to step `until`; a line torn by a crash is left out."""
    records = []
    for line in _lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if until is None or record["step"] <= until:
            records.append(record)
    return records


def _lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines() if path.exists() else []


def state_of(model: nn.Module, objective: nn.Module) -> dict[str, Tensor]:
    """Everything that is learned, copied."""
    tensors = {**prefixed("model", model), **prefixed("objective", objective)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its inputs."""
    import platform

    import narrows

    return {"narrows": narrows.__version__, "torch": torch.__version__, "python": platform.python_version()}
