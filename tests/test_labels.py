"""Labels in the code and features in the context, against enumeration, quadrature and models solved by hand.

Tolerances and seeds as in test_exact.py. For two draws a row at mu - sigma and mu + sigma every quadratic has its exact
mean, so that log q and log p averaged over them are the closed rate.
"""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn.functional import cross_entropy, softplus

from narrows import draws, evaluate, recipes
from narrows.contract import Batch, Pass
from narrows.divergences import MMD
from narrows.labels import Labelled, LabelledGaussian, SoftLabels, labels_of, summed
from narrows.likelihoods import Bernoulli, Gaussian
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective, iwae, log_weights
from narrows.penalties import CrossEntropy
from narrows.posteriors import Deterministic
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import ConditionalNormal, GaussianMixture, StandardNormal


def plain(value: object) -> str:
    """In test names: without the address of a function, which differs from process to process."""
    return str(value).split(" at 0x")[0]


close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
C, D = 3, 4  # classes, width of x


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64, buffers included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def at(monkeypatch: pytest.MonkeyPatch, points: Tensor) -> int:
    """Puts these points (K,) in the place of the normal draws and gives their number."""
    monkeypatch.setattr(draws, "normal", lambda samples, like: points[:, None, None].expand(samples, *like.shape))
    return len(points)


def m2(style: int = 1, context: int = 0) -> Autoencoder:
    """A small semi-supervised model that is not linear, on bits."""
    torch.manual_seed(3)
    prior = StandardNormal(style) if not context else ConditionalNormal(style, context)
    q, p = LabelledGaussian(Labelled(prior, C)), Bernoulli((D,))
    model = Autoencoder(
        Mlp((D,), (q.features,), context, (5,)), q, Mlp((C + style,), p.wants, context, (5,)), p, context=context
    )
    for parameter in model.parameters():  # posteriors of classes and styles that differ
        nn.init.normal_(parameter, std=0.7)
    return model


ROWS = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
LABEL = torch.tensor([2, -1, 0, -1, -1])


def by_hand(model: Autoencoder, x: Tensor, y: int, points: Tensor) -> Tensor:
    """-L(x, y) of Kingma et al. 2014, equation 6, as a mean over z = mu + sigma points, (B,)."""
    h = model.encoder(x)
    style = model.latent - C
    mean, s = h[:, C:].unflatten(1, (2, C, style))[:, :, y].unbind(1)
    q = Normal(mean, softplus(s) + 1e-6)
    total = torch.zeros(len(x))
    for point in points:
        z = q.mean + q.stddev * point
        one = torch.eye(C)[y].expand(len(x), C)
        logits = model.decoder(torch.cat([one, z], 1))[:, 0]
        seen = (x * logits.sigmoid().log() + (1 - x) * (-logits).sigmoid().log()).sum(1)
        total = total + seen - math.log(C) + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(1)
    return total / len(points)


# ---- M2: the sum over the classes --------------------------------------------------------------------------------


def test_labelled_and_unlabelled_rows_have_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equations 6 (labelled), 7 (unlabelled) and 9 (the penalty) term by term, and the gradient of every parameter."""
    model, points = m2(), torch.tensor([-1.0, 1.0])
    objective = Objective(samples=at(monkeypatch, points), penalty=CrossEntropy(2.5))
    terms = objective(model, Batch(ROWS, ROWS, label=LABEL))
    each = torch.stack([by_hand(model, ROWS, y, points) for y in range(C)], 1)  # -L(x, y), (B, C)
    q = model.encoder(ROWS)[:, :C].softmax(1)
    unlabelled = (q * (each - q.log())).sum(1)  # -U(x)
    known = LABEL >= 0
    labelled = each.gather(1, LABEL.clamp_min(0)[:, None])[:, 0]
    bound = torch.where(known, labelled, unlabelled)
    penalty = torch.where(known, -2.5 * q.log().gather(1, LABEL.clamp_min(0)[:, None])[:, 0], 0.0)
    close(terms.bound, bound, **SAME)
    close(-terms.distortion - terms.rate, bound, **SAME)
    close(terms.penalty, penalty, **SAME)
    close(terms.loss, (penalty - bound).mean(), **SAME)
    parameters = list(model.parameters())
    theirs = torch.autograd.grad((penalty - bound).mean(), parameters, retain_graph=True)
    for ours, theirs_ in zip(torch.autograd.grad(terms.loss, parameters), theirs, strict=True):
        close(ours, theirs_, **SAME)


def test_the_bound_is_one_and_its_gap_is_the_posterior_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """log p(x) - bound = KL(q(y, z|x) || p(y, z|x)) by a sum over y and a grid over z, for unlabelled rows; for
    labelled ones log p(x, y) - bound = KL(q(z|x, y) || p(z|x, y)). 4,001 normal quantiles stand for the draws: their
    error, from the tails, is below 1e-3, and both gaps are above 0.01.
    """
    model = m2()
    points = Normal(0.0, 1.0).icdf((torch.arange(4001) + 0.5) / 4001)
    with torch.no_grad():
        terms = Objective(samples=at(monkeypatch, points))(model, Batch(ROWS, ROWS, label=LABEL))
        grid = torch.linspace(-12, 12, 6001)
        width = float(grid[1] - grid[0])
        log_y, mean, sigma = model.posterior.parts(model.encoder(ROWS))
        joint, gap = [], []  # log p(x, y), KL(q(z|x,y) || p(z|x,y))
        for y in range(C):
            code = torch.cat([torch.eye(C)[y].expand(len(grid), C), grid[:, None]], 1)
            log_p = model.decode(code).log_prob(ROWS[:, None]) + Normal(0.0, 1.0).log_prob(grid) - math.log(C)
            joint.append(log_p.logsumexp(1) + math.log(width))
            log_q = Normal(mean[:, y], sigma[:, y]).log_prob(grid)
            gap.append((log_q.exp() * (log_q - log_p + joint[-1][:, None])).sum(1) * width)
        log_xy, gap = torch.stack(joint, 1), torch.stack(gap, 1)  # (B, C)
        evidence = log_xy.logsumexp(1)
        whole = (log_y.exp() * (log_y - (log_xy - evidence[:, None]) + gap)).sum(1)
    one = LABEL.clamp_min(0)[:, None]
    known = LABEL >= 0
    target = torch.where(known, log_xy.gather(1, one)[:, 0], evidence)
    expected = torch.where(known, gap.gather(1, one)[:, 0], whole)
    close(target - terms.bound, expected, rtol=0.0, atol=1e-3)
    assert (expected > 0.01).all()
    assert (terms.bound < evidence).all()


def test_where_only_the_label_matters_every_draw_gives_the_evidence() -> None:
    """A decoder deaf to z, q(z|x,y) = p(z), q(y|x) = p(y|x): bound = log p(x), or log p(x, y), whatever z is; and so
    do the weights of drawn classes, and `log_likelihood` of a single one."""
    model = m2(style=2)
    model.decoder = Mlp((C + 2,), (1, D), hidden=())
    nn.init.zeros_(model.decoder.layers[0].weight[:, C:])
    with torch.no_grad():
        log_px = model.decode(torch.cat([torch.eye(C), torch.randn(C, 2)], 1)).log_prob(ROWS[:, None])  # (B, C)

    class Exact(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            s = torch.full((len(x), 2 * C), math.log(math.expm1(1 - 1e-6)))
            every = model.decode(torch.cat([torch.eye(C), torch.zeros(C, 2)], 1))
            return torch.cat([every.log_prob(x[:, None]), torch.zeros(len(x), 2 * C), s], 1)

    model.encoder = Exact()
    terms = Objective()(model, Batch(ROWS, ROWS, label=LABEL))
    evidence = (log_px - math.log(C)).logsumexp(1)
    labelled = log_px.gather(1, LABEL.clamp_min(0)[:, None])[:, 0] - math.log(C)
    close(terms.bound, torch.where(LABEL >= 0, labelled, evidence), **SAME)
    distortion, rate = log_weights(*model(ROWS, samples=7), ROWS)
    close(-(distortion + rate), evidence.repeat(7), **SAME)
    model.register_parameter("device", nn.Parameter(torch.zeros(1)))
    close(evaluate.log_likelihood(model, ROWS, samples=1).values, evidence, **SAME)


def test_draws_are_of_their_class_and_scored_as_such() -> None:
    """Frequencies of 50,000 draws within 5 standard errors (15 of them: failure 1e-5), and log q, log p by hand."""
    model = m2(style=2)
    code = model.encode(ROWS, samples=50_000, draw=True)
    y, z = code.z.unflatten(0, (50_000, -1)).split([C, 2], -1)
    assert torch.equal(y.sum(-1), torch.ones_like(y[..., 0]))
    log_y, mean, sigma = model.posterior.parts(model.encoder(ROWS))
    p = log_y.exp()
    assert ((y.mean(0) - p).abs() < 5 * (p * (1 - p) / 50_000).sqrt()).all()
    which = y.argmax(-1)  # (K, B)
    rows = torch.arange(len(ROWS)).expand_as(which)
    q = Normal(mean[rows, which], sigma[rows, which])
    close(code.log_q, (log_y[rows, which] + q.log_prob(z).sum(-1)).flatten(), **SAME)
    close(code.log_p, (Normal(0.0, 1.0).log_prob(z).sum(-1) - math.log(C)).flatten(), **SAME)
    # the closed rates are what log q - log p is on average: 6 standard errors (1 in 5e8 each)
    rate = (code.log_q - code.log_p).unflatten(0, (50_000, -1))
    assert ((rate.mean(0) - code.rate[: len(ROWS)]).abs() < 6 * rate.std(0) / 50_000**0.5).all()
    assert (code.rates >= 0).all()
    close(code.rates[: len(ROWS), :C].sum(1), (p * (log_y + math.log(C))).sum(1), **SAME)


def test_point_codes_are_means_and_a_row_draws_alike_in_any_company() -> None:
    model = m2(style=2)
    point = model.encode(ROWS).z
    drawn = model.encode(ROWS, samples=50_000, draw=True).z.unflatten(0, (50_000, -1))
    assert ((drawn.mean(0) - point).abs() < 6 * drawn.std(0) / 50_000**0.5 + 1e-12).all()
    with draws.common():
        torch.manual_seed(0)
        together = model.encode(ROWS, samples=4, draw=True).z.unflatten(0, (4, -1))[:, 2]
        torch.manual_seed(0)
        alone = model.encode(ROWS[2:3], samples=4, draw=True).z
    close(together, alone, **SAME)


def test_a_learned_prior_of_styles_is_priced_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Context in prior and both networks beside the label: the rate by hand."""
    model = m2(style=2, context=2)
    context = torch.randn(len(ROWS), 2)
    found, _ = summed(model, Batch(ROWS, ROWS, context), 3)
    log_y, mean, sigma = model.posterior.parts(model.encoder(ROWS, context))
    p = model.prior.style(context).base_dist
    each = torch.stack([kl_divergence(Normal(mean[:, y], sigma[:, y]), p).sum(1) for y in range(C)], 1)
    expected = (log_y.exp() * (log_y + math.log(C) + each)).sum(1)
    close(found.code.rate, expected.repeat(3), rtol=1e-12, atol=1e-10)
    close(model.encode(ROWS, context).rate, expected, rtol=1e-12, atol=1e-10)
    assert model.sample(len(ROWS), context).mean.shape == (len(ROWS), D)


@pytest.mark.parametrize(
    "settings",
    [{"rate": "sampled"}, {"rate": "sampled", "bound": iwae}, {"discrepancy": MMD()}],
    ids=plain,
)
def test_what_does_not_go_with_a_sum_over_classes_is_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match="summed over its classes, which takes the ELBO with the closed rate"):
        Objective(**settings).check(m2())


def test_parts_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes; got classes=1"):
        recipes.semi_supervised((D,), classes=1)
    with pytest.raises(ValueError, match="GaussianMixture has none: take prior=StandardNormal"):
        recipes.semi_supervised((D,), prior=GaussianMixture)
    model, _ = recipes.vae((D,), latent=2)
    batch = Batch(ROWS, ROWS, label=LABEL)
    with pytest.raises(TypeError, match="CrossEntropy teaches the label in a code, and Gaussian codes have none"):
        Objective(penalty=CrossEntropy(1.0))(model, batch)


# ---- the prior of labels and styles; the adversarial member -------------------------------------------------------


def test_labels_and_styles_have_a_density_together() -> None:
    """It adds up to 1 over classes and a grid; 30,000 draws have every class as often within 5 standard errors."""
    prior = Labelled(StandardNormal(1), C)
    grid = torch.linspace(-10, 10, 2001)[:, None]
    total = sum(prior().log_prob(torch.cat([torch.eye(C)[y].expand(2001, C), grid], 1)).exp().sum() for y in range(C))
    close(total * 0.01, torch.tensor(1.0), rtol=0.0, atol=1e-10)
    z = prior().sample((30_000,))
    assert torch.equal(z[:, :C].sum(1), torch.ones(30_000))
    assert ((z[:, :C].mean(0) - 1 / C).abs() < 5 * (2 / 9 / 30_000) ** 0.5).all()
    assert abs(float(z[:, C].var()) - 1) < 5 * (2 / 30_000) ** 0.5
    assert prior().expand((4,)).sample().shape == (4, C + 1)


def test_soft_labels_are_probabilities_that_cross_entropy_teaches() -> None:
    """The penalty is torch's cross-entropy of the labelled rows, and rows without a label pay nothing."""
    q = SoftLabels(Deterministic(2), Labelled(StandardNormal(2), C))
    h = torch.randn(5, C + 2)
    code = q(h, samples=2)
    close(code.z, torch.cat([h[:, :C].softmax(1), h[:, C:]], 1).repeat(2, 1), **SAME)
    p = Bernoulli((D,))
    model = Autoencoder(Mlp((D,), (q.features,), hidden=()), q, Mlp((q.latent,), p.wants, hidden=()), p)
    assert labels_of(model) == C
    assert not model.density
    found = Pass(model.decode(code.z), code)
    penalty = CrossEntropy(1.5)(model, Batch(ROWS, ROWS, label=LABEL), found)
    expected = 1.5 * cross_entropy(h[:, :C], LABEL, ignore_index=-1, reduction="none")
    close(penalty, expected.repeat(2), **SAME)
    assert not CrossEntropy(1.5)(model, Batch.of(ROWS), found).any()


# ---- the conditional prior, and Bayes' rule -----------------------------------------------------------------------


def test_a_conditional_prior_is_a_normal_for_every_context() -> None:
    """Closed KL against torch's, per unit; the standard normal where the network says nothing; learned by its rate."""
    prior, c = ConditionalNormal(2, context=3), torch.randn(4, 3)
    q = GaussianPosterior(prior)
    h = torch.randn(4, 4)
    code = q(h, c, samples=3)
    mean, s = prior.network(c).chunk(2, 1)
    p = Normal(mean, softplus(s + math.log(math.e - 1)) + 1e-6)
    close(code.rates, kl_divergence(Normal(h[:, :2], softplus(h[:, 2:]) + 1e-6), p).repeat(3, 1), **SAME)
    _, log_p = code.densities()
    close(log_p.view(3, 4), p.log_prob(code.z.view(3, 4, 2)).sum(-1), **SAME)
    code.rate.sum().backward()
    assert all(parameter.grad.any() for parameter in prior.parameters())
    for parameter in prior.parameters():
        nn.init.zeros_(parameter)
    close(prior(c).mean, torch.zeros(4, 2), **SAME)
    close(prior(c).stddev, torch.ones(4, 2), rtol=0.0, atol=2e-6)
    with pytest.raises(TypeError, match=r"this prior is p\(z\|c\) and needs 3 features of context; got none"):
        prior()
    for build in (lambda: ConditionalNormal(2, context=0), lambda: recipes.vae((D,), prior=ConditionalNormal)):
        with pytest.raises(ValueError, match="a conditional prior reads the context.* Give context=10"):
            build()


def linear(shift: Tensor) -> Autoencoder:
    """x = W z + shift_c + noise with orthogonal W and its exact posterior, diagonal, for classes c."""
    w, s2 = torch.linalg.qr(torch.randn(D, 2)).Q * torch.tensor([2.0, 0.7]), 0.5**2
    variance = 1 / (w.square().sum(0) / s2 + 1)
    gain = variance[:, None] * w.T / s2  # E[z|x, c] = gain (x - shift_c)

    class Encoder(nn.Module):
        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            s = (variance.sqrt() - 1e-6).expm1().log().expand(len(x), -1)
            return torch.cat([(x - context @ shift) @ gain.T, s], 1)

    class Decoder(nn.Module):
        def forward(self, z: Tensor, context: Tensor) -> Tensor:
            return (z @ w.T + context @ shift)[:, None]

    model = Autoencoder(
        Encoder(), GaussianPosterior(StandardNormal(2)), Decoder(), Gaussian((D,), sigma=0.5), context=C
    )
    model.register_parameter("device", nn.Parameter(torch.zeros(1)))
    model.covariance = w @ w.T + s2 * torch.eye(D)
    return model


def test_classes_by_bayes_rule_are_exact_where_the_posterior_is() -> None:
    """p(y|x) of Gaussian classes with one covariance: linear discriminant analysis, from any number of draws."""
    shift, x = torch.randn(C, D), torch.randn(6, D)
    model = linear(shift)
    log_px = torch.stack([torch.distributions.MultivariateNormal(m, model.covariance).log_prob(x) for m in shift], 1)
    for prior in (None, torch.tensor([0.7, 0.2, 0.1])):
        log_prior = torch.zeros(C) if prior is None else prior.log()
        for samples in (1, 20):
            found = evaluate.predict_proba(model, x, prior, samples)
            close(found, (log_px + log_prior).softmax(1), **SAME)


def test_classes_that_make_no_difference_are_equally_likely() -> None:
    """Whatever the draws: they are the same for every class, and for a row in any company."""
    model, _ = recipes.vae((D,), latent=2, context=C)
    for network, inputs in ((model.encoder, D), (model.decoder, 2)):
        nn.init.zeros_(network.layers[0].weight[:, inputs:])
    close(evaluate.predict_proba(model, ROWS, samples=3), torch.full((5, C), 1 / C), **SAME)
    assert evaluate.log_joint(model, ROWS, samples=3).std() > 0
    other, _ = recipes.conditional((D,), latent=2, context=C)
    close(evaluate.predict_proba(other, ROWS)[2:3], evaluate.predict_proba(other, ROWS[2:3]), **SAME)


def test_classes_of_a_label_in_the_code_are_what_it_says() -> None:
    close(evaluate.predict_proba(m2(), ROWS), m2().encoder(ROWS)[:, :C].softmax(1), **SAME)


def test_classes_that_nobody_told_are_refused() -> None:
    model, _ = recipes.vae((D,), latent=2)
    with pytest.raises(TypeError, match="nobody told this model of classes.* Use recipe conditional"):
        evaluate.predict_proba(model, ROWS)
    for prior in (torch.ones(2) / 2, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1.5, -0.5, 0.0])):
        with pytest.raises(ValueError, match="one probability for each of 3 classes, together 1"):
            evaluate.predict_proba(linear(torch.zeros(C, D)), ROWS, prior)
    with pytest.raises(TypeError, match="says by itself .* leave prior away"):
        evaluate.predict_proba(m2(), ROWS, torch.ones(C) / C)


def test_a_recipe_that_tells_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="context=0 is nothing: give the number of features, .* or take recipe vae"):
        recipes.conditional((D,))


def test_independent_is_what_kl_knows() -> None:
    """The conditional prior factorises over units, so its rate is unit by unit."""
    assert isinstance(ConditionalNormal(2, 3)(torch.zeros(1, 3)), Independent)
