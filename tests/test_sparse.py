"""Sparse codes: each mechanism against its definition, the papers' derivatives, slow re-implementations.

All in float64 but for training. Nothing here is statistical.
"""

import math
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import narrows as nr
import narrows.cli
import narrows.defaults
from narrows.activations import BatchTopK, JumpReLU, ReLU, Sigmoid, TopK
from narrows.contract import Batch
from narrows.networks import Dictionary, Mlp
from narrows.penalties import L0, L1, AuxK, Resampling, TargetActivity
from narrows.posteriors import Sparse
from narrows.training import alarms
from narrows.training.loop import Interrupted

close = torch.testing.assert_close
D, K = 6, 12  # values of a row, units
X = torch.randn(200, D, generator=torch.Generator().manual_seed(0))
SHORT = nr.Training(epochs=4, batch=32, check=5)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def member(latent: int = K, **arguments: Any) -> nr.recipes.Parts:
    return nr.recipes.sparse((D,), latent=latent, **{"active": 3, **arguments})


# ---- activations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [1, 3, K])
def test_topk_keeps_exactly_k_and_its_gradient_flows_only_there(active: int) -> None:
    """The largest by a full sort; the derivative is one where a unit is kept and zero elsewhere."""
    h = numbers(5, K).requires_grad_()
    z = TopK(K, active)(h)
    assert (z != 0).sum(1).tolist() == [active] * 5
    for row, kept in zip(h, z, strict=True):
        assert set(kept.nonzero().flatten().tolist()) == set(row.argsort()[-active:].tolist())
    close(z, torch.where(z != 0, h, 0.0), rtol=0, atol=0)
    (slope,) = torch.autograd.grad(z.sum(), h)
    close(slope, (z != 0).double(), rtol=0, atol=0)


def test_batch_topk_keeps_k_times_b_of_the_batch() -> None:
    """The largest over the batch by a full sort, shared unevenly; the gradient flows there and nowhere else."""
    h = numbers(8, K).requires_grad_()
    z = BatchTopK(K, 3)(h)
    least = h.flatten().sort().values[-3 * 8]
    assert least > 0
    close(z, torch.where(h >= least, h, 0.0), rtol=0, atol=0)
    counts = (z != 0).sum(1)
    assert counts.sum() == 24
    assert len(counts.unique()) > 1
    (slope,) = torch.autograd.grad(z.sum(), h)
    close(slope, (h >= least).double(), rtol=0, atol=0)


def test_batch_topk_without_enough_positive_units_keeps_those_that_are() -> None:
    """A negative unit never fires, and a batch in which nothing fires leaves the threshold alone."""
    activation = BatchTopK(3, 2)
    h = torch.tensor([[1.0, -1.0, -2.0], [-1.0, -3.0, 2.0]])
    close(activation(h), h.relu())
    assert activation.threshold == 1.0
    assert not activation(-h.abs()).any()
    assert activation.threshold == 1.0


def test_the_threshold_is_the_mean_of_what_batches_kept_least() -> None:
    """Plain over the first hundred, exponential afterwards; evaluation neither moves nor ranks."""
    activation = BatchTopK(K, 2).double()
    least = []
    for step in range(130):
        kept = activation(numbers(4, K, seed=step))
        least.append(float(kept[kept > 0].min()))
        if step == 99:
            assert float(activation.threshold) == pytest.approx(sum(least) / 100, rel=1e-12)
    expected = sum(least[:100]) / 100
    for value in least[100:]:
        expected += (value - expected) / 100
    assert float(activation.threshold) == pytest.approx(expected, rel=1e-12)
    activation.eval()
    h = numbers(50, K, seed=1000)
    z = activation(h)
    close(z, torch.where(h > expected, h, 0.0), rtol=0, atol=0)
    close(activation(h[7:8]), z[7:8], rtol=0, atol=0)
    assert float(activation.threshold) == pytest.approx(expected, rel=1e-12)


def test_the_threshold_gives_the_mean_count_back() -> None:
    """After training on normal numbers, rows of the same kind have 8 +- 0.15 of 64 units (5,000 rows of variance
    below 8: five standard errors of 0.04 less the threshold's own; fixed seed)."""
    activation = BatchTopK(64, 8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        activation(torch.randn(256, 64, generator=generator))
    z = activation.eval()(torch.randn(5000, 64, generator=generator))
    assert float((z != 0).sum(1).double().mean()) == pytest.approx(8, abs=0.15)


def test_jumprelu_has_the_derivatives_of_the_paper() -> None:
    """Rajamanoharan et al. 2024, equations 11 and 12, entry by entry, with a rectangle for K."""
    activation = JumpReLU(4, threshold=0.5, bandwidth=0.4).double()
    with torch.no_grad():
        activation.log_threshold.copy_(torch.tensor([0.5, 1.0, 0.3, 0.8], dtype=torch.float64).log())
    theta = activation.log_threshold.exp().detach()
    h = torch.cat([numbers(40, 4), theta + torch.tensor([[0.1], [-0.1], [0.19], [-0.19], [0.21], [-0.21]])])
    h.requires_grad_()
    weight = numbers(46, 4, seed=1)
    kernel = (((h - theta) / 0.4).abs() < 0.5).double()
    assert 6 < kernel.sum() < kernel.numel()
    z = activation(h)
    close(z, h * (h > theta), rtol=0, atol=0)
    by_h, by_log = torch.autograd.grad((weight * z).sum(), (h, activation.log_threshold))
    close(by_h, weight * (h > theta), rtol=0, atol=0)
    close(by_log, (weight * -(theta / 0.4) * kernel).sum(0) * theta)  # d theta / d log theta = theta
    fires = activation.fires(h)
    close(fires, (h > theta).double(), rtol=0, atol=0)
    by_h, by_log = torch.autograd.grad((weight * fires).sum(), (h, activation.log_threshold), allow_unused=True)
    assert by_h is None
    close(by_log, (weight * -(1 / 0.4) * kernel).sum(0) * theta)


def test_l0_counts_what_fires_and_moves_thresholds_alone() -> None:
    """w times the units above their thresholds, for each row; more of it means higher thresholds."""
    model, objective = member(active=None, activation=JumpReLU, penalty=L0(0.3), revive="none")
    model.double(), objective.double()
    terms = objective(model, Batch.of(X.double()))
    close(terms.penalty, 0.3 * (model.encode(X.double()).z != 0).sum(1).double(), check_dtype=False)
    parameters = dict(model.named_parameters())
    slopes = torch.autograd.grad(terms.penalty.sum(), list(parameters.values()), allow_unused=True)
    moved = {name for name, slope in zip(parameters, slopes, strict=True) if slope is not None and slope.any()}
    assert moved == {"posterior.activation.log_threshold"}


def test_target_activity_is_the_divergence_of_coins() -> None:
    """Each unit's mean activity against the target, by torch's own Bernoulli divergence."""
    model, objective = member(active=None, activation=Sigmoid, penalty=TargetActivity(0.7, 0.1))
    model.double()
    terms = objective(model, Batch.of(X.double()))
    mean = model.encode(X.double()).z.mean(0)
    coins = torch.distributions.Bernoulli
    exact = torch.distributions.kl_divergence(coins(torch.full_like(mean, 0.1)), coins(mean)).sum()
    close(terms.penalty, (0.7 * exact).expand(200))
    assert len(objective.penalty) == 1  # a sigmoid never rests, so nothing is to be revived


# ---- the dictionary ---------------------------------------------------------------------------------------------


def test_a_dictionary_is_the_affine_map_it_says() -> None:
    """Both directions by hand, with context and without."""
    for context in (0, 2):
        decoder, encoder = Dictionary((K,), (1, D), context).double(), Dictionary((D,), (K,), context).double()
        encoder.centre.copy_(numbers(D, seed=3))
        with torch.no_grad():
            decoder.bias.copy_(numbers(D, seed=4)), encoder.bias.copy_(numbers(K, seed=5))
        z, x, told = numbers(5, K), numbers(5, D), numbers(5, 2) if context else None
        rows = decoder.weight / decoder.weight.square().sum(1, keepdim=True).sqrt()
        exact = z @ rows + decoder.bias + (told @ decoder.told if context else 0.0)
        close(decoder(z, told), exact[:, None])
        wide = x - encoder.centre if told is None else torch.cat([x - encoder.centre, told], 1)
        close(encoder(x, told), wide @ encoder.weight.T + encoder.bias)


def test_the_encoder_begins_as_the_decoder_transposed_about_the_mean() -> None:
    """Gao et al. 2024, appendix A.1: at the first step an empty code is the mean, and h = directions (x - mean)."""
    model, objective = member()
    close(model.encoder.weight, model.decoder.directions)
    rows = nr.data.rows(X + 3)
    assert model.begin(rows, None) is False
    close(model.decoder.bias, (X + 3).mean(0))
    close(model.hidden(X + 3), (X - X.mean(0)) @ model.decoder.directions.T)
    with torch.no_grad():
        model.decoder.bias += 1  # learned since
    model.begin(nr.data.rows(X - 5), None)
    close(model.decoder.bias, (X + 3).mean(0) + 1)
    del objective


@pytest.mark.parametrize("revive", ["auxk", "resampling"])
def test_directions_have_length_one_after_training(revive: str) -> None:
    """Whatever the steps did to the weights."""
    model, objective = member(revive=revive)
    before = model.decoder.weight.detach().clone()
    nr.fit(model, objective, X, training=nr.Training(epochs=5, lr=0.1), quiet=True)
    assert not torch.equal(before, model.decoder.weight)
    close(model.decoder.directions.norm(dim=1), torch.ones(K))
    found = nr.evaluate.features(model, X)
    close(found.directions, model.decoder.directions.detach(), rtol=1e-4, atol=1e-5)


# ---- dead units -------------------------------------------------------------------------------------------------


def stepped(x: Tensor, step: int = 1, rows: int = 200, **given: Any) -> Batch:
    return Batch(x, x, step=torch.tensor(step), rows=rows, **given)


def test_idle_counts_rows_since_a_unit_fired_in_training_steps_only() -> None:
    """Against a loop over rows; neither evaluation nor a look without a step moves it."""
    penalty, model = AuxK(K, 2), member()[0]
    objective = nr.Objective(0.0, penalty=penalty)
    expected = [0] * K
    for step in range(6):
        x = X[step * 4 : step * 4 + 4]
        objective(model, stepped(x, step))
        z = model.encode(x).z
        expected = [0 if z[:, j].any() else expected[j] + 4 for j in range(K)]
        assert penalty.idle.tolist() == expected
    assert any(expected)
    objective(model, Batch.of(X[:1]))
    objective.eval()
    objective(model, stepped(X[:1]))
    assert penalty.idle.tolist() == expected


def slow_auxk(model: nr.Autoencoder, x: Tensor, idle: list[int], units: int, weight: float) -> list[Tensor]:
    """Gao et al. 2024, appendix A.2, a row at a time with loops."""
    found = []
    rows = model.decoder.weight / model.decoder.weight.norm(dim=1, keepdim=True)
    h = (x - model.encoder.centre) @ model.encoder.weight.T + model.encoder.bias
    for row, own in zip(x, h, strict=True):
        order = sorted(range(K), key=lambda j: -float(own[j].detach()))
        kept = order[:3]
        again = model.decoder.bias + sum(own[j] * rows[j] for j in kept)
        error = (row - again).detach()
        dead = [j for j in order if idle[j] >= 200][:units]
        explained = sum((own[j].clamp_min(0) * rows[j] for j in dead), torch.zeros(D, dtype=x.dtype))
        found.append(weight / 2 * (error - explained).square().sum())
    return found


def test_auxk_is_that_of_a_slow_reimplementation() -> None:
    """Value and every gradient, with some units dead and others not; nothing is learned by the error itself."""
    model, _ = member(seed=2)
    model.double()
    penalty = AuxK(K, 3, weight=0.25).double()
    idle = [200 if j % 2 else 0 for j in range(K)]
    x = X[:9].double()
    batch = Batch(x, x, rows=200)
    penalty.idle.copy_(torch.tensor(idle))
    value = penalty(model, batch, model(x))
    slow = torch.stack(slow_auxk(model, x, idle, 3, 0.25))
    close(value, slow)
    parameters = [model.encoder.weight, model.encoder.bias, model.decoder.weight]
    ours, theirs = (torch.autograd.grad(v.sum(), parameters) for v in (value, slow))
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)
    assert not ours[0][::2].any()  # the living learn nothing from it
    assert ours[0][1::2].any()


def test_auxk_is_nothing_where_no_unit_is_dead_and_in_evaluation() -> None:
    """And unseen values leave no error to explain."""
    model, objective = member()
    penalty = objective.penalty[0]
    assert not objective(model, stepped(X)).penalty.any()
    penalty.idle.fill_(1000)
    terms = objective(model, Batch.of(X))
    assert terms.penalty.all()
    seen = torch.ones_like(X, dtype=torch.bool)
    seen[:, 2:] = False
    masked = objective(model, Batch(X, torch.where(seen, X, math.nan), seen=seen)).penalty
    assert masked.isfinite().all()
    assert (masked < terms.penalty).all()
    assert not objective.eval()(model, Batch.of(X)).penalty.any()


def test_auxk_brings_dead_units_back() -> None:
    """Units whose encoder was turned away from all rows fire again; without it they stay dead."""
    alive = {}
    for revive in ("auxk", "none"):
        model, objective = member(latent=K, active=2, revive=revive)
        with torch.no_grad():
            model.encoder.bias[6:] = -2.0
        nr.fit(model, objective, X, training=nr.Training(epochs=100, batch=50, lr=0.01), quiet=True)
        alive[revive] = int((~nr.evaluate.features(model, X).dead).sum())
    assert alive["none"] < alive["auxk"] == K


def test_resampling_points_dead_units_at_rows_that_are_explained_badly() -> None:
    """Length one, a fifth of the living in the encoder, no bias; Adam forgets; the living are untouched."""
    model, objective = member(revive="resampling")
    penalty = objective.penalty[0]
    penalty.idle[4:7] = 200
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x = torch.cat([X[:50] * 0.01, 30 * torch.eye(D)[:1]])
    with nr.draws.seeded(0):
        changed = penalty.renew(model, Batch(x, x, rows=200))
    units = torch.tensor([4, 5, 6])
    assert all(torch.equal(rows, units) for _, rows in changed)
    living = [j for j in range(K) if j not in (4, 5, 6)]
    for name, p in model.named_parameters():
        if p.shape[0] == K:
            assert torch.equal(p[living], before[name][living])
    close(model.decoder.directions[4:7], torch.eye(D)[:1].expand(3, D), atol=1e-4, rtol=0)  # the one bad row
    length = 0.2 * before["encoder.weight"][living].norm(dim=1).mean()
    close(model.encoder.weight[4:7], length * model.decoder.directions[4:7])
    assert not model.encoder.bias[4:7].any()
    assert not penalty.idle[4:7].any()
    assert not penalty.renew(model, Batch(x, x, rows=200))
    adam = nr.training.adam.Adam(model.parameters(), 0.1)
    for tensor in (*adam.means, *adam.squares):
        tensor.fill_(1.0)
    adam.forget(model.encoder.weight, units)
    at = next(i for i, p in enumerate(adam.parameters) if p is model.encoder.weight)
    assert adam.means[at].sum() == adam.squares[at].sum() == (K - 3) * D
    assert all(m.all() for i, m in enumerate(adam.means) if i != at)


# ---- training ---------------------------------------------------------------------------------------------------

MECHANISMS: list[dict[str, Any]] = [
    {"activation": TopK},
    {"activation": BatchTopK},
    {"activation": TopK, "revive": "resampling"},
    {"activation": partial(JumpReLU, threshold=0.2), "active": None, "penalty": L0(0.1)},
    {"activation": ReLU, "active": None, "penalty": L1(0.1)},
    {"activation": Sigmoid, "active": None, "penalty": TargetActivity(1.0, 0.1)},
]


def train(folder: Path | None, settings: dict[str, Any], resume: bool = False) -> nr.Run:
    model, objective = nr.recipes.sparse((D,), latent=4 * D, **{"active": 2, **settings})
    for part in objective.penalty:
        if isinstance(part, (AuxK, Resampling)):
            part.after = 1  # a unit that one batch leaves out is dead, so that it happens here
        if isinstance(part, Resampling):
            part.every = 4
    return nr.fit(model, objective, X[:160], X[160:], training=SHORT, folder=folder, resume=resume, quiet=True)


@pytest.mark.parametrize("settings", MECHANISMS, ids=lambda s: f"{s['activation']}-{s.get('revive', 'auxk')}")
def test_interrupted_and_resumed_is_bit_exact(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters, thresholds and renewals included; and the same seeds give the same bytes."""
    from narrows.training import loop

    weights = [(train(tmp_path / n, settings).folder / "weights.safetensors").read_bytes() for n in ("whole", "twin")]
    assert weights[0] == weights[1]
    seen = 0

    def ring(self: Any, batch: Batch) -> Any:
        nonlocal seen
        seen += 1
        if seen == 11:
            os.kill(os.getpid(), signal.SIGINT)
        return self.objective(self.model, batch)

    monkeypatch.setattr(loop._Step, "forward", ring)
    with pytest.raises(Interrupted, match="stopped at step 11"):
        train(tmp_path / "cut", settings)
    monkeypatch.undo()
    run = train(tmp_path / "cut", settings, resume=True)
    assert (tmp_path / "cut" / "weights.safetensors").read_bytes() == weights[0]
    if "revive" in settings:  # something was renewed, or the test would show nothing
        plain = train(None, {**settings, "revive": "none"})
        assert not torch.equal(plain.model.encoder.weight, run.model.encoder.weight)
    assert nr.load(tmp_path / "cut").model.spec == run.model.spec


def test_a_look_at_the_loss_before_training_changes_nothing() -> None:
    """The command line takes some before it trains; the same call from Python must give the same weights."""
    runs = []
    for looks in (0, 5):
        model, objective = member(activation=BatchTopK)
        for _ in range(looks):
            objective(model, Batch.of(X[:50] * 7))
        runs.append(nr.fit(model, objective, X[:160], X[160:], training=SHORT, quiet=True))
    for name, tensor in runs[0].model.state_dict().items():
        assert torch.equal(tensor, runs[1].model.state_dict()[name]), name


def test_alarms_of_sparse_codes() -> None:
    """More units than values are what they are for; more active ones than values, and dead ones, are not."""
    model, objective = member(active=3)
    rows = nr.data.rows(X)
    assert not alarms.before(model, objective, rows, 50)
    assert not alarms.after(model, rows)
    assert not alarms.dead(nr.recipes.vae((D,), latent=2)[0], rows)
    greedy = member(active=D)
    assert "6 units may fire for a row of only 6 values" in " ".join(alarms.before(*greedy, rows, 50))
    with torch.no_grad():
        model.encoder.bias[3:5] = -100.0
    (said,) = alarms.dead(model, rows)
    for words in ("2 of 12 units", "fire on none of 200 training rows", "--set revive=resampling", "--latent 10"):
        assert words in said
    wide, _ = member(300, active=150)
    for off, sentences in ((2, 0), (3, 1)):  # below 1 % there is nothing to be done
        with torch.no_grad():
            wide.encoder.bias[:off] = -100.0
        assert len(alarms.dead(wide, rows)) == sentences


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"active": K + 1}, r"from 1 to the latent=12 there are; got 13"),
        ({"active": 0}, r"active is a whole number of units from 1 .* got 0"),
        ({"active": 2.5, "activation": BatchTopK}, r"whole number .* got 2.5"),
        ({"active": 3, "activation": ReLU}, r"active=3 counts the units of TopK and BatchTopK; .* ReLU is up to"),
        ({"active": None, "activation": ReLU}, r"ReLU codes are sparse only under a penalty: penalty=L1"),
        ({"active": None, "activation": Sigmoid}, r"TargetActivity\(1.0, 0.05\) for Sigmoid"),
        ({"revive": "prayer"}, r'revive is "auxk", "resampling" or "none"; got \'prayer\''),
        ({"active": None, "activation": partial(JumpReLU, threshold=0.0)}, r"above 0; got threshold=0.0"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    """Before anything is trained."""
    with pytest.raises(ValueError, match=message):
        member(**settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TargetActivity(1.0, 0.0), "a target activity lies between 0 and 1; got target=0.0"),
        (lambda: TargetActivity(1.0, 1.0), "between 0 and 1; got target=1.0"),
        (lambda: AuxK(4, 5), "AuxK takes from 1 to all 4 units; got units=5"),
        (lambda: AuxK(4, 2, after=0), "at least 1; got latent=4, after=0"),
        (lambda: Resampling(4, every=0), "every is a number of steps of at least 1; got every=0"),
        (lambda: TopK(0, 1), "a code needs at least one unit; got latent=0"),
        (lambda: nr.evaluate.features(member()[0], X, top=0), "at least one row a unit; got top=0"),
    ],
)
def test_bad_parts_are_refused(call: Callable[[], object], message: str) -> None:
    """Built by hand too."""
    with pytest.raises(ValueError, match=message):
        call()


def test_penalties_of_sparse_codes_ask_for_sparse_codes() -> None:
    """A plain autoencoder has no thresholds, no dead units, no dictionary."""
    model, _ = nr.recipes.autoencoder((D,), latent=3)
    for penalty, message in (
        (L0(0.1), "Deterministic has none: take activation=JumpReLU"),
        (AuxK(3, 1), "use recipe spa"),
    ):
        with pytest.raises(TypeError, match=message):
            nr.Objective(0.0, penalty=penalty)(model, Batch.of(X))
    model, objective = member(network=partial(Mlp, hidden=(4,)), revive="resampling")
    objective.penalty[0].idle.fill_(1000)
    with pytest.raises(TypeError, match="take network=Dictionary, or AuxK"):
        objective.penalty[0].renew(model, Batch.of(X))


# ---- features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [200, 2500])
def test_features_are_those_of_a_full_sort(rows: int) -> None:
    """Rates, counts, top rows and values, over more than one piece too."""
    model, _ = member(seed=3)
    x = torch.randn(rows, D, generator=torch.Generator().manual_seed(5))
    z = model.encode(x).z.detach()
    found = nr.evaluate.features(model, x, top=4)
    close(found.rate, (z != 0).float().mean(0))
    assert found.active == (3.0, 0.0)
    assert torch.equal(found.dead, ~(z != 0).any(0))
    close(found.values, z.sort(0, descending=True).values[:4].T)
    close(z[found.rows, torch.arange(K)[:, None]], found.values)
    assert nr.evaluate.features(model, x[:2], top=9).rows.shape == (K, 2)


def test_features_of_any_decoder_are_what_a_unit_adds() -> None:
    """E[x | e_j] - E[x | 0]."""
    model, _ = member(network=partial(Mlp, hidden=(4,)))
    found = nr.evaluate.features(model, X)
    e = torch.eye(K)
    close(found.directions, (model.decode(e).mean - model.decode(0 * e).mean).detach())


def test_defaults_are_overcomplete() -> None:
    """Four units a value, the recipe's own dictionary, fewer active units than values."""
    data = nr.data.load(X.numpy())
    chosen = nr.defaults.arguments(data, "sparse", {})
    assert (chosen["latent"], chosen["network"]) == (4 * D, Dictionary)
    model, _ = nr.recipes.sparse(**chosen)
    assert isinstance(model.posterior, Sparse)
    assert model.posterior.activation.active == D // 4


def test_report_and_command_of_a_sparse_run(tmp_path: Path) -> None:
    """The section on features, PCA with as many components as units fire, and the command that repeats the run."""
    data = nr.data.load("digits")
    chosen = nr.defaults.arguments(data, "sparse", {"latent": 24, "active": 3})
    run = nr.fit(*nr.recipes.sparse(**chosen), data, training=nr.Training(epochs=1), folder=tmp_path / "a", quiet=True)
    page = run.report().read_text()
    assert "What the units of the sparse code stand for" in page
    assert "PCA, 3 components" in page
    assert "--recipe sparse --latent 24 --set active=3 " in page


def test_features_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """A sparse run from the command line alone, and one line a unit of what it answers."""
    folder = tmp_path / "a"
    words = ["fit", "digits", "--recipe", "sparse", "--latent", "80", "--set", "active=5", "--epochs", "1", "--quiet"]
    for call in ([*words, "--folder", str(folder)], ["features", str(folder), "--top", "2"]):
        monkeypatch.setattr("sys.argv", ["narrows", *call])
        with suppress(SystemExit):
            nr.cli.main()
    assert "180 rows: 5 of 80 units fire for a row" in capsys.readouterr().out
    head, *lines = (folder / "features.csv").read_text().splitlines()
    assert head == "rate,row0,row1,value0,value1"
    assert len(lines) == 80
