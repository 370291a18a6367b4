"""Priors over grids of codewords: probabilities by enumeration, order, draws, fits."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import narrows as nr
from narrows import cli, recipes
from narrows.contract import Batch
from narrows.data import Rows
from narrows.likelihoods import Gaussian
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.posteriors import Quantised
from narrows.priors import Codewords, GaussianMixture, PixelCNN, Transformer

TINY = {"width": 4, "layers": 2}
KINDS = [
    (PixelCNN, (2, 2), 3),
    (PixelCNN, (1, 2, 2), 3),  # two numbers at each place
    (Transformer, (4,), 3),
    (Transformer, (2, 1, 2), 3),
]
every = pytest.mark.parametrize(("kind", "grid", "codebook"), KINDS, ids=[f"{k.__name__}-{g}" for k, g, _ in KINDS])


def made(kind, grid: tuple[int, ...], codebook: int, context: int = 0, **sizes: int):
    """A prior in float64 whose weights are large: as if fitted to something."""
    torch.manual_seed(3)
    prior = kind(grid, codebook, context=context, **{**TINY, **({"heads": 2} if kind is Transformer else {}), **sizes})
    prior.double().fitted = True
    prior.learned.fill_(True)
    for weight in prior.parameters():
        weight.normal_(0, 0.8)
    return prior


def everything(grid: tuple[int, ...], codebook: int) -> Tensor:
    """All codes, (codebook ** slots, *grid)."""
    slots = math.prod(grid)
    return torch.tensor(list(itertools.product(range(codebook), repeat=slots))).view(-1, *grid)


@every
def test_probabilities_of_all_codes_sum_to_one(kind, grid: tuple[int, ...], codebook: int) -> None:
    """By enumeration, whatever it is told; `each` sums to log_prob; the terms are conditional probabilities."""
    codes = everything(grid, codebook)
    for told in (None, torch.randn(5, 2, dtype=torch.float64)):
        prior = made(kind, grid, codebook, context=0 if told is None else 2)
        p = prior(told)
        log_p = p.log_prob(codes if told is None else codes[:, None])
        assert log_p.shape == (len(codes),) if told is None else (len(codes), 5)
        assert torch.allclose(log_p.exp().sum(0), torch.ones((), dtype=torch.float64), atol=1e-12)
        each = p.each(codes if told is None else codes[:, None])
        assert torch.allclose(each.flatten(log_p.dim()).sum(-1), log_p, atol=1e-12)
        if told is not None:
            assert not torch.allclose(log_p[:, 0], log_p[:, 1])
            alone = prior(told[1:2]).log_prob(codes[:, None])[:, 0]
            assert torch.allclose(log_p[:, 1], alone, atol=1e-12)


def test_each_term_reads_all_that_stands_before_it_and_nothing_else() -> None:
    """The blind spot that plain masked convolutions have would show here; grids 5 wide, slots one at a time."""
    for kind, grid, sizes in (
        (PixelCNN, (4, 5), {"width": 16, "layers": 4}),
        (PixelCNN, (2, 2, 3), {"width": 16}),
        (Transformer, (4, 5), {}),
        (Transformer, (6,), {}),
    ):
        prior = made(kind, grid, 3, **sizes)
        with torch.no_grad():
            for weight in prior.parameters():
                weight.mul_(0.3)  # gates that are not full up
        code = torch.randint(3, grid, generator=torch.Generator().manual_seed(0))
        slots = code.numel()
        changed = code.flatten().repeat(slots, 1)
        changed[range(slots), range(slots)] = (code.flatten() + 1) % 3  # row j: slot j is another
        logits = prior.network(torch.cat([code.view(1, -1), changed]).view(-1, *grid), None).reshape(
            slots + 1, slots, -1
        )
        moved = (logits[1:] - logits[0]).abs().amax(-1) > 1e-9  # (changed, slot); rounding differs by row
        assert torch.equal(moved, torch.ones(slots, slots, dtype=torch.bool).triu(1)), (kind, grid)


@every
@pytest.mark.parametrize("context", [0, 2])
def test_draws_with_a_cache_are_those_without(kind, grid: tuple[int, ...], codebook: int, context: int) -> None:
    """Each slot from a whole pass over what is drawn so far, by the same uniforms."""
    prior = made(kind, grid, codebook, context)
    told = torch.randn(3, 2, dtype=torch.float64) if context else None
    torch.manual_seed(5)
    drawn = prior(told).sample((70,))
    torch.manual_seed(5)
    u = torch.rand(drawn.numel() // math.prod(grid), math.prod(grid), dtype=torch.float64)
    naive = torch.zeros(u.shape, dtype=torch.long)
    c = None if told is None else told.repeat(70, 1)
    for slot in range(u.shape[1]):
        p = prior.network(naive.view(-1, *grid), c).softmax(-1).view(*u.shape, codebook)[:, slot]
        naive[:, slot] = (u[:, slot, None] > p.cumsum(-1)).sum(-1)
    assert torch.equal(drawn.flatten(), naive.flatten())
    assert drawn.shape == (70, *((3,) if context else ()), *grid)


@every
def test_draws_are_as_frequent_as_probable(kind, grid: tuple[int, ...], codebook: int) -> None:
    """Pearson's chi-square over all 81 codes, 20,000 draws, rejected with probability 1e-6 (seed 7)."""
    prior, codes = made(kind, grid, codebook), everything(grid, codebook)
    torch.manual_seed(7)
    drawn = prior().sample((20_000,)).flatten(1)
    number = (drawn * codebook ** torch.arange(drawn.shape[1] - 1, -1, -1)).sum(1)
    seen, expected = torch.bincount(number, minlength=len(codes)), 20_000 * prior().log_prob(codes).exp()
    rare = expected < 5  # together
    seen, expected = (torch.cat([t[~rare], t[rare].sum(0, keepdim=True)]).double() for t in (seen, expected))
    keep = expected > 0
    statistic = ((seen - expected).square() / expected)[keep].sum()
    assert statistic < chi2.isf(1e-6, int(keep.sum()) - 1)


def markov(n: int, grid: tuple[int, ...], told: Tensor | None = None) -> tuple[Tensor, float]:
    """Sequences of 3 states that stay with probability 0.8, or 0.4 where told so; and their entropy in nats."""
    slots = math.prod(grid)
    stay = torch.full((n,), 0.8) if told is None else 0.8 - 0.4 * told[:, 0]
    states = [torch.randint(3, (n,))]
    for _ in range(slots - 1):
        moves = torch.rand(n) >= stay
        states.append((states[-1] + moves * torch.randint(1, 3, (n,))) % 3)
    steps = [-(s * math.log(s) + (1 - s) * math.log((1 - s) / 2)) for s in (0.8, 0.4)]
    entropy = steps[0] if told is None else sum(steps) / 2
    return torch.stack(states, 1).view(n, *grid), math.log(3) + (slots - 1) * entropy


@pytest.mark.parametrize(
    ("kind", "grid", "context"),
    [(PixelCNN, (2, 3), 1), (Transformer, (6,), 0)],
    ids=["PixelCNN told", "Transformer"],
)
def test_a_fit_finds_a_markov_chain(kind, grid: tuple[int, ...], context: int) -> None:
    """The mean surprise of 4,000 fresh codes within 0.06 nats of the entropy, 5.4 to 6 nats (uniform: 6.59)."""
    torch.manual_seed(0)
    told = torch.arange(8_000)[:, None] % 2.0 if context else None
    index, entropy = markov(8_000, grid, told)
    prior = kind(grid, 3, context=context, width=16, layers=2, steps=200)
    before = copy.deepcopy(prior.state_dict())
    assert float(prior(told).log_prob(index).mean()) == pytest.approx(-math.prod(grid) * math.log(3), rel=1e-5)
    prior.fit(index[:4_000], None if told is None else told[:4_000])
    fresh = -float(prior(None if told is None else told[4_000:]).log_prob(index[4_000:]).mean())
    assert fresh == pytest.approx(entropy, abs=0.06)
    assert not any(weight.requires_grad for weight in prior.parameters())
    again = kind(grid, 3, context=context, width=16, layers=2, steps=200)
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again(told).log_prob(index), prior(told).log_prob(index))
    prior.load_state_dict(before)
    assert not prior.fitted


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PixelCNN((8,), 4), ValueError, r"over grids of 2 or 3 axes; got grid=\(8,\). Take Transformer"),
        (lambda: Transformer((1, 2, 3, 4), 4), ValueError, "over grids of 1 or 2 or 3 axes"),
        (lambda: PixelCNN((7, 7), 1), ValueError, r"at least 2 to choose from; got grid=\(7, 7\), codebook=1"),
        (lambda: PixelCNN((7, 7), 8, layers=0), ValueError, "sizes of at least 1; got width=64, layers=0"),
        (lambda: Transformer((7,), 8, width=6, heads=4), ValueError, "equal part of the width; got width=6, heads=4"),
        (lambda: Transformer((7,), 8, context=2)(), TypeError, "needs 2 features of context; got none"),
        (lambda: Transformer((4,), 3).fit(torch.zeros(9, 4).long()), ValueError, "at least 20 codes; got 9"),
        (lambda: Transformer((4,), 3).fit(torch.zeros(30, 5).long()), ValueError, r"for grids \(4,\).*got \(5,\)"),
        (lambda: Transformer((4,), 3).fit(3 * torch.ones(30, 4).long()), ValueError, "below 3; .* from 3 to 3"),
        (
            lambda: Transformer((4,), 3, context=2).fit(torch.zeros(30, 4).long(), torch.zeros(30, 1)),
            ValueError,
            r"reads context, \(30, 2\) here; got \(30, 1\)",
        ),
    ],
    ids=range(10),
)
def test_what_cannot_be_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- of a model --------------------------------------------------------------------------------------------------


def quantised(prior=Codewords, context: int = 0, seed: int = 0, **settings):
    """A small model of six bits, whose code is four numbers below 3."""
    settings = {"latent": 2, "grid": (2, 2), "codebook": 3, "network": partial(Mlp, hidden=(8,)), **settings}
    model, objective = recipes.vqvae((6,), prior=prior, context=context, seed=seed, **settings)
    return model, objective


def bits(n: int = 200) -> Tensor:
    return (torch.rand(n, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()


SHORT = partial(PixelCNN, width=4, layers=1, steps=20)


@pytest.mark.parametrize("prior", [Codewords, SHORT, partial(Transformer, width=8, layers=1, heads=2, steps=20)])
def test_the_bound_is_below_the_evidence_and_is_that_under_the_fitted_prior(prior) -> None:
    """log p(x) = log sum_k p(k) p(x | k) over all 81 codes; ELBO = log p(k(x)) + log p(x | k(x)), exactly."""
    model, objective = quantised()
    model, objective, x = model.double(), objective.double(), bits(60).double()
    before = objective(model.eval(), Batch.of(x))
    fitted = nr.fit_prior(model, x, prior)
    after = objective(model, Batch.of(x))
    codes = everything((2, 2), 3)
    log_p = fitted().log_prob(codes)
    z = model.posterior.embed(codes)
    joint = log_p[:, None] + model.decode(z.repeat_interleave(len(x), 0)).log_prob(x.repeat(81, 1)).view(81, -1)
    assert (after.bound < joint.logsumexp(0) + 1e-9).all()
    place = (model.encode(x).index.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    assert torch.allclose(after.rate, -log_p[place], atol=1e-9)
    assert torch.allclose(after.bound, joint[place, torch.arange(len(x))], atol=1e-9)
    assert torch.allclose(before.rate, torch.full_like(before.rate, 4 * math.log(3)), atol=1e-6)
    assert after.rate.mean() < before.rate.mean()
    distortion, rate = nr.evaluate.distortion_rate(model, x)
    assert torch.allclose(-distortion.double() - rate.double(), after.bound)


def test_samples_for_a_label_come_from_the_prior_told_that_label() -> None:
    """Codes that say the label, one slot after the other: draws for either label say it too."""
    model, _ = quantised(context=2)
    c = torch.eye(2)[torch.arange(400) % 2]
    nr.fit_prior(model, Rows(bits(400), context=c), partial(Transformer, width=32, layers=1, steps=20))
    index = 2 * c[:, 1].long().view(-1, 1, 1).expand(-1, 2, 2)  # had the codes been these
    model.prior.steps = 200
    model.prior.fit(index, c)
    for told in c[:2]:
        z = model.draw(50, told.expand(50, -1))
        expected = model.posterior.embed(torch.full((1, 2, 2), 2 * int(told[1])))
        assert float((z == expected).all(1).float().mean()) > 0.9
    assert model.sample(3, c[:3]).mean.shape == (3, 6)
    with pytest.raises(TypeError, match="told 2 features of every row, so sampling needs them too"):
        model.draw(3)
    drawn = nr.fit_prior(model, Rows(bits(), context=c[:200]), Codewords)  # one that is not told
    assert not hasattr(drawn, "context")
    assert model.draw(3, c[:3]).shape == (3, 8)


def test_a_prior_of_another_codebook_is_refused_before_use(tmp_path) -> None:
    """The same sizes, other codewords: when it is built in, drawn from, evaluated with, loaded."""
    x = bits()
    run = nr.fit(*quantised(SHORT), x, training=nr.Training(epochs=1), quiet=True)
    kept = run.save(tmp_path / "a")
    assert torch.equal(nr.load(kept).model.prior.known, run.model.prior.known)
    other = nr.fit(*quantised(seed=1), x, training=nr.Training(epochs=1), quiet=True).model
    refused = pytest.raises(ValueError, match="PixelCNN was fitted to the codes of another codebook, .* fit it anew")
    own = other.posterior.prior
    other.posterior.prior = run.model.prior
    with refused:
        other.draw(3)
    with refused:
        nr.evaluate.distortion_rate(other, x)
    other.posterior.prior = own
    other.posterior.eval()
    with refused:
        Autoencoder(other.encoder, Quantised(run.model.prior, 2), other.decoder, other.likelihood)
    with torch.no_grad():
        run.model.posterior.vectors += 1
    with refused:
        nr.load(run.save(tmp_path / "b"))
    moved = run.model.double()
    nr.fit_prior(moved, x.double())
    assert moved.draw(3).shape == (3, 8)  # fitted anew, it is this codebook's, in any precision
    moved.float().check()


def test_training_on_begins_without_the_prior_and_fits_it_again(tmp_path) -> None:
    """Codes move as a model learns, so a prior of what they were says nothing; a resumed run ends bit by bit alike."""
    model, objective = quantised(SHORT)
    short = nr.Training(epochs=1, seed=3)
    first = nr.fit(model, objective, bits(), training=short, quiet=True, folder=tmp_path / "a")
    known = model.prior.known.clone()
    run = nr.fit(model, objective, bits(), training=short, quiet=True)
    assert run.metrics[0]["train"]["rate"] == pytest.approx(4 * math.log(3), abs=1e-5)
    assert model.prior.fitted
    assert not torch.equal(model.prior.known, known)
    again, objective = recipes.build(first.config["spec"])
    longer = nr.Training(epochs=2, seed=3)
    nr.fit(again, objective, bits(), training=longer, quiet=True, folder=tmp_path / "a", resume=True)
    straight, objective = quantised(SHORT)
    nr.fit(straight, objective, bits(), training=longer, quiet=True)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: nr.fit_prior(m, x, PixelCNN((2, 3), 3)), ValueError, r"are \(2, 2\) with a codebook of 3; this "),
        (lambda m, x: nr.fit_prior(m, x, PixelCNN((2, 2), 4)), ValueError, r"Build it as PixelCNN\(\(2, 2\), 3\)"),
        (lambda m, x: nr.fit_prior(m, x, Transformer((2, 2), 3, context=1)), ValueError, "prior is to be told 1"),
        (lambda m, x: nr.fit_prior(m, x, GaussianMixture(8)), TypeError, "GaussianMixture cannot be the prior of a Qu"),
        (lambda m, x: nr.fit_prior(m, x, GaussianMixture), TypeError, r"grid of \(2, 2\): take Codewords, PixelCNN"),
        (lambda m, x: nr.fit_prior(m, x[:9], SHORT), ValueError, "learns from at least 20 codes; got 9"),
        (lambda m, x: nr.fit(*quantised(SHORT), x[:9], quiet=True), ValueError, "learns from at least 20 codes; got 9"),
        (
            lambda m, x: nr.fit_prior(recipes.vae((6,), latent=4)[0], x, PixelCNN),
            TypeError,
            r"a Gaussian code has none: take .* GaussianMixture\(4\)",
        ),
    ],
    ids=range(8),
)
def test_priors_of_other_codes_are_refused(call, error: type[Exception], message: str) -> None:
    """And the model keeps the one it has."""
    model, _ = quantised()
    own = model.prior
    with pytest.raises(error, match=message):
        call(model, bits())
    assert model.prior is own


def test_a_prior_is_fitted_to_a_run_from_the_command_line(tmp_path, capsys, monkeypatch) -> None:
    """`narrows prior RUN --kind`: a folder of its own, judged anew; the run is as it was."""

    def narrows(*words: object) -> int:
        monkeypatch.setattr("sys.argv", ["narrows", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    data = nr.data.load("digits")
    model, objective = recipes.vqvae(data.shape, latent=4, grid=(2, 2), codebook=8, likelihood=Gaussian)
    run = nr.fit(model, objective, data, training=nr.Training(epochs=1), folder=tmp_path / "a", quiet=True)
    words = ("prior", tmp_path / "a", "--kind", "Transformer", "--set", "steps=20", "--set", "layers=1")
    assert narrows(*words) == 0
    said = capsys.readouterr().out
    assert "fitting Transformer to the codes of 1,437 rows" in said
    assert f"narrows sample {tmp_path / 'a-prior-1'}" in said
    again = nr.load(tmp_path / "a-prior-1")
    assert isinstance(again.model.prior, Transformer)
    assert again.model.prior.steps == 20
    assert isinstance(nr.load(tmp_path / "a").model.prior, Codewords)
    assert torch.equal(again.model.posterior.vectors, run.model.posterior.vectors)
    assert narrows("sample", tmp_path / "a-prior-1", "--n", 4) == 0
    assert narrows("prior", tmp_path / "a", "--set", "steps=20") == 1
    assert "--set steps=... is for a prior that is named: say which by --kind" in capsys.readouterr().err
