"""log p(x) - ELBO = KL( q_phi(z|x) || p_theta(z|x) ): what the bound misses is how far the encoder's guess is off.

With w = p_theta(x, z) / q_phi(z|x) and z ~ q_phi, the evidence is a mean, p_theta(x) = E_q[w]. Jensen's inequality for
the logarithm, which is concave, says that the log of a mean is at least the mean of the logs:

    log p_theta(x) = log E_q[w]  >=  E_q[log w] = E_q[log p_theta(x|z)] - KL( q_phi(z|x) || p(z) ) = ELBO           (1)

and Bayes' rule, p_theta(z|x) = p_theta(x, z) / p_theta(x), says by how much:

    log p_theta(x) - ELBO = E_q[ log q_phi(z|x) - log p_theta(z|x) ] = KL( q_phi(z|x) || p_theta(z|x) ) >= 0        (2)

So for a fixed decoder theta, to raise the ELBO over phi is to bring q_phi to the posterior, though nobody can evaluate
that posterior; and there is no gap where q_phi is the posterior, for then w = p_theta(x) whatever z: a constant, and
the log of a mean is the mean of the logs.

With one unit z everything can be computed. The decoder is a curve in the plane, D_theta(z) = (2 z, z^2 - 1), with
p_theta(x|z) = N(D_theta(z), 0.8^2 I). log p(x), the posterior and the KL of (2) are sums over a fine grid of z; the
ELBO is that of narrows, with the KL of (1) in closed form and its expectation by Gauss-Hermite quadrature. Nothing of
the one computation is used in the other.

References: Jordan et al. 1999, Machine Learning 37:183, section 6; Kingma & Welling 2013, arXiv:1312.6114, equation 1.
Run it: python docs/theory/evidence_gap.py
"""

import math
from pathlib import Path

import torch
from numpy.polynomial.hermite_e import hermegauss

import narrows as nr

STEP = 0.002
# integrands are smooth and vanish at both ends: a sum over equal steps is then exact to rounding
GRID = torch.arange(-8, 8 + STEP / 2, STEP, dtype=torch.float64)


def integral(values):
    return values.sum(-1) * STEP


class Curve(torch.nn.Module):  # D_theta
    def forward(self, z):
        return torch.cat([2 * z, z**2 - 1], 1)


class Constant(torch.nn.Module):  # an encoder that says the same q of every x: what narrows' posterior reads, mu and s
    def __init__(self, mean, sigma):
        super().__init__()
        self.h = torch.nn.Parameter(torch.tensor([[mean, math.log(math.expm1(sigma - 1e-6))]]))

    def forward(self, x):
        return self.h.expand(len(x), -1)


def model(mean, sigma):
    posterior = nr.posteriors.Gaussian(nr.priors.StandardNormal(1))
    return nr.Autoencoder(Constant(mean, sigma), posterior, Curve(), nr.likelihoods.Gaussian((2,), sigma=0.8))


def elbo(vae, x, nodes=64):  # (1), nats, by narrows' distortion and rate; the expectation by Gauss-Hermite quadrature
    points, weights = map(torch.as_tensor, hermegauss(nodes))
    code = vae.encode(x)
    q = code.q.base_dist
    distortion = -vae.decode(q.loc + q.scale * points[:, None]).log_prob(x)  # (nodes,)
    return -float((weights / weights.sum() @ distortion + code.rate[0]).detach())


def joint(x):  # log p(x, z) on the grid, from its definition
    squares = (x[0, 0] - 2 * GRID) ** 2 + (x[0, 1] - GRID**2 + 1) ** 2
    return -squares / (2 * 0.8**2) - math.log(2 * math.pi * 0.8**2) - GRID**2 / 2 - 0.5 * math.log(2 * math.pi)


def log_evidence(x):
    return float(integral(joint(x).exp()).log())


def gap(x, mean, sigma):  # KL(q || p(z|x)), the right side of (2)
    log_q = -(((GRID - mean) / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
    return float(integral(log_q.exp() * (log_q - joint(x) + log_evidence(x))))


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    x = torch.tensor([[1.2, 0.6]])
    evidence = log_evidence(x)
    print(f"log p(x) = {evidence:.10f} nats\n   q's mean  sigma          ELBO            KL           sum")
    for mean, sigma in ((0.0, 1.0), (0.5, 0.5), (0.8, 0.25), (1.2, 0.25), (0.8, 0.05)):
        bound, kl = elbo(model(mean, sigma), x), gap(x, mean, sigma)
        print(f"   {mean:8} {sigma:6} {bound:13.10f} {kl:13.10f} {bound + kl:13.10f}")

    figure = Figure(figsize=(10, 3.3), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    mean, sigma = 0.5, 0.5
    log_q = -(((GRID - mean) / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
    first.plot(GRID, (joint(x) - evidence).exp(), color="#2563a8", label="posterior p(z|x)")
    first.plot(GRID, log_q.exp(), color="#d9822b", label=f"q = N({mean}, {sigma}²)")
    first.plot(GRID, (-(GRID**2) / 2).exp() / math.sqrt(2 * math.pi), color="#8a8f98", lw=1, label="prior p(z)")
    first.set(xlim=(-2.5, 3.2), ylim=(0, 1.6), xlabel="z", ylabel="density", title="a guess at the posterior")
    first.legend(frameon=False, fontsize=8)
    means = [float(m) for m in torch.linspace(-0.4, 1.8, 45)]
    bounds = [elbo(model(m, 0.25), x) for m in means]
    second.axhline(evidence, color="#2563a8", lw=1.4, label="log p(x)")
    second.plot(means, bounds, color="#d9822b", label="ELBO")
    second.fill_between(means, bounds, evidence, color="#d9822b", alpha=0.15, lw=0, label="KL(q ‖ p(z|x))")
    second.set(xlabel="mean of q, at σ = 0.25", ylabel="nats", title="the gap is a KL")
    second.legend(frameon=False, fontsize=8, loc="lower center")
    quantiles = torch.linspace(0.04, 0.96, 24)
    z = mean + sigma * math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    where = ((z - GRID[0]) / STEP).round().long()
    w = (joint(x) - log_q)[where].exp()  # w at 24 equally probable places of q
    bound = elbo(model(mean, sigma), x)
    line = torch.linspace(float(w.min()) * 0.75, float(w.max()) * 1.08, 200)
    third.plot(line, line.log(), color="#8a8f98", lw=1, label="log w")
    third.plot(w, w.log(), "o", ms=3.5, color="#d9822b", label="draws of q, equally probable")
    third.plot([math.exp(evidence)], [evidence], "o", color="#2563a8", label="log E w = log p(x)")
    third.axhline(evidence, color="#2563a8", lw=0.8, ls="--")
    third.axhline(bound, color="#d9822b", lw=0.8, ls="--", label="E log w = ELBO")
    third.set(xlabel="w = p(x, z) / q(z|x)", ylabel="log w", title="Jensen's inequality")
    third.legend(frameon=False, fontsize=8, loc="lower right")
    for ax in (first, second, third):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "evidence_gap.png", dpi=100)


if __name__ == "__main__":
    main()
