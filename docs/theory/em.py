"""Complete data, expectation maximisation and the ELBO: EM climbs the bound in two directions, one at a time.

Were the codes z known, the likelihood of a linear-Gaussian model theta = (W, mu, sigma) would be that of a regression,

    complete-data log-likelihood:  log p_theta(x, z) = log N(x; W z + mu, sigma^2 I) + log N(z; 0, I)

which is quadratic in everything and maximised in closed form. They are not known; so take the mean over a guess q(z|x),
and add q's entropy H. What comes out is the ELBO:

    ELBO(q, theta) = E_q[ log p_theta(x, z) ] + H(q) = log p_theta(x) - KL( q(z|x) || p_theta(z|x) )                (1)

EM raises it by turns (Neal & Hinton 1998):

    E step   over q at fixed theta:  q = p_theta(z|x) = N( M^-1 W'(x - mu), sigma^2 M^-1 ),  M = W'W + sigma^2 I
             the KL of (1) becomes 0: ELBO = log p_theta(x)                                                         (2)
    M step   over theta at fixed q:  W = [sum (x - mu) m'] [sum m m' + n S]^-1,   m, S mean and covariance of q      (3)
             sigma^2 = mean over rows and values of  E_q (x - mu - W z)^2

The ELBO never falls, and after an E step it *is* the log-likelihood, so that never falls either. It ends at
probabilistic PCA. A variational autoencoder climbs the same function (1) with two differences: q comes from an encoder
phi, the same for all rows (amortised), and both phi and theta take small steps of one gradient. Where theta is a
network, (2) and (3) have no closed form, and only the second way is left.

The page runs EM on (2) and (3); the bound on the way is put together from narrows' likelihood and KL, the evidence and
the optimum come from torch's multivariate normal and from `narrows.pca`.

References: Dempster, Laird & Rubin 1977; Neal & Hinton 1998, "A view of the EM algorithm", theorem 1; Tipping & Bishop
1999, Journal of the Royal Statistical Society B 61:611, equations 25 to 28 (theirs eliminates q).
Run it: python docs/theory/em.py
"""

import math
from pathlib import Path

import torch
from torch.distributions import MultivariateNormal

import narrows as nr
from narrows.pca import fit_pca


def rows(n=300):
    return torch.randn(n, 3) * torch.tensor([2.0, 1.4, 1.0]) @ torch.randn(3, 8) + 0.7 * torch.randn(n, 8) + 1.0


def e_step(x, theta):  # (2): means (n, k) and the covariance (k, k) that all rows share
    w, mu, s2 = theta
    m = w.T @ w + s2 * torch.eye(w.shape[1])
    return torch.linalg.solve(m, w.T @ (x - mu).T).T, s2 * torch.linalg.inv(m)


def m_step(x, q):  # (3), and mu, which is the mean of x whatever q (of the best q)
    mean, covariance = q
    mu = x.mean(0)
    second = mean.T @ mean + len(x) * covariance
    w = torch.linalg.solve(second, mean.T @ (x - mu)).T
    spread = (x - mu - mean @ w.T).square().sum() + len(x) * (w @ covariance @ w.T).trace()
    return w, mu, spread / x.numel()


def elbo(x, q, theta):  # (1) per row, nats, by narrows; 2k points in place of the noise give the mean exactly
    (mean, covariance), (w, mu, s2) = q, theta
    k = mean.shape[1]
    scale = torch.linalg.cholesky(covariance)
    points = math.sqrt(k) * torch.cat([torch.eye(k), -torch.eye(k)]) @ scale.T
    z = (mean + points[:, None]).flatten(0, 1)  # (2k n, k)
    px = nr.likelihoods.Gaussian((x.shape[1],), float(s2.sqrt()))((z @ w.T + mu)[:, None])
    distortion = -px.log_prob(x.repeat(2 * k, 1)).unflatten(0, (2 * k, -1))
    posterior = MultivariateNormal(mean, scale_tril=scale.expand(len(x), k, k))
    rate = nr.divergences.kl(posterior, MultivariateNormal(torch.zeros(k), torch.eye(k))).sum(-1)
    return float(nr.objectives.elbo(distortion, rate[None]).mean())


def log_likelihood(x, theta):  # per row, nats: x ~ N(mu, W W' + sigma^2 I)
    w, mu, s2 = theta
    return float(MultivariateNormal(mu, w @ w.T + s2 * torch.eye(x.shape[1])).log_prob(x).mean())


def em(x, units, iterations):  # every half step: (bound, log-likelihood)
    theta = 0.3 * torch.randn(x.shape[1], units), x.mean(0), torch.tensor(4.0)
    q, trace = e_step(x, theta), []
    for _ in range(iterations):
        trace.append((elbo(x, q, theta), log_likelihood(x, theta)))
        theta = m_step(x, q)
        trace.append((elbo(x, q, theta), log_likelihood(x, theta)))
        q = e_step(x, theta)
    return trace, theta


def optimum(x, units):  # probabilistic PCA, per row, nats
    return float(fit_pca(x, units).log_prob(x).mean())


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x, units = rows(), 3
    trace, _ = em(x, units, 60)
    top = optimum(x, units)
    print("iteration   after the E step: ELBO, log p       after the M step: ELBO, log p")
    for i in (0, 1, 2, 3, 10, 59):
        (a, b), (c, d) = trace[2 * i : 2 * i + 2]
        print(f"  {i:7}   {a:14.8f} {b:14.8f}      {c:14.8f} {d:14.8f}")
    print(f"probabilistic PCA, where it ends:           {top:.8f}")

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    first = trace[:13]
    places = [i / 2 for i in range(13)]
    left.plot(places, [b for _, b in first], "o-", ms=4, color="#2563a8", lw=1, label="log p(x)")
    left.plot(places, [a for a, _ in first], "o-", ms=4, color="#d9822b", lw=1, label="ELBO")
    left.fill_between(places, [a for a, _ in first], [b for _, b in first], color="#d9822b", alpha=0.2, lw=0)
    left.annotate("M step: both rise,\nq is stale", (0.5, sum(trace[1]) / 2), xytext=(-0.1, sum(trace[1]) / 2 + 1.6),
                  arrowprops={"arrowstyle": "-", "lw": 0.6}, fontsize=9)  # fmt: skip
    left.annotate("E step: the bound\ntouches", (2, trace[4][0]), xytext=(2.7, trace[4][0] - 0.9),
                  arrowprops={"arrowstyle": "-", "lw": 0.6}, fontsize=9)  # fmt: skip
    left.set(xlabel="iteration", ylabel="nats a row", title="up the bound, one direction at a time")
    left.legend(frameon=False, fontsize=9, loc="lower right")
    right.semilogy(
        range(60),
        [top - trace[2 * i][1] for i in range(60)],
        color="#2563a8",
        label="of log p(x) from probabilistic PCA",
    )
    right.semilogy(range(60), [trace[2 * i + 1][1] - trace[2 * i + 1][0] for i in range(60)], color="#d9822b",
                   label="of the ELBO from log p(x), after the M step")  # fmt: skip
    right.set(xlabel="iteration", ylabel="nats a row", title="it converges, in the end by a constant factor")
    right.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "em.png", dpi=100)


if __name__ == "__main__":
    main()
