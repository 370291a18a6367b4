"""VQ-VAE-2: codewords on several grids, by enumeration and against what is written out."""

import itertools
import math
from functools import partial

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

import narrows as nr
from narrows import evaluate, tasks
from narrows.contract import Batch
from narrows.models import Ladder
from narrows.networks import Mlp
from narrows.posteriors import Gaussian, QuantisedRungs
from narrows.priors import CodewordRungs, Codewords, PixelCNN, StandardNormal, Transformer

close = torch.testing.assert_close
SMALL = {"network": partial(Mlp, hidden=(8,)), "latent": 2}
KINDS = [
    (partial(PixelCNN, width=4, layers=2), ((2, 1), (2, 2)), 3),
    (partial(PixelCNN, width=4, layers=2), ((1, 2), (1, 3)), 3),  # the one is no multiple of the other
    (partial(Transformer, width=4, layers=1, heads=2), ((2,), (3,)), 3),
    (Codewords, ((2,), (3,)), 3),
]
every = pytest.mark.parametrize(
    ("kind", "grids", "codebook"), KINDS, ids=["PixelCNN", "PixelCNN-odd", "Transformer", "Codewords"]
)


def made(kind, grids, codebook: int, context: int = 0) -> CodewordRungs:
    """A prior in float64 whose weights are large: as if fitted to something."""
    prior = CodewordRungs(grids, codebook, context, kind).double()
    for part in prior.parts:
        if isinstance(part, Codewords):
            part.logits.normal_()
        else:
            part.fitted = True
            part.learned.fill_(True)
    for weight in prior.parameters():
        weight.normal_(0, 0.8)
    return prior


def everything(prior: CodewordRungs) -> Tensor:
    """All codes, (codebook ** places, places)."""
    return torch.tensor(list(itertools.product(range(prior.codebook), repeat=prior.grid[0])))


@every
@pytest.mark.parametrize("context", [0, 2])
def test_probabilities_of_all_codes_sum_to_one(kind, grids, codebook: int, context: int) -> None:
    """By enumeration, and so do those of each rung given the ones above; `each` sums to log_prob."""
    prior = made(kind, grids, codebook, context)
    codes, told = everything(prior), torch.randn(1, 2, dtype=torch.float64) if context else None
    p = prior(told)
    log_p = p.log_prob(codes)
    close(log_p.exp().sum(), torch.ones((), dtype=torch.float64))
    close(p.each(codes).sum(1), log_p)
    tops = p.each(codes).split(prior.places, 1)
    alone = tops[-1].sum(1).exp().view(-1, codebook ** prior.places[-1])  # of the finest, for each code above it
    close(alone.sum(1), torch.ones_like(alone[:, 0]))
    assert torch.allclose(alone[0], alone[1]) == (kind is Codewords)  # it is told what is above, and reads it


@pytest.mark.parametrize(("kind", "grids", "codebook"), KINDS[::2], ids=["PixelCNN", "Transformer"])
def test_draws_are_as_frequent_as_probable(kind, grids, codebook: int) -> None:
    """Pearson's chi-square over all 729 or 243 codes, 20,000 draws, rejected with probability 1e-6 (seed 7)."""
    prior = made(kind, grids, codebook)
    codes = everything(prior)
    torch.manual_seed(7)
    drawn = prior().sample((20_000,))
    number = (drawn * codebook ** torch.arange(drawn.shape[1] - 1, -1, -1)).sum(1)
    seen, expected = torch.bincount(number, minlength=len(codes)), 20_000 * prior().log_prob(codes).exp()
    rare = expected < 5  # together
    seen, expected = (torch.cat([t[~rare], t[rare].sum(0, keepdim=True)]).double() for t in (seen, expected))
    keep = expected > 0
    assert ((seen - expected).square() / expected)[keep].sum() < chi2.isf(1e-6, int(keep.sum()) - 1)


def test_a_fit_finds_what_the_coarse_says_of_the_fine() -> None:
    """Fine codewords that repeat the coarse one above them: all they cost is the coarse one's nats."""
    torch.manual_seed(0)
    top = torch.randint(4, (1000, 2, 2))
    fine = top.repeat_interleave(2, 1).repeat_interleave(2, 2)
    prior = CodewordRungs(((2, 2), (4, 4)), 4, prior=partial(PixelCNN, width=16, layers=1, steps=250))
    prior.fit(torch.cat([top.flatten(1), fine.flatten(1)], 1))
    rate = -prior().each(torch.cat([top.flatten(1), fine.flatten(1)], 1)).mean(0)
    assert abs(float(rate[:4].sum()) - 4 * math.log(4)) < 0.05
    assert float(rate[4:].sum()) < 0.5  # alone it would be four times log 4 again
    drawn = prior().sample((100,))
    again = drawn[:, :4].view(-1, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    assert float((drawn[:, 4:] == again).double().mean()) > 0.98


def member(kind=Codewords, codebook: int = 3) -> nr.recipes.Parts:
    model, objective = nr.recipes.vqvae2((6,), grid=((1,), (2,)), codebook=codebook, prior=kind, **SMALL)
    return model.double().eval(), objective


def test_the_bound_is_below_the_evidence_by_enumeration() -> None:
    """log p(x) = logsumexp over all codes of log p(x|z) + log p(index); the bound is the term of the chosen one."""
    model, objective = member()
    model.prior.fit(torch.randint(3, (50, 3)))
    x, codes = torch.randint(2, (8, 6)).double(), everything(model.prior)
    joint = torch.stack([model.decode(model.posterior.embed(k[None])).log_prob(x) for k in codes])
    joint = joint + model.prior().log_prob(codes)[:, None]
    code = model(x).code
    found = objective(model, Batch.of(x)).bound
    assert (found < joint.logsumexp(0)).all()
    chosen = (codes[:, None] == code.index).all(2).double().argmax(0)
    close(found, joint[chosen, torch.arange(8)])
    close(model.posterior.embed(code.index), code.z)
    close(model(x).px.log_prob(x), model.decode(code.z).log_prob(x))  # on the way down and from the code alone
    assert isinstance(model, Ladder)
    close(model.by_rung(code.rates).sum(1), code.rate)
    close(evaluate.rate_by_rung(model, x).sum(1), code.rate)


def test_each_rung_is_the_nearest_to_what_the_ones_above_leave() -> None:
    """The written-out way down of images: up by the networks, nearest, down, both looked at together."""
    model, _ = nr.recipes.vqvae2((1, 8, 8), grid=((2, 2), (4, 4)), codebook=5, latent=3, network=nr.networks.Grid)
    q = model.double().eval().posterior
    h = model.hidden(torch.rand(4, 1, 8, 8).double())
    top = q.up[0](h.relu())

    def chosen(v: Tensor, vectors: Tensor) -> Tensor:  # (B, 3, h, w) -> (B, h, w)
        return torch.cdist(v.movedim(1, -1).flatten(1, 2), vectors).argmin(-1).view(len(v), *v.shape[2:])

    first = chosen(top, q.each[0].vectors[0])
    down = q.down[0](q.each[0].vectors[0][first].movedim(-1, 1))
    look = nn.functional.conv2d(torch.cat([h, down], 1), q.look[0].weight[..., None, None], q.look[0].bias)
    second = chosen(look, q.each[1].vectors[0])
    code, state = q.descend(h)
    assert torch.equal(code.index, torch.cat([first.flatten(1), second.flatten(1)], 1))
    close(state, torch.cat([down, q.each[1].vectors[0][second].movedim(-1, 1)], 1))
    with torch.no_grad():
        close(code.penalty, q.train().descend(h)[0].penalty)  # the same vectors, before they learn
    distance = [
        0.25 * (v - e).square().flatten(1).sum(1)
        for v, e in (
            (top, q.each[0].vectors[0][first].movedim(-1, 1)),
            (look, q.each[1].vectors[0][second].movedim(-1, 1)),
        )
    ]
    close(code.penalty, sum(distance))


def test_codebooks_start_from_the_top_down_and_learn() -> None:
    """K-means of each rung's own vectors, given the codewords above it; then moving averages of both."""
    model, objective = nr.recipes.vqvae2(
        (1, 8, 8), grid=((2, 2), (4, 4)), codebook=5, latent=3, network=nr.networks.Grid
    )
    x = torch.rand(40, 1, 8, 8).round()
    before = [part.vectors.clone() for part in model.posterior.parts]
    run = nr.fit(model, objective, x, training=nr.Training(epochs=2, batch=20), quiet=True)
    for part, old in zip(model.posterior.parts, before, strict=True):
        assert part.began
        assert not torch.equal(part.vectors, old)
        assert not torch.allclose(part.vectors, part.sums)  # counts are no longer 1
    assert {"perplexity", "used"} <= set(run.metrics[-1])
    assert len(run.metrics[-1]["train"]["rungs"]) == 2
    used = evaluate.usage(model, x)
    assert used.counts.sum(1).tolist() == [160, 640]
    assert model.posterior.count.shape == (2, 5)


def test_kept_rungs_stay_and_the_others_are_drawn() -> None:
    """All kept is the reconstruction; the top kept is the top of every draw."""
    model, _ = member(codebook=5)
    x = torch.randint(2, (20, 6)).double()
    close(tasks.redraw(model, x, keep=2)[0], evaluate.reconstruct(model, x))
    z = model.encode(x).z
    drawn = model.posterior.redrawn(z, 1)
    close(drawn[:, :2], z[:, :2])
    assert not torch.equal(drawn, z)
    assert tasks.redraw(model, x, keep=0, n=3).shape == (3, 20, 6)
    with pytest.raises(ValueError, match="there are 2 rungs, of which 0 to all can be kept; got keep=3"):
        tasks.redraw(model, x, keep=3)
    with pytest.raises(TypeError, match="codewords have no width that a temperature could change"):
        tasks.redraw(model, x, keep=1, temperature=0.7)


def test_priors_are_fitted_afterwards_and_described() -> None:
    """`fit_prior` by class wraps it for all grids; the description brings it back; another model's is refused."""
    model, objective = nr.recipes.vqvae2((6,), grid=((1,), (2,)), codebook=3, **SMALL)
    x = torch.rand(200, 6).round()
    nr.fit(model, objective, x, training=nr.Training(epochs=2), quiet=True)
    counted = float(evaluate.distortion_rate(model, x)[1].mean())
    assert counted < 3 * math.log(3)  # counted after training, of itself
    nr.fit_prior(model, x, partial(Transformer, width=8, layers=1, heads=2, steps=20))
    assert [type(part) for part in model.prior.parts] == [Transformer, Transformer]
    assert model.prior.parts[1].told == 1
    assert model.sample(4).mean.shape == (4, 6)
    other, _ = nr.recipes.build(model.spec)
    other.load_state_dict(model.state_dict())
    close(evaluate.distortion_rate(other, x)[1], evaluate.distortion_rate(model, x)[1])
    stranger, _ = nr.recipes.vqvae2((6,), grid=((1,), (2,)), codebook=3, seed=1, **SMALL)
    stranger.posterior.prior = model.prior
    with pytest.raises(ValueError, match="fitted to the codes of another codebook"):
        stranger.sample(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QuantisedRungs(Codewords((4,), 3), 2), TypeError, "takes a prior over all of them. Wrong:.*Codewords"),
        (lambda: CodewordRungs((), 3), ValueError, "rungs of codewords stand in grids, the top first"),
        (lambda: CodewordRungs((2, 3), 3), ValueError, "rungs of codewords stand in grids, the top first"),
        (
            lambda: QuantisedRungs(CodewordRungs(((4, 4), (7, 7)), 3), 2),
            ValueError,
            r"the next one halved, once or more; got \(4, 4\) above \(7, 7\). Take grid=\(\(4, 4\), \(7, 7\)\) where",
        ),
        (
            lambda: nr.recipes.vqvae2((6,), grid=((1,), (2,)), prior=StandardNormal, **SMALL),
            TypeError,
            "StandardNormal cannot be the prior here: codes of codewords",
        ),
        (
            lambda: member()[0].prior.check(QuantisedRungs(CodewordRungs(((1,), (4,)), 3), 2)),
            ValueError,
            r"stand in \(\(1,\), \(4,\)\); this CodewordRungs is for \(\(1,\), \(2,\)\)",
        ),
        (
            lambda: nr.fit(*nr.recipes.vqvae2((6,), grid=((1,), (9,)), **SMALL), torch.rand(50, 6).round(), quiet=True),
            ValueError,
            r"512 codewords learns .* there are 50 \(50 rows of 1\)",
        ),
        (lambda: Gaussian(CodewordRungs(((1,), (2,)), 3)), TypeError, "is a prior over classes"),
    ],
)
def test_what_cannot_be_is_refused(call, error: type[Exception], message: str) -> None:
    """One sentence each, before anything is trained."""
    with pytest.raises(error, match=message):
        call()
