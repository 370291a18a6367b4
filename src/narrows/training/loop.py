"""fit: one loop on one screen, and around it what is prepared before and kept after."""

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from narrows import draws, store
from narrows.contract import Batch, Terms
from narrows.data import Data, Rows
from narrows.data import rows as as_rows
from narrows.memory import keep_freed
from narrows.models import Model
from narrows.objectives import Objective
from narrows.posteriors import Discrete
from narrows.spec import arguments_of
from narrows.store import Run
from narrows.tasks import fit_prior
from narrows.training import alarms, checkpoint
from narrows.training.adam import Adam
from narrows.training.average import Average
from narrows.training.parallel import World, world
from narrows.training.progress import Progress
from narrows.training.settings import Training

__all__ = ["Interrupted", "cap", "fit", "torch_device"]

STEPS = 30_000  # cap where neither epochs nor minutes are given
FEWEST = 2_000  # steps before early stopping may end a run
NAMES = ("loss", "bound", "distortion", "rate", "penalty", "discrepancy")


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop by a signal, after the step in hand; the folder can be resumed."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class _Step(nn.Module):
    """Model and objective as the one module that is compiled and shared among processes."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Terms:
        terms: Terms = self.objective(self.model, batch)
        return terms


@dataclass
class _State:
    """Where training stands, besides the weights and the optimiser."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_loss: float = math.inf
    stale: int = 0  # checks since the last gain beyond one standard error
    sums: Tensor = field(default_factory=lambda: torch.empty(0))  # of the terms, the rows, and each rung's rate
    skipped: Tensor = field(default_factory=lambda: torch.zeros(2))  # steps left out: in all, and the latest in a row
    values: Tensor = field(default_factory=lambda: torch.empty(0))  # (n,) held-out loss at that last gain
    best: dict[str, Tensor] = field(default_factory=dict)  # weights at best_step

    def about(self) -> dict[str, Any]:
        return {n: getattr(self, n) for n in ("step", "seconds", "best_step", "best_loss", "stale")}


def fit(
    model: Model,
    objective: Objective,
    train: Data | Rows | Tensor,
    valid: Rows | Tensor | None = None,
    training: Training | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Minimises the objective on the training rows, keeps the weights that are best on the held-out ones.

    The same seeds give the same weights on the same machine, through any number of interruptions, and torch's own
    generator is left as found. `model` ends with the best weights, in evaluation mode.

    Arguments:
        train: a data set, which brings its held-out rows along; or rows, or a tensor (n, *shape) in model units.
        valid: held-out rows; without any, training runs to its cap and the last weights are the best.
        training: everything else (`Training`).
        folder: where the run is kept; it must not exist, unless `resume` goes on with it.
        quiet: no progress.

    Raises: ValueError for data the likelihood cannot produce, an existing folder, or a resume that differs;
        FloatingPointError where the loss is no number; Interrupted (a KeyboardInterrupt) after Ctrl-C or SIGTERM.
    """
    training = training or Training()
    device = torch_device(training.device)
    data = train if isinstance(train, Data) else None
    rows = train.train if isinstance(train, Data) else as_rows(train)
    if data is not None and valid is None and len(data.valid):
        valid = data.valid
    held = None if valid is None else as_rows(valid)
    objective.check(model)
    objective.trim = training.trim
    _check_shape(model, rows)
    with world(device) as here, draws.seeded(training.seed, 2, 0):
        if training.compile and here.size > 1:
            raise ValueError("compile=True is for one process, and torchrun started several; leave one of them away")
        alarms.check_discrepancy(model, objective, rows, training.batch)
        alarms.check_codebook(model, rows)
        alarms.check_labels(model, rows)
        kept = Path(folder) if folder is not None and here.rank == 0 else None
        for name, some in (("training", rows), ("held-out", held)):
            if some is not None:
                alarms.check_support(model, some, name)
        config = _config(model, objective, data, rows, training)
        config["alarms"] = alarms.before(model, objective, rows, training.batch)
        restored = _open(Path(folder), config, resume, here) if folder is not None else (_State(), {})
        afterwards = hasattr(model.posterior, "embed")  # codewords, whose numbers mean nothing until they are learned
        if afterwards:
            model.prior.enough(len(rows))  # type: ignore[union-attr]
            model.prior.begin()  # type: ignore[union-attr]
        model.to(device).train(), objective.to(device).train()
        run = Run(model, objective, config, [], None, kept, data)
        rows, held = rows.to(device), None if held is None else held.to(device)
        solved, began = False, time.monotonic()
        if not restored[1]:
            solved = model.begin(rows, _inner(training, quiet))
            restored[0].seconds = time.monotonic() - began
        _loop(run, rows, held, training, restored, here, quiet, 0 if solved else None)
        model.eval(), objective.eval()
        if model.prior is not None and (afterwards or (not model.density and objective.discrepancy is None)):
            Progress(0, quiet or here.rank > 0).say(f"fitting {type(model.prior).__name__} to the codes")
            fit_prior(model, rows, seed=training.seed)  # it took no part in training
        if here.rank == 0:
            found = alarms.after(model, held or rows, objective.free_bits) + alarms.dead(model, rows)
            config["alarms"] += [sentence for sentence in found if sentence not in config["alarms"]]
        if kept is not None:
            store.write_tensors(kept / "weights.safetensors", store.state_of(model, objective))
            store.write_json(kept / "config.json", config)
            store.seal(kept)
    return run


def _loop(
    run: Run,
    rows: Rows,
    held: Rows | None,
    training: Training,
    restored: tuple[_State, dict[str, Tensor]],
    here: World,
    quiet: bool,
    most: int | None,
) -> None:
    model, objective, folder = run.model, run.objective, run.folder
    (now, tensors), device = restored, next(model.parameters()).device
    parameters = [p for p in (*model.parameters(), *objective.parameters()) if p.requires_grad]
    optimiser, average = Adam(parameters, training.lr), Average(parameters, training.average)
    renewing: list[Any] = [part for part in objective.penalty if hasattr(part, "renew")]
    if tensors:
        model.load_state_dict(store.unprefixed("model", tensors))
        objective.load_state_dict(store.unprefixed("objective", tensors))
        optimiser.load(store.unprefixed("optimiser", tensors))
        average.load(store.unprefixed("average", tensors))
    run.metrics = store.read_metrics(folder / "metrics.jsonl", now.step) if folder else []
    if folder:
        store.write(folder / "metrics.jsonl", "".join(map(_line, run.metrics)).encode())
    module = here.wrap(_Step(model, objective))

    def differentiate(batch: Batch, weight: float) -> Terms:
        """Leaves the gradient of the weighed loss on the parameters."""
        terms: Terms = module(batch)
        (terms.loss if here.size == 1 else terms.loss * weight).backward()
        return terms.detach()

    if training.compile:
        # forward and backward as one graph; another for the last batch, since sizes left open make slower code
        options: dict[str, Any] = {
            "fallback_random": True,
            "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe,
        }
        differentiate = torch.compile(differentiate, options=options, dynamic=False)
    tracing = torch._dynamo.config.patch(trace_autograd_ops=True) if training.compile else nullcontext()
    keep_freed()
    total, size = cap(len(rows), training)
    total = total if most is None else most
    epoch = -(-len(rows) // size)  # steps
    every = training.check or min(epoch * -(-100 // epoch), 2_000)
    started, saved = time.monotonic() - now.seconds, time.monotonic()
    timed = (now.step, time.monotonic())
    if not tensors:
        now.sums = torch.zeros(len(NAMES) + 1 + len(getattr(model, "rungs", ())), dtype=torch.float64)
    now.sums = now.sums.to(device, torch.float32 if device.type == "mps" else torch.float64)
    now.skipped = now.skipped.to(device)
    losses = torch.zeros(every, device=device)  # of the steps since the last check
    left_out: Tensor | None = None  # 1 where the step at hand is, 0 where it is not; None where no step ever is
    stop = now.step >= max(FEWEST, objective.settled) and now.stale >= training.patience and held is not None
    order = _order(training.seed, now.step // epoch, len(rows), device)

    def keep() -> None:
        nonlocal saved
        now.seconds, saved = time.monotonic() - started, time.monotonic()
        if folder:
            tensors = store.state_of(model, objective)
            tensors |= {f"optimiser.{name}": t for name, t in optimiser.state().items()}
            tensors |= {f"average.{name}": t for name, t in average.state().items()}
            tensors |= {f"best.{name}": t for name, t in now.best.items()}
            tensors |= {name: getattr(now, name) for name in ("sums", "skipped", "values")}
            checkpoint.save(folder / "checkpoint", tensors, now.about())

    with _signals() as asked, Progress(total, quiet or here.rank > 0) as progress, tracing:
        for sentence in run.config["alarms"] if now.step == 0 else []:
            progress.say(f"note: {sentence}")
        if model.start is not None and most is None and not tensors:
            keep()  # what the start has done is not done again
        while now.step < total and not stop:
            step = now.step
            if step % epoch == 0:
                order = _order(training.seed, step // epoch, len(rows), device)
            index = order[step % epoch * size : (step % epoch + 1) * size]
            mine, place, weight = here.share(index)
            draws.reseed(training.seed, step)
            with nullcontext() if here.size == 1 else draws.part(place, len(mine), len(index), weight > 0):
                optimiser.zero_grad()
                terms = differentiate(rows.batch(mine, torch.tensor(step, device=device)), weight)
            if training.decay == "cosine":
                optimiser.lr = training.lr * 0.5 * (1 + math.cos(math.pi * step / total))
            if training.skip:
                norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
                left_out = (~(norm <= training.skip)).float()  # and where it is no number
                now.skipped = torch.stack([now.skipped[0] + left_out, (now.skipped[1] + 1) * left_out])
            if training.clip:
                clip_grad_norm_(parameters, training.clip)
            optimiser.step(left_out)
            average.step(step + 1)
            for part in renewing:
                if (step + 1) % part.every == 0:
                    _renew(part, model, rows, (optimiser, average), training.seed, step + 1)
            losses[step % every] = terms.loss if left_out is None else torch.where(left_out > 0, 0.0, terms.loss)
            if weight:
                _add(now.sums, terms, left_out)
            now.step += 1
            progress.step(now.step)
            # ---- the rest looks, decides and keeps; nothing above waits for the device ----
            if now.step % 16 == 0 or here.size == 1:
                late = training.minutes and time.monotonic() - started > 60 * training.minutes
                stop = here.agree(bool(asked or late))
            due = now.step % every == 0 or now.step == total or (stop and not asked)
            if due or stop or time.monotonic() - saved >= training.save_every:
                _refuse_nan(now, losses, rows, training, folder)
            if due:
                if training.skip:
                    _refuse_skipping(now, training)
                settled = now.step >= max(FEWEST, objective.settled)
                with average.shown():
                    record = _check(run, now, training, held, here)
                    collapsed = settled and alarms.collapsed(model, held or rows, record["train"]["rate"])
                speed = (now.step - timed[0]) * size / max(time.monotonic() - timed[1], 1e-9)
                record |= {"epoch": now.step / epoch, "lr": optimiser.lr}
                record |= {"seconds": time.monotonic() - started, "rows_per_second": speed}
                timed = (now.step, time.monotonic())
                run.metrics.append(record)
                if folder:
                    with open(folder / "metrics.jsonl", "a") as file:
                        file.write(_line(record))
                progress.show(record, now.best_step == now.step)
                if settled and here.agree(collapsed):
                    stop = _collapse(run, now, training, progress) or stop
                stop = stop or (held is not None and settled and now.stale >= training.patience)
            if due or stop or time.monotonic() - saved >= training.save_every:
                keep()
        if most == 0:
            model.eval(), objective.eval()
            means, _ = _held_out(model, objective, rows.take(torch.arange(min(len(rows), 10_000))), training.seed)
            record = _check(run, now, training, held, here)
            record |= {"train": _named(means), "epoch": 0.0, "lr": 0.0}
            record |= {"seconds": time.monotonic() - started, "rows_per_second": 0.0}
            run.metrics = [record]
            if folder:
                store.write(folder / "metrics.jsonl", _line(record).encode())
        if asked:
            where = f"; go on with `narrows fit --resume --folder {folder}`" if folder else ""
            raise Interrupted(asked[0], f"stopped at step {now.step:,} of at most {total:,}{where}")
        with average.shown():
            best = now.best or store.state_of(model, objective)
        model.load_state_dict(store.unprefixed("model", best))
        objective.load_state_dict(store.unprefixed("objective", best))
        if training.skip:
            before = [sentence for sentence in run.config["alarms"] if alarms.SKIPPED not in sentence]
            run.config["alarms"] = before + alarms.skipped(int(now.skipped[0]), now.step, training.skip)
        run.config |= {"steps": now.step, "best_step": now.best_step, "seconds": round(time.monotonic() - started, 1)}


@torch.no_grad()
def _renew(part: Any, model: Model, rows: Rows, known: tuple[Adam, Average], seed: int, step: int) -> None:
    """Where a penalty sets units of the code anew, at steps of its own: a function of seed and step alone."""
    with draws.seeded(seed, 13, step):
        few = rows.batch(torch.randperm(len(rows))[:8192])
        for parameter, units in part.renew(model, few):
            for each in known:
                each.forget(parameter, units)


def _inner(training: Training, quiet: bool) -> Callable[..., Run]:
    """How a model's `start` trains parts of it: with the same settings, and nothing kept."""

    def train(
        model: Model,
        objective: Objective,
        x: Rows | Tensor,
        every: int = 0,
        share: float = 1.0,
        steps: int = 0,
        **changes: Any,
    ) -> Run:
        """Fits a part: the last of `every` rows say when to stop.

        `share` is of the minutes, `steps` at most where that is fewer than all epochs, `changes` of the other settings.
        """
        rows, numbers = as_rows(x), torch.arange(len(x))
        held = numbers[every - 1 :: every] if every else numbers[:0]
        if len(held):
            rows, valid = rows.take(numbers[numbers % every != every - 1]), rows.take(held)
        minutes = training.minutes and training.minutes * share
        if steps:
            epochs = max(1, steps // -(-len(rows) // min(training.batch, len(rows))))
            changes["epochs"] = min(epochs, training.epochs or epochs)
        settings = training.model_copy(update={"minutes": minutes, **changes})
        return fit(model, objective, rows, valid if len(held) else None, settings, quiet=quiet)

    return train


def cap(rows: int, training: Training) -> tuple[int, int]:
    """Steps at most, and rows a step: the batch shrinks to the rows there are."""
    size = min(training.batch, rows)
    epoch = -(-rows // size)
    return epoch * (training.epochs or -(-STEPS // epoch)), size


def _order(seed: int, epoch: int, rows: int, device: torch.device) -> Tensor:
    """The order of one epoch, a function of seed and epoch alone."""
    generator = torch.Generator().manual_seed(draws.mix(seed, 1, epoch))
    return torch.randperm(rows, generator=generator).to(device)


@torch.no_grad()
def _add(sums: Tensor, terms: Terms, left_out: Tensor | None = None) -> None:
    """Adds the rows of a step to the sums, in place; none of a step that was left out.

    Small tensors kept from every step would lie between the large ones that come and go, and the heap would grow by
    megabytes a step.
    """
    vectors = (getattr(terms, name).expand_as(terms.bound) for name in NAMES)
    found = torch.stack([*vectors, torch.ones_like(terms.bound)]).sum(1, dtype=sums.dtype)
    found = found if terms.rungs is None else torch.cat([found, terms.rungs.sum(0, dtype=sums.dtype)])
    sums += found if left_out is None else torch.where(left_out > 0, 0.0, found)


def _refuse_nan(now: _State, losses: Tensor, rows: Rows, training: Training, folder: Path | None) -> None:
    """Raises FloatingPointError where a loss since the last check is no number."""
    if now.sums[0].isfinite():
        return
    since = (now.step - 1) // len(losses) * len(losses)
    step = since + int((~losses[: now.step - since].isfinite()).nonzero()[0])
    saved = checkpoint.latest(folder / "checkpoint") if folder else None
    _, size = cap(len(rows), training)
    epoch, place = divmod(step, -(-len(rows) // size))
    order = _order(training.seed, epoch, len(rows), losses.device)
    raise alarms.not_finite(step, rows, order[place * size : (place + 1) * size], saved[1]["step"] if saved else None)


def _refuse_skipping(now: _State, training: Training) -> None:
    """Raises ValueError where the latest hundred steps were all left out."""
    if now.skipped[1] >= 100:
        raise alarms.skipping(now.step, int(now.skipped[1]), training.skip)


def _check(run: Run, now: _State, training: Training, held: Rows | None, here: World) -> dict[str, Any]:
    """The record of one check; moves the best and counts checks without a gain."""
    sums = here.sum(now.sums)
    n = len(NAMES)
    train = _named(torch.cat([sums[:n], sums[n + 1 :]]) / sums[n])
    now.sums = torch.zeros_like(now.sums)
    model, objective = run.model, run.objective
    valid = None
    loss, values = -float(now.step), torch.empty(0)  # without held-out rows the last is the best
    if held is not None:
        model.eval(), objective.eval()
        means, values = _held_out(model, objective, held, training.seed)
        model.train(), objective.train()
        means, values = here.from_first(means), here.from_first(values)
        valid = _named(means)
        loss = valid["loss"]
        gain = now.values - values if len(now.values) else values.new_full((1,), math.inf)
        error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
        gained = float(gain.mean()) > error or now.step <= objective.settled
        now.stale = 0 if gained else now.stale + 1
        now.values = values if gained else now.values
    if loss < now.best_loss:
        now.best_loss, now.best_step, now.best = loss, now.step, store.state_of(model, objective)
    record = {"step": now.step, "train": train, "valid": valid, "beta": float(objective.beta(torch.tensor(now.step)))}
    if objective.capacity is not None:
        record["capacity"] = float(objective.capacity(torch.tensor(now.step)))
    if training.skip:
        record["skipped"] = int(now.skipped[0])
    if isinstance(model.posterior, Discrete):  # of the last steps
        record |= {"perplexity": float(model.posterior.perplexity), "used": float(model.posterior.used)}
    return record


def _named(means: Tensor) -> dict[str, Any]:
    """Means of the terms, and of the rungs' rates where there are any, as a record."""
    *terms, rungs = *means[: len(NAMES)].tolist(), means[len(NAMES) :].tolist()
    return dict(zip(NAMES, terms, strict=True)) | ({"rungs": rungs} if rungs else {})


@torch.no_grad()
def _held_out(model: Model, objective: Objective, held: Rows, seed: int) -> tuple[Tensor, Tensor]:
    """Means of the terms, and the loss of each row (n,), at final weights and under noise that never changes."""
    found = torch.empty(len(NAMES) + len(getattr(model, "rungs", ())), len(held), dtype=torch.float64)
    done = 0
    with draws.seeded(seed, 3, 0):
        for batch in held.batches(1024):  # filled in place, for the reason that `_add` gives
            terms = objective(model, batch)
            rows = slice(done, done := done + len(batch.x))
            for i, name in enumerate(NAMES):
                found[i, rows] = getattr(terms, name)
            if terms.rungs is not None:
                found[len(NAMES) :, rows] = terms.rungs.T.to(found)
    _, bound, _, rate, penalty, gap = found[: len(NAMES)]
    values, beta = penalty - bound, float(objective.beta(None))
    if objective.capacity is None:
        values = values + (beta - 1.0) * rate
    else:
        values = values - rate + beta * (rate.mean() - float(objective.capacity(None))).abs()
    if objective.discrepancy is not None:
        values = values + objective.discrepancy.weight * gap
    return found.mean(1), values


def _collapse(run: Run, now: _State, training: Training, progress: Progress) -> bool:
    """Says that the code has collapsed, once; whether training ends with that."""
    said = [alarms.collapse(run.model)]
    if training.on_collapse == "stop":
        said += [f"training was stopped at step {now.step:,}, where the code had collapsed (--on-collapse stop)"]
    for sentence in said:
        if sentence not in run.config["alarms"]:
            progress.say(f"step {now.step:,}: {sentence}")
            run.config["alarms"].append(sentence)
    return training.on_collapse == "stop"


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def torch_device(name: str) -> torch.device:
    """The device of that name, or the fastest for auto. Raises ValueError where it cannot be used."""
    if name == "auto" and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    elif name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None


def _check_shape(model: Model, rows: Rows) -> None:
    if rows.wanted != model.shape:
        raise ValueError(f"the model is for rows of shape {model.shape}; these have {rows.wanted}")


def _config(model: Model, objective: Objective, data: Data | None, rows: Rows, training: Training) -> dict[str, Any]:
    bare = {"source": None, "shape": list(rows.shape), "train": len(rows)}
    return {
        "format": store.FORMAT,
        "spec": model.spec,
        "objective": arguments_of(objective),
        "training": training.model_dump(),
        "data": data.description() if data is not None else {**bare, "fingerprint": _fingerprint(rows)},
        "versions": store.versions(),
        "threads": torch.get_num_threads(),
    }


def _fingerprint(rows: Rows) -> str:
    digest = hashlib.sha256(repr(rows).encode())
    for batch in rows.batches(4096):
        digest.update(batch.x.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _open(folder: Path, config: dict[str, Any], resume: bool, here: World) -> tuple[_State, dict[str, Tensor]]:
    """Makes the folder, or finds where its training stands."""
    if not resume:
        if here.rank == 0:
            store.refuse_used(folder)
            store.write_json(folder / "config.json", config)
        return _State(), {}
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no run to resume; leave --resume away to begin one")
    before = json.loads((folder / "config.json").read_text())
    free = ("epochs", "minutes", "patience", "save_every", "device", "on_collapse")
    for part in ("spec", "objective", "data", "training", "threads"):
        was, now = before[part], config[part]
        if part == "data":
            was, now = was["fingerprint"], now["fingerprint"]
        if part == "training":
            was, now = ({k: v for k, v in x.items() if k not in free} for x in (was, now))
        if was != now:
            raise ValueError(
                f"{folder} cannot be resumed with another {part}, since the weights would not be those of one run: "
                f"it has {was}, now {now}"
            )
    config["alarms"] = before.get("alarms", config["alarms"])
    saved = checkpoint.latest(folder / "checkpoint")
    if here.rank == 0:
        (folder / store.SUMS).unlink(missing_ok=True)
        store.write_json(folder / "config.json", config)
    if saved is None:
        return _State(), {}
    tensors, about = saved
    state = _State(**about, sums=tensors.pop("sums"), values=tensors.pop("values"))
    state.best = store.unprefixed("best", tensors)
    if any(before["training"][name] != config["training"][name] for name in ("epochs", "minutes", "patience")):
        state.stale = 0  # asked to go on
    return state, {name: tensor for name, tensor in tensors.items() if not name.startswith("best.")}


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM, so that a step is never cut in two; a second one acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
