"""Dependence among the units of a code: estimates against mixtures, enumeration of batches, quadrature and slow loops.

Float64 throughout. Statistical tests draw from seed 0 (conftest.py) and state the probability that another seed would
fail them.
"""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

import narrows as nr
from narrows import draws
from narrows.contract import Batch, Code
from narrows.divergences import (
    Adversarial,
    Covariance,
    JensenShannon,
    LogRatio,
    TotalCorrelation,
    mmd,
    total_correlation,
)
from narrows.divergences.correlation import aggregated, permuted
from narrows.networks import Mlp
from narrows.references import cite
from narrows.training.progress import sentence

close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
CORRELATED = ["beta_tc_vae", "factor_vae", "dip_vae"]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def posterior(rows: int, units: int = 2) -> Independent:
    """Some q(z|x) for each of a few rows."""
    return Independent(Normal(torch.randn(rows, units), torch.rand(rows, units) + 0.2), 1)


def drawn(q: Any, samples: int = 1) -> Code:
    """A code with draws from q, the sample axis slowest."""
    z = q.sample((samples,)).flatten(0, 1)
    return Code(z, z.new_zeros(len(z), 1), None, None, z.new_zeros(len(z)), q=q)


def rows_of(q: Any, chosen: list[int]) -> Any:
    """q of some rows only."""
    if isinstance(q, Independent):
        return Independent(Normal(q.mean[chosen], q.stddev[chosen]), 1)
    return MultivariateNormal(q.mean[chosen], scale_tril=q.scale_tril[chosen])


def mixture(q: Any) -> tuple[Any, Any]:
    """q(z) over all rows, and its marginals, by torch."""
    even = Categorical(logits=torch.zeros(len(q.mean)))
    each = Categorical(logits=torch.zeros(q.mean.shape[1], len(q.mean)))
    return MixtureSameFamily(even, q), MixtureSameFamily(each, Normal(q.mean.T, q.stddev.T))


# ---- total correlation from a batch -----------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_where_the_batch_is_the_whole_set_the_densities_are_exact(full: bool) -> None:
    """log q(z) and log q(z_j) of every draw are those of torch's mixtures; so is the estimate, draw by draw."""
    q: Any = posterior(5, 3)
    if full:
        q = MultivariateNormal(q.mean, scale_tril=torch.randn(5, 3, 3).tril(-1) + q.stddev.diag_embed())
    code = drawn(q, 4)
    whole, units = mixture(q)
    joint, each = aggregated(code, 5)
    close(joint.flatten(), whole.log_prob(code.z), **SAME)
    close(each.flatten(0, 1), units.log_prob(code.z), **SAME)
    expected = (whole.log_prob(code.z) - units.log_prob(code.z).sum(1)).mean()
    close(total_correlation(code, 5), expected, **SAME)
    close(total_correlation(code, 1), expected, **SAME)  # a bare batch


@pytest.mark.parametrize("size", [2, 3, 5])
def test_stratified_densities_have_no_bias(size: int) -> None:
    """Their mean over all batches that hold row 0, by enumeration, is q(z) and q(z_j): constants and all."""
    q = posterior(6, 2)
    z = torch.randn(1, 2)
    whole, units = mixture(q)
    found = []
    for others in itertools.combinations(range(1, 6), size - 1):
        code = drawn(rows_of(q, [0, *others]))
        joint, each = aggregated(code._replace(z=z.expand(size, 2)), 6)
        found.append(torch.cat([joint[0, :1], each[0, 0]]).exp())
    exact = torch.cat([whole.log_prob(z), units.log_prob(z)[0]]).exp()
    close(torch.stack(found).mean(0), exact, **SAME)


def test_a_stratified_density_is_the_papers_averaged_over_the_order() -> None:
    """Chen et al., appendix C.2: with M others, 1/N for the own row, 1/M for M - 1 of them, (N - M) / (N M) for one."""
    q, n, m = posterior(4, 2), 9, 3
    z = torch.randn(4, 2)
    joint, _ = aggregated(drawn(q)._replace(z=z), n)
    p = q.log_prob(z[:, None]).exp()  # drawn from row i, scored by row j
    for i in range(4):
        papers = []
        for order in itertools.permutations([j for j in range(4) if j != i]):
            weights = torch.tensor([1 / n] + [1 / m] * (m - 1) + [(n - m) / (n * m)])
            assert float(weights.sum()) == pytest.approx(1)
            papers.append((weights * p[i, [i, *order]]).sum())
        close(joint[0, i].exp(), torch.stack(papers).mean(), **SAME)


def grid(q: Any) -> tuple[Tensor, float]:
    """Points of a plane (n, 2), and the area that each stands for; the trapezium rule is exact to 1e-10 here."""
    line = torch.linspace(-9, 9, 601)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


def test_rate_is_information_and_total_correlation_and_single_units() -> None:
    """E KL(q(z|x) || p) = I(x; z) + TC + sum_j KL(q(z_j) || p(z_j)) with each by quadrature; TC by 60,000 draws.

    Three rows, two units; the estimate within 5 of its standard errors (failure 6e-7).
    """
    q = posterior(3, 2)
    z, area = grid(q)
    whole, units = mixture(q)
    log_q, log_u = whole.log_prob(z), units.log_prob(z)
    density = log_q.exp() * area
    prior = Normal(torch.zeros(2), 1.0).log_prob(z)
    given = q.log_prob(z[:, None])  # (n, 3)
    information = (given.exp() * (given - log_q[:, None])).sum() * area / 3
    correlation = (density * (log_q - log_u.sum(1))).sum()
    single = (density[:, None] * (log_u - prior)).sum()
    rate = kl_divergence(q, Independent(Normal(torch.zeros(3, 2), 1.0), 1)).mean()
    close(information + correlation + single, rate, rtol=0, atol=1e-8)
    assert correlation > 0.05
    code = drawn(q, 20_000)
    joint, each = aggregated(code, 3)
    spread = (joint - each.sum(-1)).mean(1).std() / math.sqrt(20_000)
    assert abs(total_correlation(code, 3) - correlation) < 5 * spread


def test_total_correlation_of_a_normal_has_a_closed_form() -> None:
    """Many rows whose means follow a normal: TC is -1/2 log det of the correlation matrix of the codes.

    2,000 rows, all of them the batch; their own moments stand for the normal's. Within 0.03 nats of 0.5108.
    """
    base = torch.randn(2000, 2)
    mean = torch.stack([base[:, 0], 0.9 * base[:, 0] + math.sqrt(1 - 0.81) * base[:, 1]], 1)
    q = Independent(Normal(mean, torch.full_like(mean, 0.25)), 1)
    share = 0.9 / (1 + 0.25**2)
    assert abs(float(total_correlation(drawn(q), 2000)) + 0.5 * math.log(1 - share**2)) < 0.03


def test_the_gradient_of_the_total_correlation_is_that_of_its_value() -> None:
    """By finite differences, in mean and sigma, through draws and scores alike."""
    noise = torch.randn(2, 4, 3)

    def value(mean: Tensor, sigma: Tensor) -> Tensor:
        z = (mean + sigma * noise).flatten(0, 1)
        q = Independent(Normal(mean, sigma), 1)
        return total_correlation(Code(z, z[:, :1], None, None, z[:, 0], q=q), 10)

    inputs = (torch.randn(4, 3, requires_grad=True), (torch.rand(4, 3) + 0.3).requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)


def test_the_objective_is_the_papers() -> None:
    """distortion + I + beta TC + dimension-wise KL = distortion + rate + (beta - 1) TC, on one batch that is all."""
    model, objective = nr.recipes.beta_tc_vae((5,), latent=2, network=partial(Mlp, hidden=(8,)), weight=3.0)
    x = torch.randint(2, (6, 5)).double()
    torch.manual_seed(1)
    terms = objective(model, Batch.of(x)._replace(rows=6))
    torch.manual_seed(1)
    code = model(x).code
    whole, units = mixture(code.q)
    correlation = (whole.log_prob(code.z) - units.log_prob(code.z).sum(1)).mean()
    close(terms.discrepancy, correlation, **SAME)
    close(terms.loss, (terms.distortion + terms.rate).mean() + 3 * correlation, **SAME)
    assert terms.loss.requires_grad
    assert "distortion + rate + 3 x TotalCorrelation" in objective.equation


# ---- a critic that tells codes from shuffled codes ----------------------------------------------------------------


def test_columns_are_shuffled_each_on_its_own() -> None:
    """Every column keeps its values, orders differ, no gradient passes; seed and step decide, rows of K draws too."""
    z = torch.randn(12, 3, requires_grad=True)
    with draws.seeded(0, 5):
        shuffled = permuted(z, 4)
    assert not shuffled.requires_grad
    close(shuffled.sort(0).values, z.detach().sort(0).values, **SAME)
    order = [[int((z[:, j] == value).nonzero()) for value in shuffled[:, j]] for j in range(3)]
    assert order[0] != order[1] != order[2] != order[0]
    with draws.seeded(0, 5):
        assert torch.equal(permuted(z, 4), shuffled)
    with draws.seeded(0, 6):
        assert not torch.equal(permuted(z, 4), shuffled)
    codes = torch.randn(4000, 1).repeat(1, 2)  # one number twice: shuffled, the columns have nothing in common
    assert abs(float(torch.corrcoef(permuted(codes, 4000).T)[0, 1])) < 6 / math.sqrt(4000)  # failure 2e-9


class Ratio(nn.Module):
    """The log-ratio of a bivariate normal of correlation r to the product of its marginals."""

    def __init__(self, r: float) -> None:
        super().__init__()
        covariance = torch.tensor([[1.0, r], [r, 1.0]])
        self.q, self.p = (
            MultivariateNormal(torch.zeros(2), covariance),
            MultivariateNormal(torch.zeros(2), torch.eye(2)),
        )

    def forward(self, z: Tensor) -> Tensor:
        return (self.q.log_prob(z) - self.p.log_prob(z))[:, None]


def test_the_best_critic_says_the_total_correlation() -> None:
    """-1/2 log(1 - r^2) nats for two units of correlation r: the mean log-ratio of 40,000 codes, within 6 standard
    errors (failure 2e-9); no other critic classifies better, so its own loss has no slope there (also 6).
    """
    r, n = 0.8, 40_000
    judge = Adversarial(2, LogRatio(), pair="permuted")
    judge.critic = Ratio(r)
    q = judge.critic.q
    z = q.sample((n,))
    nothing = z.new_zeros(n)
    gap = judge(Code(z, nothing[:, None], None, None, nothing), z, Batch.of(z))
    assert abs(float(gap.value) + 0.5 * math.log(1 - r * r)) < 6 * float(judge.critic(z).std()) / math.sqrt(n)
    close(gap.value, gap.model, **SAME)
    for turn in (lambda z: z.prod(1), lambda z: z[:, 0].sin(), lambda z: torch.ones(len(z))):
        with draws.seeded(0):
            other = permuted(z, n)
        v, h, u, g = judge.critic(z)[:, 0], turn(z), judge.critic(other)[:, 0], turn(other)
        slope = 0.5 * ((-v).sigmoid() * h).mean() - 0.5 * (u.sigmoid() * g).mean()
        assert abs(float(slope)) < 6 * float(h.std() + g.std() + 0.1) / math.sqrt(n)


def test_neither_players_gradient_reaches_the_other() -> None:
    """The loss's gradients are those of two separate passes: the encoder's through a critic that stands still, on codes
    whose shuffled copies are no part of its graph; the critic's cross-entropy on codes without a graph.
    """
    model, objective = nr.recipes.factor_vae((5,), latent=2, network=partial(Mlp, hidden=(8,)), weight=0.7)
    judge, x = objective.discrepancy, torch.randint(2, (6, 5)).double()
    torch.manual_seed(3)
    terms = objective(model, Batch.of(x))
    torch.manual_seed(3)
    code = model(x).code
    shuffled = permuted(code.z, 6)
    parameters, critics = list(model.parameters()), list(judge.critic.parameters())
    both = torch.autograd.grad(terms.loss, [*parameters, *critics], allow_unused=True)

    v = judge.critic(code.z)
    logits = model.decoder(code.z).flatten(1)
    distortion = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    own = (distortion + code.rate).mean() + 0.7 * v.mean()
    for found, expected in zip(both, torch.autograd.grad(own, parameters, retain_graph=True), strict=False):
        close(found, expected, **SAME)
    cross = nn.functional.binary_cross_entropy_with_logits
    z = code.z.detach()
    a, b = judge.critic(z), judge.critic(shuffled)
    loss = (cross(a, torch.ones_like(a)) + cross(b, torch.zeros_like(b))) / 2
    for found, expected in zip(both[len(parameters) :], torch.autograd.grad(loss, critics), strict=True):
        close(found, expected, **SAME)
    close(terms.discrepancy, v.mean().detach(), **SAME)


def test_in_use_the_value_is_the_total_correlation_itself() -> None:
    """Whatever the critic has become, nor what context there is; a kernel distance where q does not score units."""
    judge, code = Adversarial(3, LogRatio(), pair="permuted").eval(), drawn(posterior(8, 3))
    batch = Batch(code.z, code.z, torch.randn(8, 2), rows=50)
    close(judge(code, code.z, batch).value, total_correlation(code, 50), **SAME)
    bare = code._replace(q=None)
    with draws.seeded(0):
        found = judge(bare, code.z, batch).value
    with draws.seeded(0):
        close(found, mmd(code.z, permuted(code.z, 8)), **SAME)


def test_a_log_ratio_has_the_critic_of_jensen_shannon() -> None:
    """Another loss for the encoder and another report, the same classifier."""
    z, real = torch.randn(9, 2) + 1, torch.randn(9, 2)
    nothing = z.new_zeros(9)
    code = Code(z, nothing[:, None], None, None, nothing)
    one, other = Adversarial(2, JensenShannon(penalty=0.5)), Adversarial(2, LogRatio(penalty=0.5))
    other.load_state_dict(one.state_dict())
    gaps = []
    for judge in (one, other):
        torch.manual_seed(0)
        gaps.append(judge(code, real, Batch.of(z)))
    close(gaps[0].critic, gaps[1].critic, **SAME)
    close(gaps[1].model, one.critic(z).mean(), **SAME)


# ---- covariances ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["means", "codes"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_covariances_are_the_slow_loops(of: str, full: bool) -> None:
    """Kumar et al., equations 5 to 7, unit by unit; where the batch is the set, C of the codes is that of q(z)."""
    q: Any = posterior(7, 3)
    if full:
        q = MultivariateNormal(q.mean, scale_tril=torch.randn(7, 3, 3).tril(-1) + q.stddev.diag_embed())
    code = drawn(q)
    value = 0.0
    for i in range(3):
        for j in range(3):
            c = float((q.mean[:, i] * q.mean[:, j]).mean() - q.mean[:, i].mean() * q.mean[:, j].mean())
            if of == "codes" and full:
                c += float(q.covariance_matrix[:, i, j].mean())
            elif of == "codes" and i == j:
                c += float(q.variance[:, i].mean())
            value += 2.5 * (c - 1) ** 2 if i == j else c**2
    gap = Covariance(0.7, 2.5, of)(code, code.z, Batch.of(code.z))
    close(gap.value, torch.tensor(value), **SAME)
    close(gap.model, gap.value, **SAME)
    if of == "codes":
        many = drawn(q, 100_000).z
        c = torch.cov(many.T)
        error = (c - torch.eye(3)).square()
        assert abs(float(error.sum() + 1.5 * error.trace()) - value) < 0.05 * value


@pytest.mark.parametrize(("variant", "of", "diagonal"), [(1, "means", 10.0), (2, "codes", 1.0)])
def test_the_variants_of_the_paper(variant: int, of: str, diagonal: float) -> None:
    """lambda_od is the weight; lambda_d stands over it."""
    part = nr.recipes.dip_vae((5,), latent=2, variant=variant)[1].discrepancy
    assert (part.weight, part.of, part.diagonal) == (10.0, of, diagonal)
    part = nr.recipes.dip_vae((5,), latent=2, variant=variant, lambda_od=4.0, lambda_d=2.0)[1].discrepancy
    assert part.weight * part.diagonal == 2.0


# ---- InfoVAE, annealed capacity -----------------------------------------------------------------------------------


def test_infovae_weighs_rate_and_distance_by_alpha_and_lambda() -> None:
    """1 - alpha and alpha + lambda - 1; alpha = 1, lambda = 1 is a Wasserstein autoencoder."""
    _, objective = nr.recipes.infovae((5,), latent=2, alpha=0.3, lambda_=10.0)
    assert objective.beta(None) == pytest.approx(0.7)
    assert objective.discrepancy.weight == pytest.approx(9.3)
    assert nr.recipes.infovae((5,), latent=2, alpha=1.0, lambda_=1.0)[1].equation == "distortion + 1 x MMD"
    assert nr.recipes.infovae((20,), latent=2)[1].discrepancy.weight == pytest.approx(2.6)


def test_annealed_capacity_grows_to_what_the_code_can_hold() -> None:
    """2.5 nats a unit over 2,000 steps, or what is given; the rate is held to it from both sides."""
    _, objective = nr.recipes.annealed_vae((5,), latent=4)
    assert (objective.capacity(None), objective.capacity(1000), objective.settled) == (10.0, 5.0, 2000)
    assert objective.beta(None) == 30
    assert nr.recipes.annealed_vae((5,), capacity=3.0)[1].settled == 0
    x = torch.randint(2, (200, 12)).float()
    model, objective = nr.recipes.annealed_vae((12,), latent=2, network=partial(Mlp, hidden=(16,)), capacity=1.5)
    run = nr.fit(model.float(), objective.float(), x, x, training=nr.Training(epochs=150, batch=100), quiet=True)
    assert run.metrics[-1]["valid"]["rate"] == pytest.approx(1.5, abs=0.25)
    assert "+ 30 x |rate (KL) 1." in (line := sentence(run.metrics[-1]))
    assert " - 1.50| | held-out " in line


# ---- on every face ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("face", "work"),
    [
        (nr.InfoVAE, "zhao2017infovae"),
        (nr.BetaTCVAE, "chen2018isolating"),
        (nr.FactorVAE, "kim2018disentangling"),
        (nr.DIPVAE, "kumar2018variational"),
        (nr.AnnealedVAE, "burgess2018understanding"),
    ],
)
def test_estimators_and_citations(face: Any, work: str) -> None:
    """Codes, scores, samples; the paper and the one that it builds on."""
    torch.set_default_dtype(torch.float32)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    fitted = face(latent=2, training=nr.Training(epochs=2)).fit(x)
    assert fitted.transform(x).shape == (60, 2)
    assert np.isfinite(fitted.score_samples(x)).all()
    assert fitted.sample(3).shape == (3, 4)
    text = "".join(cite(fitted.model_.spec))
    assert work in text
    assert "kingma2014auto" in text


# ---- what means nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", CORRELATED)
def test_a_batch_of_one_is_refused(recipe: str) -> None:
    """Codes are compared with one another."""
    model, objective = getattr(nr.recipes, recipe)((6,), latent=2, network=partial(Mlp, hidden=(8,)))
    with pytest.raises(ValueError, match=r"compares the codes of a batch with one another, .*Use --batch 3"):
        nr.fit(model, objective, torch.ones(9, 6), training=nr.Training(batch=2, epochs=1), quiet=True)


def test_a_code_whose_units_have_no_density_is_refused() -> None:
    """With what to take instead; before training, where a model is trained."""
    z = torch.randn(4, 2)
    bare = Code(z, z[:, :1], None, None, z[:, 0])
    for part in (TotalCorrelation(), Covariance()):
        with pytest.raises(TypeError, match="q\\(z\\|x\\).*Use posterior=Gaussian"):
            part(bare, z, Batch.of(z))
    mixed = MixtureSameFamily(Categorical(logits=torch.zeros(4, 2)), Independent(Normal(torch.zeros(4, 2, 2), 1.0), 1))
    with pytest.raises(TypeError, match="is MixtureSameFamily. Use posterior=Gaussian, or recipe factor_vae"):
        TotalCorrelation()(bare._replace(q=mixed), z, Batch.of(z))
    model, objective = nr.recipes.autoencoder((6,), latent=2, prior=nr.priors.StandardNormal, discrepancy=Covariance())
    with pytest.raises(TypeError, match="this one has none. Use posterior=Gaussian"):
        nr.fit(model.float(), objective.float(), torch.rand(20, 6).float(), quiet=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Covariance(of="mean"), 'of is "means" or "codes"; got \'mean\''),
        (lambda: Covariance(diagonal=-1.0), "diagonal is a number of at least 0; got -1.0"),
        (lambda: TotalCorrelation(-1.0), "weight is a number of at least 0; got weight=-1.0"),
        (lambda: Adversarial(2, pair="columns"), 'pair is "prior" or "permuted"; got \'columns\''),
        (lambda: nr.recipes.dip_vae((4,), variant=3), "variant is 1 or 2, .* got variant=3"),
        (lambda: nr.recipes.dip_vae((4,), lambda_od=0.0), "lambda_od positive; .* lambda_od=0.0"),
        (lambda: nr.recipes.infovae((4,), alpha=1.5), "alpha=1.5.* Take alpha of at most 1"),
        (lambda: nr.recipes.infovae((4,), lambda_=0.5), "lambda_=0.5. .* lambda_ of at least 1 - alpha"),
    ],
)
def test_what_means_nothing_is_refused(make: partial, message: str) -> None:
    """At once, with what would do."""
    with pytest.raises(ValueError, match=message):
        make()
