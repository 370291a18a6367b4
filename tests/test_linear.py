"""The linear autoencoder is principal component analysis; the axes of any deterministic code are free, and chosen.

With S = U diag(l) U^T the covariance (1/n) of the rows and l falling, a linear autoencoder of k units under a Gaussian
of standard deviation s costs, at its optimum, 1/(2 s^2) sum_{i>k} l_i + d/2 log(2 pi s^2) nats a row, and its map of
centred rows is U_k U_k^T (Baldi & Hornik 1989). `eigen` below is LAPACK's decomposition of torch's covariance, which
shares no line with the library's. Trained models come within what float32 and a finite number of steps leave; all else
is float64.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import narrows as nr
from narrows import pca
from narrows.cli import app
from narrows.contract import Batch
from narrows.defaults import arguments
from narrows.evaluate import codes, reconstruct, verdict
from narrows.likelihoods import Bernoulli, Gaussian
from narrows.models import Autoencoder
from narrows.networks import Conv, Mlp
from narrows.objectives import Objective
from narrows.pca import SOLVERS, Components, fit_pca, principal
from narrows.penalties import Weights
from narrows.posteriors import Deterministic
from narrows.priors import GaussianMixture, MultivariateGaussian, Pinwheel
from narrows.recipes import Parts, autoencoder, build, linear, regularised, vae, wae_mmd
from narrows.references import cite

close = torch.testing.assert_close
N, D, K = 200, 12, 3
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def rows(n: int = N, d: int = D) -> Tensor:
    """Rows (n, d) in float64 with falling variances along random axes, about a mean of 5 and more."""
    axes = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q
    return torch.randn(n, d, dtype=torch.float64) * (0.8 ** torch.arange(d)) @ axes.T + 5 + torch.arange(d)


def eigen(x: Tensor) -> tuple[Tensor, Tensor]:
    """Falling eigenvalues and their vectors of the covariance, by another way."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    return values.flip(0), vectors.flip(1)


def solved(x: Tensor, latent: int = K, solver: str = "covariance", sigma: float = 1.0) -> Parts:
    """A linear autoencoder in float64 after its start."""
    likelihood = partial(Gaussian, sigma=sigma)
    model, objective = linear(tuple(x.shape[1:]), latent=latent, solver=solver, likelihood=likelihood)
    model.double()
    assert model.start is not None
    assert model.start(model, nr.data.Rows(x), None)
    return model, objective


def matrices(model: Autoencoder) -> tuple[Tensor, Tensor]:
    """W1 (k, d) of the encoder and W2 (d, k) of the decoder."""
    return model.encoder.layers[0].weight.detach(), model.decoder.layers[0].weight.detach()


def is_optimal(model: Autoencoder, objective: Objective, x: Tensor, latent: int = K, tolerance: float = 1e-9) -> None:
    """Loss, map and order of the axes against the eigenvalues of the covariance."""
    values, axes = eigen(x)
    variance = float(model.likelihood.log_sigma.exp() ** 2)
    loss = objective(model, Batch.of(x)).loss.detach()
    least = values[latent:].sum() / (2 * variance) + x.shape[1] / 2 * math.log(2 * math.pi * variance)
    close(loss, least, rtol=tolerance, atol=0)
    w1, w2 = matrices(model)
    close(w2 @ w1, axes[:, :latent] @ axes[:, :latent].T, rtol=0, atol=tolerance)
    close(codes(model, x).var(0, correction=0), values[:latent], rtol=tolerance, atol=0)
    close(codes(model, x).mean(0), torch.zeros(latent, dtype=x.dtype), rtol=0, atol=tolerance)


# ---- the closed form --------------------------------------------------------------------------------------------


@every_solver
@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_the_loss_is_the_sum_of_the_discarded_eigenvalues(solver: str, sigma: float) -> None:
    """And the map projects onto the leading eigenvectors, whose variances fall."""
    x = rows()
    is_optimal(*solved(x, solver=solver, sigma=sigma), x)


@every_solver
def test_nothing_near_the_optimum_is_better(solver: str) -> None:
    """The gradient is zero, and 50 random steps of any size lead uphill (seed 0)."""
    x = rows()
    model, objective = solved(x, solver=solver)
    best = objective(model, Batch.of(x)).loss
    for g in torch.autograd.grad(best, list(model.parameters())):
        close(g, torch.zeros_like(g), rtol=0, atol=1e-7)
    for size in torch.logspace(-3, 0, 50):
        other = copy.deepcopy(model)
        for p in other.parameters():
            p.data += size * torch.randn_like(p)
        assert objective(other, Batch.of(x)).loss > best


def test_any_invertible_change_of_the_code_leaves_reconstructions_as_they_are() -> None:
    """x_hat = W2 A^-1 A W1 x: weights are determined up to A and no further."""
    x = rows()
    model, _ = solved(x)
    other = copy.deepcopy(model)
    change, shift = torch.randn(K, K, dtype=torch.float64), torch.randn(K, dtype=torch.float64)
    encoder, decoder = other.encoder.layers[0], other.decoder.layers[0]
    encoder.weight.data, encoder.bias.data = change @ encoder.weight, change @ encoder.bias + shift
    decoder.weight.data = decoder.weight @ change.inverse()
    decoder.bias.data -= decoder.weight @ shift
    assert not torch.allclose(codes(model, x), codes(other, x))
    close(reconstruct(other, x), reconstruct(model, x))


def center_nothing(rows: Any) -> Any:
    """Hands rows on as they are."""
    for part in rows.pieces():
        rows.mean = torch.zeros(part.shape[1], dtype=torch.float64)
        yield part


FAULTS = {
    "the mean is not subtracted": (pca._Centred, "__iter__", lambda right: center_nothing),
    "the mean is that of the last piece": (pca._Centred, "__iter__", lambda right: lambda self: of_last(right, self)),
    "a row of every piece left out": (pca, "_gram", lambda right: lambda e: right(e[:-1])),
    "the axes rise": (pca, "_leading", lambda right: lambda *a: tuple(t.flip(-1) for t in right(*a))),
    "the smallest eigenvalues": (
        pca,
        "_leading",
        lambda right: lambda gram, k: tuple(t[..., -k:] for t in right(gram, D)),
    ),
    "rows of one piece only": (pca._Centred, "__iter__", lambda right: lambda self: iter(list(right(self))[:1])),
    "pieces forget how far apart they lie": (
        pca._Centred,
        "__iter__",
        lambda right: lambda self: (e[:-1] for e in right(self)),
    ),
}


def of_last(right: Callable, rows: Any) -> Any:
    """The pieces as they should be, and the mean of the last one."""
    yield from right(rows)
    rows.mean = list(rows.pieces())[-1].double().mean(0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `is_optimal`, which passes with pieces of 64 rows that drift apart, and fails with each fault."""
    x = rows() + torch.arange(N)[:, None] / N
    monkeypatch.setattr(pca, "_size", lambda d: 64)
    place, name, wrong = FAULTS[fault]
    solver = "svd" if place is pca._Centred else "covariance"
    is_optimal(*solved(x, solver=solver), x)
    monkeypatch.setattr(place, name, wrong(getattr(place, name)))
    with pytest.raises(AssertionError):
        is_optimal(*solved(x, solver=solver), x)


def test_a_large_mean_costs_no_digits() -> None:
    """In float32, columns about 1,000 with a spread of 1: the squares of a piece are taken about its own mean."""
    x = rows(2000) / 3
    far = (x + 1000).float()
    found = principal(lambda: far.split(256), (2000, D), K)
    close(found.variances, eigen(far.double())[0][:K], rtol=1e-5, atol=0)


# ---- solvers ----------------------------------------------------------------------------------------------------


class Watched:
    """An array on disk that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self.held = np.load(path, mmap_mode="r")
        self.shape, self.reads = self.held.shape, []

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, at: Any) -> Any:
        found = self.held[at]
        self.reads.append(len(found))
        return found


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_solvers_agree_on_disk_and_in_memory(dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variances and discarded sum to 1e-6, the spaces to 1e-5; on disk never more than a piece is read at once.

    Covariance and SVD read every row once, the randomised solver five times; the mean of 5 to 24 would cost three
    digits of the variances were it not taken out of each piece first.
    """
    x = rows(3000, 60).numpy().astype(dtype)
    np.save(tmp_path / "x.npy", x)
    values, axes = eigen(torch.from_numpy(x).double())
    monkeypatch.setattr(pca, "_size", lambda d: 256)
    for solver, passes in (("covariance", 1), ("svd", 1), ("randomised", 5)):
        watched = Watched(tmp_path / "x.npy")
        on_disk = nr.data.Rows(watched)
        found = principal(lambda held=on_disk: (batch.x for batch in held.batches(pca._size(60))), x.shape, 2, solver)
        close(found.variances, values[:2], rtol=1e-6, atol=0)
        assert found.noise == pytest.approx(float(values[2:].sum()) / 58, rel=1e-6)
        close(found.axes @ found.axes.T, axes[:, :2] @ axes[:, :2].T, rtol=0, atol=1e-5)
        assert max(watched.reads) == 256
        assert sum(watched.reads) == passes * len(x)


@every_solver
@pytest.mark.parametrize("shape", [(40, 300), (300, 40)], ids=str)
def test_wide_and_tall_rows(solver: str, shape: tuple[int, int]) -> None:
    """More values than rows or the other way round; the covariance of wide rows has rank n - 1."""
    x = rows(*shape)
    values, axes = eigen(x)
    found = principal(lambda: x.split(16), shape, 4, solver)
    close(found.variances, values[:4], rtol=1e-9, atol=0)
    close(found.axes @ found.axes.T, axes[:, :4] @ axes[:, :4].T, rtol=0, atol=1e-7)
    assert (found.axes.gather(0, found.axes.abs().argmax(0, keepdim=True)) > 0).all()


def test_small_variances_keep_their_digits_by_svd() -> None:
    """Columns of standard deviations 1, 1e-3, 1e-6, 1e-9 in float64: squares lose the last one, a triangle does not."""
    x = torch.randn(500, 4, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(500) * torch.tensor([1.0, 1e-3, 1e-6, 1e-9], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    exact = torch.tensor([1.0, 1e-6, 1e-12, 1e-18], dtype=torch.float64)
    s = torch.linalg.svdvals(x @ turn) ** 2 / 500
    assert torch.allclose(s, exact, rtol=1e-4, atol=0)
    triangle = principal(lambda: (x @ turn).split(100), (500, 4), 3, "svd")
    close(triangle.variances[:2], exact[:2], rtol=1e-9, atol=0)
    assert triangle.noise == 1e-12  # the floor


def test_the_baseline_is_the_same_pca() -> None:
    """`fit_pca` gives the axes, variances and noise that `linear` is made of."""
    x = rows()
    model, _ = solved(x)
    found = fit_pca(x, K)
    close(found.axes, matrices(model)[1], rtol=0, atol=1e-12)
    close(found.reconstruct(x), reconstruct(model, x))


def test_units_beyond_the_rank_stay_at_zero() -> None:
    """Four rows span three directions."""
    x = rows(4)
    model, _ = solved(x, latent=6)
    close(codes(model, x)[:, 3:], torch.zeros(4, 3, dtype=torch.float64), rtol=0, atol=0)
    close(reconstruct(model, x), x, rtol=0, atol=1e-9)


# ---- by gradient, and with a price on the weights ---------------------------------------------------------------

STEPS = nr.Training(epochs=1500, batch=N, lr=0.03, decay="cosine")


def test_training_finds_the_same_loss_and_space() -> None:
    """1,500 steps on all rows: no other minimum is there to fall into (Baldi & Hornik 1989)."""
    x = rows()
    x = (x - x.mean(0)).float()
    model, objective = linear((D,), latent=K, solver="gradient")
    run = nr.fit(model, objective, x, training=STEPS, quiet=True)
    assert run.config["steps"] == 1500
    values, axes = eigen(x.double())
    least = float(values[K:].sum()) / 2 + D / 2 * math.log(2 * math.pi)
    assert float(objective(model, Batch.of(x)).loss.detach()) == pytest.approx(least, rel=1e-5)
    w1, w2 = matrices(model)
    close(w2 @ w1, (axes[:, :K] @ axes[:, :K].T).float(), rtol=0, atol=5e-3)


def priced(x: Tensor, weight: float) -> tuple[Tensor, Tensor, float]:
    """W2's left singular vectors and singular values, and the least loss, with a price on both matrices.

    |X - X W1^T W2^T|^2 + mu (|W1|^2 + |W2|^2) is 2 n times the loss without its constant, mu = 2 n weight. Its minimum
    is a sum over i <= k of 2 mu - mu^2 / s_i^2 where s_i^2 = n l_i > mu, of s_i^2 else, and of s_i^2 over i > k, at
    W2 = U_k (1 - mu / s_i^2)^(1/2) O and W1 = W2^T (Kunin et al. 2019, arXiv:1901.08168).
    """
    n, d = x.shape
    values, axes = eigen(x)
    squares, mu = n * values, 2 * n * weight
    kept = (1 - mu / squares[:K]).clamp_min(0)
    inside = torch.where(kept > 0, 2 * mu - mu**2 / squares[:K], squares[:K])
    least = float(inside.sum() + squares[K:].sum()) / (2 * n) + d / 2 * math.log(2 * math.pi)
    return axes[:, :K], kept.sqrt(), least


@pytest.mark.parametrize("weight", [0.05, 0.25])  # the second is more than a half of the third variance
def test_priced_weights_rest_at_their_closed_form(weight: float) -> None:
    """Zero gradient and the least value in float64, whatever the rotation O of the code."""
    x = rows()
    axes, scale, least = priced(x, weight)
    assert bool((scale == 0).any()) == (weight == 0.25)
    model, _ = solved(x)
    turn = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64)).Q
    w2, mean = axes * scale @ turn, x.mean(0)
    encoder, decoder = model.encoder.layers[0], model.decoder.layers[0]
    encoder.weight.data, encoder.bias.data, decoder.weight.data, decoder.bias.data = w2.T, -w2.T @ mean, w2, mean
    loss = Objective(beta=0.0, penalty=Weights(weight))(model, Batch.of(x)).loss
    assert float(loss.detach()) == pytest.approx(least, rel=1e-12)
    for g in torch.autograd.grad(loss, list(model.parameters())):
        close(g, torch.zeros_like(g), rtol=0, atol=1e-10)


def test_training_with_priced_weights_ends_there() -> None:
    """Decoder = encoder transposed, its singular vectors the principal axes, its singular values as foretold."""
    x = rows()
    x = (x - x.mean(0)).float()
    axes, scale, least = priced(x.double(), 0.05)
    model, objective = linear((D,), latent=K, solver="gradient", penalty=Weights(0.05))
    nr.fit(model, objective, x, training=STEPS, quiet=True)
    assert float(objective(model, Batch.of(x)).loss.detach()) == pytest.approx(least, rel=1e-5)
    w1, w2 = matrices(model)
    close(w1, w2.T, rtol=0, atol=2e-3)
    u, s, _ = torch.linalg.svd(w2.double(), full_matrices=False)
    close(s, scale, rtol=2e-3, atol=0)
    close((u.T @ axes).abs(), torch.eye(K, dtype=torch.float64), rtol=0, atol=2e-2)


# ---- as a member of the family ----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["covariance", "randomised"])
def test_a_solved_run_is_kept_read_resumed_and_verified(solver: str, tmp_path: Path) -> None:
    """By the command line: no steps or minutes are foretold, one record is kept, and every figure is found again."""
    run, folder = CliRunner(), str(tmp_path / "run")
    words = ["fit", "digits", "--recipe", "linear", "--latent", "5", "--folder", folder]
    done = run.invoke(app, words + (["--set", f"solver={solver}"] if solver != "covariance" else []))
    assert done.exit_code == 0, done.output
    assert f"solved in closed form ({solver}): nothing to train" in done.output
    assert "steps" not in done.output
    assert "WORSE" not in done.output
    kept = nr.load(folder)
    assert [record["step"] for record in kept.metrics] == [0]
    x = nr.evaluate.inputs(kept.model, kept.data.train).flatten(1)
    mine = (reconstruct(kept.model, kept.data.train).flatten(1) - x).square().sum(1).mean()
    assert float(mine) == pytest.approx(float(eigen(x.double())[0][5:].sum()), rel=1e-5)
    assert kept.plot.curves() is not None
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    done = run.invoke(app, ["fit", "--resume", "--folder", folder, "--quiet"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == weights
    assert len(nr.load(folder).metrics) == 1
    done = run.invoke(app, ["verify", folder, "--rerun"])
    assert done.exit_code == 0, done.output
    assert "DIFFERS" not in done.output


def test_the_face_is_sklearns_pca() -> None:
    """Codes up to sign and reconstructions, in the units of the data; of 19 rows none is held out."""
    from sklearn.decomposition import PCA

    x = rows(19).numpy()
    mine, theirs = nr.LinearAE(latent=K).fit(x), PCA(K)
    scaled = mine.scaling_(torch.from_numpy(x)).double().numpy()
    z = theirs.fit_transform(scaled)
    assert np.allclose(np.abs(mine.transform(x)), np.abs(z), atol=1e-5)
    again = mine.scaling_.undo(theirs.inverse_transform(z))
    assert np.allclose(mine.inverse_transform(mine.transform(x)), again, atol=1e-4)
    assert mine.n_iter_ == 0


def test_every_kind_of_data_gets_a_linear_gaussian_model() -> None:
    """Binary images and large ones too: what a recipe means is not changed by the data."""
    for x in (np.random.default_rng(0).integers(0, 2, (60, 8, 8)), np.random.default_rng(0).random((60, 3, 40, 40))):
        data = nr.data.load(x.astype(np.float32))
        model, objective = linear(**arguments(data, "linear", {"latent": 2}))
        assert isinstance(model.likelihood, Gaussian)
        run = nr.fit(model, objective, data, quiet=True)
        assert run.config["steps"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solver": "covarance"}, "there is no solver 'covarance'; did you mean 'covariance'"),
        ({"penalty": Weights(0.1)}, "solver='covariance' minimises the distortion alone; with a penalty, solver='grad"),
    ],
    ids=["misspelt", "penalty"],
)
def test_what_has_no_closed_form_is_refused_at_once(given: dict[str, Any], message: str) -> None:
    """When the model is built."""
    with pytest.raises(ValueError, match=message):
        linear((D,), latent=2, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": Mlp}, "affine encoder and decoder; this model has a Mlp with more between. Leave network away"),
        ({"likelihood": Bernoulli}, "under a Gaussian and without context; this model has Bernoulli and 0 features"),
        ({"context": 2}, "this model has Gaussian and 2 features of context"),
    ],
    ids=["deep", "bernoulli", "context"],
)
def test_what_is_not_linear_is_refused_before_it_is_solved(given: dict[str, Any], message: str) -> None:
    """Such a model can be built, so that it can be trained by gradient or compared."""
    model, _ = linear((D,), latent=2, **given)
    with pytest.raises(ValueError, match=message):
        model.start(model, nr.data.Rows(rows().float()), None)  # type: ignore[misc]


def test_too_wide_a_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the solver that holds none."""
    monkeypatch.setattr(pca, "WIDEST", 10)
    with pytest.raises(ValueError, match="holds a matrix of 12 x 12 numbers for these 200 .* take solver='randomised'"):
        solved(rows())
    is_optimal(*solved(x := rows(), solver="randomised"), x)


def test_rounding_is_no_verdict() -> None:
    """Two roundings of one map differ in the eighth digit, and with an error that is smaller still."""
    part = {
        "gain": {"reconstruction over pca": (-1e-8, 1e-10), "reconstruction over columns": (1.0, 0.1)},
        "reconstruction": {"model": (0.5, 0.1), "pca": (0.5 - 1e-8, 0.1), "columns": (1.5, 0.1)},
    }
    said = verdict(part, "test", 3, True)
    assert "no clear difference: reconstruction error 0.5 against 0.5 for PCA" in said
    assert "better: reconstruction error 0.5 against 1.5" in said


# ---- canonical axes ---------------------------------------------------------------------------------------------

PLAIN = {"latent": 5, "network": partial(Mlp, hidden=(16, 16))}


def pictures(n: int = 150) -> Tensor:
    """Bits (n, 1, 8, 8), some columns livelier than others."""
    return (torch.rand(n, 1, 8, 8) < torch.linspace(0.05, 0.5, 8)).float()


MEMBERS = {
    "linear": (linear, {"latent": 5, "solver": "gradient"}),
    "deep": (autoencoder, PLAIN),
    "deep, Bernoulli": (autoencoder, {**PLAIN, "likelihood": Bernoulli}),
    "convolutions": (autoencoder, {"latent": 5, "network": partial(Conv, width=4)}),
    "VAE": (vae, PLAIN),
    "convolutional VAE": (vae, {"latent": 5, "network": partial(Conv, width=4)}),
    "held to N(0, I)": (wae_mmd, PLAIN),
    "fitted density": (regularised, PLAIN),
}


@pytest.mark.parametrize("member", MEMBERS)
def test_canonical_axes_change_no_reconstruction(member: str, tmp_path: Path) -> None:
    """To 1e-5, by weights that survive a file; the model given is left as it was."""
    recipe, settings = MEMBERS[member]
    x = pictures()
    model, objective = recipe((1, 8, 8), **settings)
    nr.fit(model, objective, x, training=nr.Training(epochs=2), folder=tmp_path / "run", quiet=True)
    model = nr.load(tmp_path / "run").model
    before = copy.deepcopy(model.state_dict())
    canonical = nr.canonical_latent(model, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not all(torch.equal(before[name], tensor) for name, tensor in canonical.state_dict().items())
    close(reconstruct(canonical, x), reconstruct(model, x), rtol=0, atol=1e-5)
    nr.store.write_tensors(tmp_path / "canonical", canonical.state_dict())
    again = build(canonical.spec)[0].eval()
    again.load_state_dict(nr.store.read_tensors(tmp_path / "canonical")[0])
    close(reconstruct(again, x), reconstruct(model, x), rtol=0, atol=1e-5)
    z = codes(canonical, x).double()
    if member in ("VAE", "convolutional VAE", "held to N(0, I)"):
        was = codes(model, x).double()
        used = nr.evaluate.active_units(canonical, x)
        weight = used.variance if used.rate is None else used.rate
        assert (weight.diff() <= 0).all()
        close(z.abs().sum(0).sort().values, was.abs().sum(0).sort().values)
    else:
        covariance = torch.cov(z.T, correction=0)
        assert (covariance - covariance.diag().diag()).abs().max() < 1e-5 * covariance.max()
        assert (covariance.diag().diff() < 0).all()
        close(z.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-5)


def test_canonical_axes_of_a_linear_model_are_the_principal_ones() -> None:
    """From any mixture of the optimum: codes and weights are those of PCA, signs included."""
    x = rows()
    model, _ = solved(x)
    mixed = copy.deepcopy(model)
    change = torch.randn(K, K, dtype=torch.float64)
    encoder, decoder = mixed.encoder.layers[0], mixed.decoder.layers[0]
    encoder.weight.data, encoder.bias.data = change @ encoder.weight, change @ encoder.bias + 3
    decoder.weight.data = decoder.weight @ change.inverse()
    decoder.bias.data -= decoder.weight.data.sum(1) * 3
    canonical = nr.canonical_latent(mixed, x)
    close(codes(canonical, x), codes(model, x), rtol=0, atol=1e-9)
    for mine, theirs in zip(matrices(canonical), matrices(model), strict=True):
        close(mine, theirs, rtol=0, atol=1e-9)


def test_twice_canonical_is_canonical() -> None:
    """There is nothing left to choose."""
    x = pictures()
    once = nr.canonical_latent(autoencoder((1, 8, 8), **PLAIN)[0], x)
    twice = nr.canonical_latent(once, x)
    close(codes(twice, x), codes(once, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("prior", [MultivariateGaussian, partial(GaussianMixture, components=3)], ids=["one", "three"])
def test_a_fitted_prior_moves_along(prior: Callable) -> None:
    """log p(z') = log p(z) - log |det A| with one constant for all rows: it is the same density over x."""
    x = pictures()
    model, _ = autoencoder((1, 8, 8), **PLAIN, prior=prior)
    nr.fit_prior(model, x)
    model.double()
    x = x.double()
    canonical = nr.canonical_latent(model, x)
    change = codes(canonical, x) - codes(canonical, x).mean(0)
    a = torch.linalg.lstsq(codes(model, x) - codes(model, x).mean(0), change).solution  # z' = z A
    was, now = model.prior().log_prob(codes(model, x)), canonical.prior().log_prob(codes(canonical, x))
    close(now, was - a.det().abs().log(), rtol=0, atol=1e-6)


def test_units_that_the_decoder_does_not_read_cost_no_reconstruction() -> None:
    """A unit with weights of exactly and of nearly zero, and one that never moves."""
    x = pictures()
    model, _ = autoencoder((1, 8, 8), **PLAIN)
    with torch.no_grad():
        model.decoder.layers[0].weight[:, 1] = 0
        model.decoder.layers[0].weight[:, 2] *= 1e-7
        model.encoder.layers[-1].weight[3] = 0
    canonical = nr.canonical_latent(model, x)
    close(reconstruct(canonical, x), reconstruct(model, x), rtol=0, atol=1e-5)


def test_own_networks_get_a_layer_of_their_own() -> None:
    """And have no description, since no file can name them."""
    x = pictures()
    encoder, decoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 64))
    model = Autoencoder(encoder, Deterministic(3), decoder, Gaussian((1, 8, 8)))
    canonical = nr.canonical_latent(model, x)
    close(reconstruct(canonical, x), reconstruct(model, x), rtol=0, atol=1e-5)
    covariance = torch.cov(codes(canonical, x).T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-5 * covariance.max()
    assert canonical.spec is None


def test_axes_that_cannot_be_changed_are_left_alone() -> None:
    """A fixed prior other than N(0, I), a posterior that a linear layer cannot turn, a single row."""
    x = pictures()
    with pytest.raises(TypeError, match="and not within Pinwheel, whose axes are fixed"):
        nr.canonical_latent(wae_mmd((1, 8, 8), latent=2, prior=Pinwheel)[0], x)
    with pytest.raises(ValueError, match="takes at least 2 rows; got 1"):
        nr.canonical_latent(autoencoder((1, 8, 8), **PLAIN)[0], x[:1])

    class Own(Deterministic):
        pass

    model, _ = autoencoder((1, 8, 8), **PLAIN)
    model.posterior = Own(5)
    with pytest.raises(TypeError, match="this model's posterior is Own"):
        nr.canonical_latent(model, x)


def test_the_start_is_described_by_its_solver() -> None:
    """`build` gives the same start, a copy keeps it, and training by gradient has none."""
    model, _ = linear((D,), latent=2, solver="svd")
    assert build(model.spec)[0].start == copy.deepcopy(model).start == Components("svd")
    assert linear((D,), latent=2, solver="gradient")[0].start is None


@pytest.mark.parametrize(
    ("solver", "works"),
    [
        ("covariance", ["baldi1989neural"]),
        ("randomised", ["baldi1989neural", "halko2011finding"]),
        ("gradient", ["baldi1989neural", "kingma2015adam"]),
    ],
)
def test_who_thought_of_it(solver: str, works: list[str]) -> None:
    """An optimiser is cited where there is one."""
    found = cite(linear((D,), latent=2, solver=solver)[0].spec)
    assert [entry.split("{")[1].split(",")[0] for entry in found] == works
