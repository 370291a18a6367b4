"""Codes of codewords: the quantisers against written-out updates, enumeration, and vector-quantize-pytorch."""

import copy
import itertools
import math
import multiprocessing
import os
import socket
from functools import partial

import pytest
import torch
from torch.nn import functional

import narrows as nr
from narrows import draws, evaluate, tasks
from narrows.contract import Batch
from narrows.networks import Grid, Mlp
from narrows.objectives import Objective, iwae
from narrows.posteriors import FSQ, Gaussian, Quantised
from narrows.posteriors.quantised import nearest, rotated
from narrows.priors import Codewords, StandardNormal
from narrows.training import alarms

SMALL = {"network": partial(Mlp, hidden=(8,))}


def double(**settings):
    """A quantiser of vectors with two units in 5 places, 7 codewords, in training mode."""
    several = settings.get("levels", 1) * settings.get("groups", 1)
    grid = (5,) if several == 1 else (5, several)
    return Quantised(Codewords(grid, 7), 2, **settings).double()


def vectors(q, h):
    """What the posterior makes of a map: its vectors (n, width)."""
    return h.transpose(1, 2).reshape(-1, q.width)


# ---- the equation -----------------------------------------------------------------------------------------------


def test_the_bound_is_below_the_evidence_by_enumeration():
    """log p(x) = logsumexp over all codes of log p(x|z) + log p(index), with a prior that has learned."""
    for name, sizes in (("vqvae", {"codebook": 3, "latent": 2}), ("fsq", {"levels": (3, 2), "latent": 2})):
        model, objective = getattr(nr.recipes, name)((6,), grid=(2, 2), **sizes, **SMALL)
        model = model.double().eval()
        k = model.posterior.codebook
        model.prior.fit(torch.randint(k, (50, 2, 2)))
        x = torch.randint(2, (8, 6)).double()
        every = torch.tensor(list(itertools.product(range(k), repeat=4))).view(-1, 2, 2)
        z = model.posterior.embed(every)
        log_p = model.prior().log_prob(every)
        assert math.isclose(float(log_p.exp().sum()), 1, rel_tol=1e-9)
        joint = model.likelihood(model.decoder(z[:, None].expand(-1, 8, -1).flatten(0, 1))).log_prob(
            x.repeat(len(z), 1)
        )
        evidence = (joint.view(len(z), 8) + log_p[:, None]).logsumexp(0)
        bound = objective(model, Batch.of(x)).bound
        assert (bound < evidence).all()
        index = model.encode(x).index
        chosen = (every[:, None] == index).flatten(2).all(2).double().argmax(0)  # of each row, among all codes
        torch.testing.assert_close(bound, (joint.view(len(z), 8) + log_p[:, None])[chosen, torch.arange(8)])
        torch.testing.assert_close(model.prior().each(index).flatten(1), -model.encode(x).rates)
        found = evaluate.log_likelihood(model.float(), x.float(), samples=50)
        assert found.samples == 1
        torch.testing.assert_close(found.values, bound, rtol=1e-5, atol=1e-5)


def test_draws_of_the_prior_have_its_frequencies():
    """Counts and one more; 10,000 draws, each place within 5 standard errors (12 shares: failure 1e-5; seed 0)."""
    prior = Codewords((2, 2), 3)
    seen = torch.randint(3, (20, 2, 2)).clamp_max(1)
    prior.fit(seen)
    each = prior().each(seen[:5])
    for row, i, j in itertools.product(range(5), range(2), range(2)):
        share = (1 + (seen[:, i, j] == seen[row, i, j]).sum()) / 23
        torch.testing.assert_close(each[row, i, j].exp(), share)
    drawn = prior().sample((100, 100))
    assert drawn.shape == (100, 100, 2, 2)
    share = functional.one_hot(drawn, 3).double().mean((0, 1))
    p = prior().log_p.exp()
    assert ((share - p).abs() < 5 * (p * (1 - p) / 10_000).sqrt()).all()


@pytest.mark.parametrize("decay", [0.99, None])
def test_penalties_are_per_example(decay):
    """Twice the rows, the same terms; the sum over places and units of the squared distances."""
    model, objective = nr.recipes.vqvae((6,), latent=2, grid=(4,), codebook=5, decay=decay, commitment=0.3, **SMALL)
    x = torch.rand(3, 6).round()
    q = model.posterior
    h, before = vectors(q, model.hidden(x)), q.vectors.detach().clone()
    index = nearest(h, before[0])
    expected = (h - before[0][index]).square().view(3, -1).sum(1) * (0.3 + (decay is None))
    twin = copy.deepcopy(model)
    once, twice = objective(model, Batch.of(x)), objective(twin, Batch.of(x.repeat(2, 1)))
    torch.testing.assert_close(once.penalty, expected)
    torch.testing.assert_close(twice.penalty, expected.repeat(2))
    torch.testing.assert_close(once.loss, twice.loss)


def test_gradients_of_both_penalties():
    """2 beta (h - e) to the encoder; 2 (e - sum of h) to the codewords that learn by loss, nothing from the decoder."""
    q = double(decay=None, commitment=0.3)
    h = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    code = q(h)
    code.penalty.sum().backward()
    e = code.z.detach().view(3, 2, 5)
    torch.testing.assert_close(h.grad, 0.6 * (h.detach() - e))
    v, index = vectors(q, h).detach(), code.index.flatten()
    expected = torch.stack([(2 * (q.vectors[0, k] - v[index == k])).sum(0) for k in range(7)])
    torch.testing.assert_close(q.vectors.grad[0], expected.detach())
    q.vectors.grad = None
    (q(h).z ** 2).sum().backward()
    assert q.vectors.grad is None or not q.vectors.grad.any()


# ---- gradients through a choice ---------------------------------------------------------------------------------


def test_straight_through_is_the_decoders_gradient():
    """And the value is the codeword to the last bit."""
    for q in (double().eval(), FSQ(Codewords((5,), 12), (4, 3)).double().eval()):
        h = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
        code, slope = q(h), torch.randn(3, 2, 5, dtype=torch.float64)
        assert torch.equal(code.z, q.embed(code.index))
        (got,) = torch.autograd.grad((code.z.view_as(slope) * slope).sum(), h)
        if isinstance(q, FSQ):  # the bound has a slope of its own, and levels are 1 / floor(L / 2) apart
            seen = q.within(vectors(q, h)) / torch.tensor([2.0, 1.0])
            (slope,) = torch.autograd.grad((seen * vectors(q, slope)).sum(), h)
        torch.testing.assert_close(got, slope)


def test_the_rotation_takes_h_to_its_codeword():
    """The map |e|/|v| R, with R a rotation by construction, written out as a matrix for each vector."""
    torch.manual_seed(3)
    v, e = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    v.requires_grad_()
    slope = torch.randn(4, 3, dtype=torch.float64)
    z = rotated(v, e)
    assert torch.equal(z, e)
    (got,) = torch.autograd.grad((z * slope).sum(), v)
    for i in range(4):
        a, b = functional.normalize(v[i].detach(), dim=0), functional.normalize(e[i], dim=0)
        axis, sine, cosine = torch.linalg.cross(a, b), torch.linalg.cross(a, b).norm(), a @ b
        k = axis / sine
        cross = torch.tensor([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
        r = torch.eye(3).double() + sine * cross + (1 - cosine) * cross @ cross  # Rodrigues' formula
        scaled = e[i].norm() / v[i].norm() * r
        torch.testing.assert_close(scaled.detach() @ v[i].detach(), e[i])
        torch.testing.assert_close(got[i], (scaled.T @ slope[i]).detach())
    q = double(rotation=True).eval()
    h = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    code = q(h)
    assert torch.equal(code.z, q.embed(code.index))


# ---- the codebook -----------------------------------------------------------------------------------------------


def test_moving_averages_against_the_written_update():
    """Equations 6 to 8 of van den Oord et al.; three steps, and none in evaluation, without gradients or draws."""
    q, gamma = double(decay=0.9), 0.9
    count, sums, e = torch.ones(7).double(), q.vectors[0].clone(), q.vectors[0].clone()
    for _ in range(3):
        h = torch.randn(4, 2, 5, dtype=torch.float64)
        v = vectors(q, h)
        index = torch.cdist(v, e).argmin(1)
        n = torch.bincount(index, minlength=7).double()
        m = torch.stack([v[index == k].sum(0) for k in range(7)])
        count, sums = gamma * count + (1 - gamma) * n, gamma * sums + (1 - gamma) * m
        code = q(h)
        torch.testing.assert_close(vectors(q, code.z.view(4, 2, 5)), e[index])
        e = sums / count[:, None]
        torch.testing.assert_close(q.vectors[0], e)
        torch.testing.assert_close(q.count[0], count)
    state = copy.deepcopy(q.state_dict())
    q(h, draw=False)
    with torch.no_grad():
        q(h)
    q.eval()(h, samples=3)
    assert all(torch.equal(t, state[name]) for name, t in q.state_dict().items())
    assert 1 <= float(q.perplexity) <= 7


def test_residual_and_product_quantisers():
    """Each level takes what is left, each group its part; all are what one quantiser after the other finds."""
    h = torch.randn(4, 2, 5, dtype=torch.float64)
    q = double(levels=3, commitment=1.0).eval()
    left, v, penalty = vectors(q, h), vectors(q, h), 0
    code = q(h)
    for level in range(3):
        e = q.vectors[level][torch.cdist(left, q.vectors[level]).argmin(1)]
        left = left - e
        penalty = penalty + left.square().sum(1)
    torch.testing.assert_close(vectors(q, code.z.view(4, 2, 5)), v - left)
    torch.testing.assert_close(code.penalty, penalty.view(4, -1).sum(1))
    assert code.index.shape == (4, 5, 3)
    assert code.rates.shape == (4, 15)
    p = double(groups=2).eval()
    z = vectors(p, p(h).z.view(4, 2, 5))
    for group in range(2):
        e = p.vectors[group][torch.cdist(v[:, group, None], p.vectors[group]).argmin(1)]
        torch.testing.assert_close(z[:, group, None], e)


def test_a_codeword_out_of_use_is_revived_by_the_batch():
    """After so many steps, with averages of its own; the same for the same noise; before the batch chooses."""
    q = double(revive=3, decay=0.9)
    q.vectors[0, 4:], q.sums[0, 4:] = 1e3, 1e3
    h = torch.randn(40, 2, 5, dtype=torch.float64)
    for step in range(3):
        with draws.seeded(0, step):
            q(h)
        torch.testing.assert_close(q.vectors[0, 4:], torch.full((3, 2), 1e3).double())
    assert (q.idle[0, 4:] == 3).all()
    twin = copy.deepcopy(q)
    for one in (q, twin):
        with draws.seeded(0, 3):
            found = draws.some(7, vectors(q, h))
        with draws.seeded(0, 3):
            index = one(h).index
    assert torch.equal(q.vectors, twin.vectors)
    assert ((found[4:, None] == vectors(q, h)).all(2).sum(1) == 1).all()  # they are vectors of the batch
    assert {4, 5, 6} <= set(index.flatten().tolist())
    n = torch.bincount(index.flatten(), minlength=7)[4:].double()
    m = torch.stack([vectors(q, h)[index.flatten() == k].sum(0) for k in (4, 5, 6)])
    expected = (0.9 * found[4:] + 0.1 * m) / (0.9 + 0.1 * n)[:, None]
    torch.testing.assert_close(q.vectors[0, 4:], expected)
    never = double(revive=None)
    never.vectors[0, 4:], never.sums[0, 4:] = 1e3, 1e3
    for _ in range(3):
        never(h)
    torch.testing.assert_close(never.vectors[0, 4:], torch.full((3, 2), 1e3).double())


def test_training_starts_from_k_means_of_its_rows_once():
    """Four clusters are found; a codebook that has begun is left alone; a look before training moves nothing."""
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    x = (centres[torch.arange(200) % 4] + 0.1 * torch.randn(200, 2)).float()
    likelihood = partial(nr.likelihoods.Gaussian, sigma=1.0)
    model, objective = nr.recipes.vqvae((2,), latent=2, codebook=4, likelihood=likelihood)
    model.encoder = torch.nn.Identity()
    before = copy.deepcopy(model.state_dict())
    alarms.before(model, objective, nr.data.rows(x), 50)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    with draws.seeded(2):
        assert not model.start(model, nr.data.rows(x), None)
    found = model.posterior.vectors[0]
    assert (torch.cdist(centres, found).min(1).values < 0.1).all()
    kept = found.clone()
    model.start(model, nr.data.rows(x), None)
    assert torch.equal(model.posterior.vectors[0], kept)


def trained(rank=0, size=1, port=0, out=None):
    """The codebook of a small run, in this process or as one of several; batches of 23 and a last one of one row."""
    if size > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
    x = torch.rand(70, 12, generator=torch.Generator().manual_seed(0)).round().double()
    model, objective = nr.recipes.vqvae((12,), latent=2, grid=(3,), codebook=16, **SMALL)
    model.posterior.revive = 2
    nr.fit(model.double(), objective, x, training=nr.Training(epochs=4, batch=23, check=4), quiet=True)
    if rank == 0 and out is not None:
        nr.store.write_tensors(out, model.state_dict(), {})
    return model.state_dict()


def test_two_processes_have_the_codebook_of_one(tmp_path):
    """float64, so sums differ by rounding; of the last batch of an epoch one process has no row."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "narrows.training"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "two.safetensors"
    processes = [context.Process(target=trained, args=(rank, 2, port, out)) for rank in range(2)]
    for process in processes:
        process.start()
    one = trained()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    two = nr.store.read_tensors(out)[0]
    assert one["posterior.vectors"].shape == (1, 16, 2)
    assert (one["posterior.count"] != 1).any()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-7, atol=1e-9)


def test_resuming_is_bit_exact(tmp_path):
    """Averages, counts and idle steps go on where they stood."""
    x = torch.rand(60, 6).round()

    def train(folder, epochs, resume=False):
        model, objective = nr.recipes.vqvae((6,), latent=2, grid=(3,), codebook=8, **SMALL)
        settings = nr.Training(epochs=epochs, batch=20, check=3)
        return nr.fit(model, objective, x, training=settings, folder=folder, resume=resume, quiet=True)

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "cut", 2)
    again = train(tmp_path / "cut", 4, resume=True)
    for name, t in whole.model.state_dict().items():
        assert torch.equal(t, again.model.state_dict()[name]), name
    assert {"perplexity", "used"} <= set(again.metrics[-1])
    assert 1 <= again.metrics[-1]["perplexity"] <= 8


# ---- finite scalars ---------------------------------------------------------------------------------------------


def test_finite_scalars_by_enumeration():
    """Every index once, its vector the nearest point of the grid; rounding is to the nearest level."""
    levels = (4, 3, 5)
    q = FSQ(Codewords((1,), 60), levels).double().eval()
    every = q.embed(torch.arange(60)[:, None])
    values = [[(i - n // 2) / (n // 2) for i in range(n)] for n in levels]
    expected = {tuple(p) for p in itertools.product(*values)}
    assert {tuple(row) for row in every.tolist()} == expected
    h = 2 * torch.randn(5000, 3, dtype=torch.float64)
    code = q(h)
    bounded = q.within(h) / torch.tensor([2.0, 1.0, 2.0])
    steps = torch.tensor([2.0, 1.0, 2.0])  # levels are equally far apart in these
    assert torch.equal(code.index[:, 0], torch.cdist(bounded * steps, every * steps).argmin(1))
    assert len(code.index.unique()) == 60
    assert not q(torch.zeros(1, 3, dtype=torch.float64)).z.any()
    wide = q(torch.full((1, 3), 50.0, dtype=torch.float64)).z
    torch.testing.assert_close(wide, torch.tensor([[0.5, 1.0, 1.0]]).double())


# ---- vector-quantize-pytorch ------------------------------------------------------------------------------------


def test_outputs_are_those_of_vector_quantize_pytorch():
    """Index, vectors and the codebook after two steps of moving averages; without their smoothing of counts."""
    theirs = pytest.importorskip("vector_quantize_pytorch").VectorQuantize(
        dim=6, codebook_size=20, decay=0.9, eps=1e-12, threshold_ema_dead_code=0, commitment_weight=1.0
    )
    ours = Quantised(Codewords((10,), 20), 6, decay=0.9, revive=None)
    ours.vectors.copy_(theirs._codebook.embed)
    ours.sums.copy_(theirs._codebook.embed_avg)
    ours.count.copy_(theirs._codebook.cluster_size)
    for _ in range(2):
        h = torch.randn(4, 6, 10)
        z, index, _ = theirs(h.transpose(1, 2))
        code = ours(h)
        assert torch.equal(index, code.index)
        torch.testing.assert_close(code.z.view(4, 6, 10).transpose(1, 2), z)
        torch.testing.assert_close(ours.vectors, theirs._codebook.embed)
        torch.testing.assert_close(ours.count, theirs._codebook.cluster_size)


def test_gradients_are_those_of_vector_quantize_pytorch():
    """Straight-through and rotated, at the same codebook."""
    library = pytest.importorskip("vector_quantize_pytorch")
    for rotation in (False, True):
        theirs = library.VectorQuantize(dim=6, codebook_size=20, rotation_trick=rotation).double().eval()
        ours = Quantised(Codewords((10,), 20), 6, rotation=rotation).double().eval()
        ours.vectors.copy_(theirs._codebook.embed)
        theirs._codebook.ema_update, theirs._codebook.has_dead_code_replacement = False, False
        theirs.train()
        h, slope = torch.randn(2, 4, 6, 10, dtype=torch.float64).unbind()
        h.requires_grad_()
        (expected,) = torch.autograd.grad((theirs(h.transpose(1, 2))[0].transpose(1, 2) * slope).sum(), h)
        (got,) = torch.autograd.grad((ours(h).z.view_as(h) * slope).sum(), h)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_finite_scalars_are_those_of_vector_quantize_pytorch():
    """Index and vectors, odd and even levels."""
    levels = (8, 5, 4, 3)
    theirs = pytest.importorskip("vector_quantize_pytorch").FSQ(list(levels))
    ours = FSQ(Codewords((9,), math.prod(levels)), levels).eval()
    h = torch.randn(50, 4, 9)
    z, index = theirs(h.transpose(1, 2))
    code = ours(h)
    torch.testing.assert_close(code.z.view(50, 4, 9).transpose(1, 2), z)
    assert torch.equal(code.index, index.long())


# ---- networks, and what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("image", "grid"), [((1, 28, 28), (7, 7)), ((3, 32, 48), (4, 6)), ((1, 8, 8), (8, 8))])
def test_a_grid_sees_patches_and_nothing_else(image, grid):
    """Shapes there and back, and another context gives another map everywhere."""
    encoder, decoder = Grid(image, (5, *grid), 2, width=4), Grid((5, *grid), (2, *image), 2, width=4)
    x, c = torch.rand(3, *image), torch.zeros(3, 2)
    z = encoder(x, c)
    assert z.shape == (3, 5, *grid)
    assert decoder(z.flatten(1), c).shape == (3, 2, *image)
    assert (encoder(x, c + 1) != z).any(1).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Quantised(StandardNormal(2), 2), TypeError, "takes a prior over codewords. Wrong: .* right:"),
        (lambda: nr.recipes.vqvae((4,), prior=StandardNormal), TypeError, "StandardNormal cannot be the prior here"),
        (lambda: nr.recipes.vae((4,), prior=Codewords), TypeError, "Codewords cannot be the prior here"),
        (lambda: nr.recipes.vqvae((4,), commitment=0), ValueError, "above 0, such as 0.25; got commitment=0"),
        (lambda: nr.recipes.vqvae((4,), decay=1.0), ValueError, "between 0 and 1, .* got decay=1.0"),
        (lambda: Quantised(Codewords((1,), 4), 2, revive=0), ValueError, "of at least 1, or None .* got revive=0"),
        (lambda: nr.recipes.vqvae((4,), levels=2, groups=2), ValueError, "and not both; got levels=2, groups=2"),
        (lambda: nr.recipes.vqvae((4,), latent=5, groups=2), ValueError, "equal parts; got latent=5, groups=2"),
        (
            lambda: Quantised(Codewords((3, 3), 4), 2, levels=2),
            ValueError,
            r"2 codewords of a place; got grid=\(3, 3\)",
        ),
        (lambda: nr.recipes.vqvae((4,), codebook=1), ValueError, "at least 2 to choose from; got .* codebook=1"),
        (lambda: nr.recipes.fsq((4,), levels=(3, 1), latent=2), ValueError, "at least 2 levels"),
        (lambda: nr.recipes.fsq((4,), levels=(3, 3)), ValueError, r"latent=4, for levels=\(3, 3\)"),
        (
            lambda: Objective(bound=iwae, rate="sampled").check(nr.recipes.fsq((4,))[0]),
            TypeError,
            "draws are all the same",
        ),
        (lambda: nr.recipes.vqvae((4,), network=Grid), ValueError, r"maps images .* got \(4,\) -> \(64,\)"),
        (
            lambda: nr.recipes.vqvae((1, 30, 45), network=Grid, grid=(8, 12)),
            ValueError,
            "images of 30 x 45 are not divisible by 4, .* use --size 32x48",
        ),
        (
            lambda: Grid((1, 32, 32), (4, 16, 8)),
            ValueError,
            r"none leads from 32 x 32 to a grid of 16 x 8: take grid=\(8",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_codebook_larger_than_the_data_is_refused():
    """Before the first step, with what to take."""
    x = torch.rand(50, 6)
    model, objective = nr.recipes.vqvae((6,), latent=2, grid=(3,), likelihood=nr.likelihoods.Gaussian)
    with pytest.raises(ValueError, match=r"512 codewords learns .* there are 150 \(50 rows of 3\): take codebook=9"):
        nr.fit(model, objective, x, quiet=True)


def test_usage_is_counted_and_said():
    """A codebook of which most is never used: counts, perplexity, the alarm with its remedy."""
    model, _ = nr.recipes.vqvae((6,), latent=2, grid=(8,), codebook=8, **SMALL)
    x = torch.rand(100, 6).round()
    model.posterior.vectors[0, 2:] = 1e3
    found = evaluate.usage(model, x)
    assert found.counts.sum() == 800
    p = found.counts[0, :2].double() / 800
    assert math.isclose(found.perplexity, math.exp(-float(torch.special.xlogy(p, p).sum())), rel_tol=1e-9)
    assert found.used == (found.counts > 0).sum() / 8 <= 0.25
    (said,) = alarms.dead(model, nr.data.rows(x))
    assert "of 8 codewords are used by 100 training rows" in said or said == alarms.ONE_CODEWORD
    assert "--set" in said
    assert alarms.after(model, nr.data.rows(x)) == []
    assert not alarms.collapsed(model, nr.data.rows(x), 0.0)
    model.posterior.vectors[0, 1:] = 1e3
    assert alarms.dead(model, nr.data.rows(x)) == [alarms.ONE_CODEWORD]
    assert evaluate.active_units(model, x).by_rate is None
    with pytest.raises(TypeError, match="Use active_units, or recipe vqvae"):
        evaluate.usage(nr.recipes.vae((6,), latent=2)[0], x)


def test_walks_through_codewords():
    """Straight lines are decoded; what needs codes in between is refused with what to do."""
    model, _ = nr.recipes.vqvae((6,), latent=2, grid=(3,), codebook=5, **SMALL)
    x = torch.rand(2, 6).round()
    assert tasks.interpolate(model, x, steps=4).shape == (4, 6)
    with pytest.raises(TypeError, match="there is none on the way between two"):
        tasks.interpolate(model, x, path="density")
    with pytest.raises(TypeError, match="between two codewords there is no code"):
        tasks.traverse(model, x)
    with pytest.raises(TypeError, match="a choice among classes, which has none"):
        evaluate.refine(model, x)
    with pytest.raises(TypeError, match="is a prior over classes, and this code is made of numbers"):
        Gaussian(Codewords((2,), 3))
