"""Training repeats itself, survives being killed, and says in plain words what goes wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import narrows as nr
from narrows.training import alarms, estimate
from narrows.training.adam import Adam
from narrows.training.average import Average
from narrows.training.loop import Interrupted

X = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)).round()
SHORT = nr.Training(epochs=3, batch=32, check=5)
ROOT = Path(__file__).parent.parent


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def train(folder: Path | None, training: nr.Training = SHORT, seed: int = 0, **kwargs: object) -> nr.Run:
    model, objective = nr.recipes.vae((6,), latent=2, seed=seed)
    return nr.fit(model, objective, X[:160], X[160:], training=training, folder=folder, quiet=True, **kwargs)


def test_same_seed_same_bytes_another_seed_others(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path / "a"), train(tmp_path / "b")
    train(tmp_path / "order", training=SHORT.model_copy(update={"seed": 1}))
    train(tmp_path / "weights", seed=1)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "order")
    assert weights(tmp_path / "a") != weights(tmp_path / "weights")
    assert torch.equal(before, torch.get_rng_state())


def test_validation_does_not_shift_the_noise(tmp_path):
    often, seldom = (SHORT.model_copy(update={"check": n}) for n in (1, 15))
    last = [nr.fit(*nr.recipes.vae((6,), latent=2), X, training=t, quiet=True).model for t in (often, seldom)]
    for a, b in zip(*(m.parameters() for m in last), strict=True):
        assert torch.equal(a, b)


AVERAGED = SHORT.model_copy(update={"average": 0.9, "skip": 4.0, "clip": 1.0})


@pytest.mark.parametrize(
    ("step", "training"),
    [(1, SHORT), (3, SHORT), (5, SHORT), (8, SHORT), (8, AVERAGED)],
    ids=lambda v: v if type(v) is int else "",
)
def test_interrupt_and_resume_is_bit_exact(tmp_path, step, training, monkeypatch):
    train(tmp_path / "whole", training)
    from narrows.training import loop

    seen = 0

    def ring(self: object, batch: nr.Batch) -> nr.Terms:
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGINT)
        return self.objective(self.model, batch)

    monkeypatch.setattr(loop._Step, "forward", ring)
    with pytest.raises(Interrupted, match=f"stopped at step {step} .* --resume"):
        train(tmp_path / "cut", training)
    monkeypatch.undo()
    run = train(tmp_path / "cut", training, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert [m["step"] for m in run.metrics] == [5, 10, 15]


def test_killed_and_resumed_is_bit_exact():
    script = ROOT / "benchmarks" / "kill_resume.py"
    done = subprocess.run([sys.executable, str(script), "--times", "3", "--seed", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("network", "shape"),
    [(nr.networks.Mlp, (6,)), (nr.networks.Residual, (6,)), (nr.networks.Conv, (2, 9, 8))],
    ids=str,
)
def test_an_untrained_decoder_begins_at_the_usual_row_and_a_trained_one_where_it_was(network, shape):
    """The bias that ends it holds the log-odds of every value's mean, or of a channel's over all its places."""
    share = torch.linspace(0.1, 0.9, math.prod(shape)).view(shape)
    x = (torch.rand(400, *shape) < share).float()
    model, _ = nr.recipes.vae(shape, latent=2, likelihood=nr.likelihoods.Bernoulli, network=network)
    assert model.begin(nr.data.rows(x), None) is False
    mean = x.mean(0) if len(shape) == 1 else x.mean((0, 2, 3))
    torch.testing.assert_close(model.decoder.last.bias, mean.logit())
    model.begin(nr.data.rows(1 - x), None)
    torch.testing.assert_close(model.decoder.last.bias, mean.logit())


def test_two_processes_give_what_one_gives():
    script = ROOT / "benchmarks" / "processes.py"
    done = subprocess.run([sys.executable, str(script), "--steps-only"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_finished_run_is_extended_not_overwritten(tmp_path):
    train(tmp_path / "a")
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        train(tmp_path / "a")
    train(tmp_path / "a", training=SHORT.model_copy(update={"epochs": 5}), resume=True)
    train(tmp_path / "long", training=SHORT.model_copy(update={"epochs": 5}))
    assert weights(tmp_path / "a") == weights(tmp_path / "long")


def test_resume_refuses_what_would_not_be_the_same_run(tmp_path):
    train(tmp_path / "a")
    with pytest.raises(ValueError, match="another training"):
        train(tmp_path / "a", training=SHORT.model_copy(update={"lr": 0.1}), resume=True)
    with pytest.raises(ValueError, match="another spec"):
        train(tmp_path / "a", seed=3, resume=True)
    model, objective = nr.recipes.vae((6,), latent=2)
    with pytest.raises(ValueError, match="another data"):
        nr.fit(model, objective, 1 - X[:160], X[160:], training=SHORT, folder=tmp_path / "a", resume=True)
    with pytest.raises(ValueError, match="holds no run to resume"):
        train(tmp_path / "nothing", resume=True)
    state = next((tmp_path / "a" / "checkpoint").glob("step-*"))
    state.write_bytes(state.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"step-.* has been changed"):
        train(tmp_path / "a", resume=True)


def test_torn_last_line_of_metrics_is_dropped(tmp_path):
    train(tmp_path / "a")
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "tra')
    run = train(tmp_path / "a", training=SHORT.model_copy(update={"epochs": 4}), resume=True)
    assert [m["step"] for m in run.metrics] == [5, 10, 15, 20]
    assert len([json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]) == 4


def test_best_weights_are_those_of_the_least_held_out_loss():
    from narrows.training.loop import _held_out

    run = train(None, training=SHORT.model_copy(update={"epochs": 30, "lr": 0.05}))
    best = min(run.metrics, key=lambda m: m["valid"]["loss"])
    assert run.config["best_step"] == best["step"] < run.config["steps"]
    means, values = _held_out(run.model, run.objective, nr.data.rows(X[160:]), 0)
    assert float(means[0]) == pytest.approx(best["valid"]["loss"])
    assert float(values.mean()) == pytest.approx(float(means[0]))


@pytest.mark.parametrize("recipe", ["vae", "beta_vae", "autoencoder"])
def test_held_out_loss_stands_at_the_final_beta(recipe):
    settings = {} if recipe == "autoencoder" else {"beta": nr.schedules.WarmUp(10_000, final=3.0)}
    model, objective = getattr(nr.recipes, recipe)((6,), latent=2, **settings)
    run = nr.fit(model, objective, X[:160], X[160:], training=SHORT, quiet=True)
    valid, final = run.metrics[0]["valid"], float(objective.beta(None))
    assert valid["loss"] == pytest.approx(valid["distortion"] + final * valid["rate"])


def test_early_stopping_waits_for_two_thousand_steps_then_stops():
    training = nr.Training(epochs=5000, batch=160, check=50, lr=0.02, patience=3)
    run = train(None, training=training)
    assert 2000 <= run.config["steps"] < 5000


def test_adam_is_torchs_to_the_last_bit():
    """Twenty steps, of which some leave a parameter without a gradient."""
    ours, theirs = (nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    pair = ((ours, Adam(ours.parameters(), 0.01)), (theirs, torch.optim.Adam(theirs.parameters(), 0.01, fused=True)))
    x = torch.randn(20, 7, 5, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        for model, optimiser in pair:
            optimiser.zero_grad()
            (model[0](x[step]).sum() if step % 3 else model(x[step]).square().sum()).backward()
            optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_step_that_is_left_out_changes_nothing():
    """Neither weights nor means, squares and counts, whatever the gradient holds; the next one is as if it were not."""
    ours, theirs = (nn.Linear(5, 4, dtype=torch.float64) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(6, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = ((ours, Adam(ours.parameters(), 0.01), range(6)), (theirs, Adam(theirs.parameters(), 0.01), (0, 1, 3, 5)))
    for model, optimiser, steps in pair:
        for step in steps:
            optimiser.zero_grad()
            out = step in (2, 4)
            (model(x[step]).square().sum() * (math.nan if out else 1.0)).backward()
            optimiser.step(torch.tensor(float(out)))
    (_, first, _), (_, second, _) = pair
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(torch.equal(first.state()[name], value) for name, value in second.state().items())


def test_the_average_is_its_formula():
    """Weights 1, 2, 3, ... against the sum written out; what is set anew begins anew."""
    p, share = nn.Parameter(torch.zeros(3, dtype=torch.float64)), 0.4
    average, expected = Average([p], share), 0.0
    for t in range(1, 9):
        nn.init.constant_(p, t)
        average.step(t)
        kept = min(share, (1 + t) / (10 + t))
        expected = kept * expected + (1 - kept) * t
    with average.shown():
        assert torch.allclose(p, torch.full_like(p, expected), rtol=1e-14)
    assert p.tolist() == [8.0] * 3
    average.forget(p, torch.tensor([1]))
    assert average.values[0][1] == 8.0 != average.values[0][0]


def test_the_average_is_judged_and_kept_while_raw_weights_go_on(monkeypatch):
    """The record of a check and the final weights are those of an average kept by hand beside a run without one."""
    from narrows.training import loop

    seen: list[list[torch.Tensor]] = []
    step = loop.Adam.step

    def watched(self: Adam, *arguments: object) -> None:
        seen[:] = seen or [[p.detach().clone() for p in self.parameters]]
        step(self, *arguments)
        seen.append([p.detach().clone() for p in self.parameters])

    monkeypatch.setattr(loop.Adam, "step", watched)
    train(None)
    raw = seen[:]
    seen.clear()
    run = train(None, SHORT.model_copy(update={"average": 0.8}))
    assert all(torch.equal(a, b) for x, y in zip(raw, seen, strict=True) for a, b in zip(x, y, strict=True))
    mean = [t.double() for t in raw[0]]
    for t, weights in enumerate(raw[1 : run.config["best_step"] + 1], 1):
        kept = min(0.8, (1 + t) / (10 + t))
        mean = [kept * m + (1 - kept) * w for m, w in zip(mean, weights, strict=True)]
    for p, m in zip(run.model.parameters(), mean, strict=True):
        assert torch.allclose(p.double(), m, atol=1e-6)
    means, _ = loop._held_out(run.model, run.objective, nr.data.rows(X[160:]), 0)
    best = next(m for m in run.metrics if m["step"] == run.config["best_step"])
    assert best["valid"]["loss"] == pytest.approx(float(means[0]))


def test_spikes_are_left_out_and_counted(tmp_path):
    """Rows that make a loss of no number cost their steps only; a limit that lets nothing pass is refused."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    x[7, 1] = 1e30
    model, objective = nr.recipes.vae((3,), latent=2, likelihood=nr.likelihoods.Gaussian)
    settings = nr.Training(epochs=3, batch=16, check=4, skip=1e4)
    run = nr.fit(model, objective, x, training=settings, folder=tmp_path / "a", quiet=True)
    assert [m["skipped"] for m in run.metrics] == [1, 2, 3]
    assert all(math.isfinite(m["train"]["loss"]) for m in run.metrics)
    assert all(p.isfinite().all() for p in run.model.parameters())
    assert "3 of 12 steps (25.0%) were left out: the norm of their gradient was above skip=10000" in run.alarms[-1]
    settings = nr.Training(epochs=30, batch=16, check=40, skip=1e-3)
    with pytest.raises(ValueError, match=r"at step 120 the last 120 steps were all left out.*Take a larger one"):
        nr.fit(*nr.recipes.vae((6,), latent=2), X[:64], training=settings, quiet=True)


def test_sums_of_an_interval_are_the_means_of_its_rows():
    """One step an interval against one interval, with a last batch of another size."""
    single, whole = (
        train(None, training=SHORT.model_copy(update={"batch": 50, "epochs": 1, "check": n})) for n in (1, 4)
    )
    for name in ("bound", "distortion", "rate", "loss"):
        means = [m["train"][name] for m in single.metrics]
        assert whole.metrics[0]["train"][name] == pytest.approx((50 * sum(means[:3]) + 10 * means[3]) / 160, rel=1e-12)


def test_epochs_where_none_are_given_follow_from_the_work(monkeypatch):
    """6-8-4, 2-8-6: forward, gradients of all weights, and of all inputs but the first."""
    model, objective = nr.recipes.vae((6,), latent=2, network=partial(nr.networks.Mlp, hidden=(8,)))
    forward = 2 * (6 * 8 + 8 * 4 + 2 * 8 + 8 * 6)
    step = 50 * (3 * forward - 2 * 6 * 8)
    rows = nr.data.Rows(X)
    assert estimate.epochs(model, objective, rows, 50) == -(-30_000 // 4)
    monkeypatch.setattr(estimate, "WORK", 10.5 * 4 * step)
    assert estimate.epochs(model, objective, rows, 50) == 11
    assert all(p.grad is None for p in model.parameters())


def test_minutes_are_a_cap():
    run = train(None, training=nr.Training(minutes=0.01))
    assert run.config["seconds"] < 10


def test_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(tmp_path):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    x[7, 1] = 1e30
    model, objective = nr.recipes.vae((3,), latent=2, likelihood=nr.likelihoods.Gaussian)
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+ .* column 1.*--clip"):
        nr.fit(model, objective, x, training=nr.Training(epochs=2, batch=64), folder=tmp_path / "a", quiet=True)


def test_data_outside_the_support_is_refused():
    model, objective = nr.recipes.vae((6,), latent=2)
    with pytest.raises(ValueError, match="training row 0 holds 0.5 .* Bernoulli cannot produce: it covers 0 and 1"):
        nr.fit(model, objective, torch.full((10, 6), 0.5))


def test_wrong_shape_is_refused():
    model, objective = nr.recipes.vae((5,), latent=2)
    with pytest.raises(ValueError, match=r"rows of shape \(5,\); these have \(6,\)"):
        nr.fit(model, objective, X)


class Detached(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: object, **kwargs: object) -> nr.Code:
        code = self.inner(*args, **kwargs)
        return code._replace(rates=code.rates.detach())

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def test_alarms_before():
    model, objective = nr.recipes.vae((6,), latent=6)
    model.posterior = Detached(model.posterior)
    x = X[:97].clone()
    x[:, 2] = 1.0
    found = " ".join(nr.fit(model, objective, x, training=SHORT, quiet=True).alarms)
    assert "6 units and a row only 6 values" in found
    assert "1 of 6 columns never change" in found
    assert "the last batch of every epoch has one row" in found
    assert "gradient of the rate (KL) is zero" in found


def test_alarm_of_collapse_and_of_dead_units():
    model, objective = nr.recipes.vae((6,), latent=2, beta=50.0)
    assert "posterior collapse" in " ".join(nr.fit(model, objective, X, training=SHORT, quiet=True).alarms)
    model, objective = nr.recipes.autoencoder((6,), latent=2)
    with torch.no_grad():
        model.encoder.layers[-1].weight.zero_()
    model.encoder.requires_grad_(False)
    assert "2 of 2 units of the code never change" in " ".join(
        nr.fit(model, objective, X, training=SHORT, quiet=True).alarms
    )


def test_a_small_code_is_not_a_dead_one():
    """Only units that hardly move beside the others are called dead where a code has no scale of its own."""
    model, _ = nr.recipes.autoencoder((6,), latent=3)
    with torch.no_grad():
        model.encoder.layers[-1].weight *= 1e-3
    assert alarms.after(model, nr.data.Rows(X)) == []
    with torch.no_grad():
        model.encoder.layers[-1].weight[1] = 0
    assert "1 of 3 units of the code never change" in alarms.after(model, nr.data.Rows(X))[0]


def test_fewer_rows_than_a_batch_is_no_error():
    run = nr.fit(*nr.recipes.vae((6,), latent=2), X[:7], training=nr.Training(epochs=2), quiet=True)
    assert "7 rows are fewer than a batch of 128" in run.alarms[0]


def test_fit_works_off_the_main_thread():
    runs: list[nr.Run] = []
    worker = threading.Thread(target=lambda: runs.append(train(None)))
    worker.start()
    worker.join()
    assert runs[0].config["steps"] == 15


@pytest.mark.parametrize("settings", [{"decay": "cosine"}, {"clip": 0.1}, {"average": 0.9}, {"skip": 4.0}], ids=str)
def test_settings_change_the_weights(settings):
    a, b = train(None), train(None, training=SHORT.model_copy(update=settings))
    assert math.isfinite(b.metrics[-1]["train"]["loss"])
    assert not all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_compiled_training_is_training():
    a, b = train(None), train(None, training=SHORT.model_copy(update={"compile": True}))
    for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "no setting 'epoch'; did you mean 'epochs'"),
        ({"lr": -1}, "learning rate.*greater than 0; got -1"),
        ({"epochs": 0}, "epochs is passes over the training rows.*got 0"),
        ({"average": 1.0}, "average is share kept of the weights' running average.*less than 1; got 1.0"),
        ({"skip": -1.0}, "skip is norm of the gradient beyond which.*equal to 0; got -1.0"),
        ({"decay": "linear"}, "decay .*'none' or 'cosine'"),
    ],
)
def test_bad_settings_are_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        nr.Training(**values)


def test_settings_as_scikit_learn_sees_them():
    training = nr.Training(epochs=4)
    assert nr.Training(**training.get_params()) == training
    assert training.set_params(epochs=5).epochs == 5
    with pytest.raises(ValueError, match="did you mean 'batch'"):
        training.set_params(bach=3)


def test_device_that_is_not_there():
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used here"):
        train(None, training=SHORT.model_copy(update={"device": "cuda:99"}))
