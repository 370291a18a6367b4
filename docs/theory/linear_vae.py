"""A linear variational autoencoder is probabilistic PCA, and shows exactly when a unit of the code collapses.

Let both networks be affine, with theta = (W, mu, sigma) and phi = (V, D), D diagonal:

    p(z) = N(0, I),   p_theta(x|z) = N(W z + mu, sigma^2 I),   q_phi(z|x) = N(V (x - mu), D)

Then log p_theta(x) is known, x ~ N(mu, W W' + sigma^2 I), and so is its maximum: probabilistic PCA (Tipping & Bishop
1999). With l_1 >= l_2 >= ... the eigenvalues of the data's covariance, u_i its eigenvectors and k units,

    W = columns u_i (l_i - sigma^2)^(1/2),   sigma^2 = mean of the d - k eigenvalues left over,
    log p(x) per row = -1/2 [ d log 2 pi + sum_{i<=k} log l_i + (d - k) log sigma^2 + d ].                          (1)

In general the ELBO lies below log p(x), by as much as q_phi misses the posterior. Here the posterior at this W is
diagonal and linear in x, so q_phi can be it: the maximum of the ELBO *is* (1), and reached by gradient alone.

Now fix sigma and weigh the rate: distortion + beta * rate, or |x - D(z)|^2 + lambda KL with lambda = 2 beta sigma^2
(two_sides.py). At the optimum unit i has

    rate (KL) = 1/2 log( l_i / (beta sigma^2) ) nats  if l_i > beta sigma^2 = lambda / 2,  else exactly 0            (2)

A unit pays for itself only where the data vary by more than beta sigma^2 along it. Where they do not, the best it can
do is to ignore x: posterior collapse. No bug and no bad optimiser: it is the optimum (Lucas et al. 2019).

The page trains linear VAEs of narrows by gradient from random weights and holds them against (1) and (2). The
distortion is quadratic in the noise, so the 2k points +-sqrt(k) e_i give its expectation exactly, without sampling.

References: Tipping & Bishop 1999, Journal of the Royal Statistical Society B 61:611, equations 7 and 8; Lucas et al.
2019, arXiv:1911.02469, sections 4 and 5 (beta sigma^2 for their sigma^2); Dai et al. 2018, arXiv:1706.05148.
Run it: python docs/theory/linear_vae.py
"""

import math
from functools import partial
from pathlib import Path

import torch

import narrows as nr


def rows(eigenvalues, n=60):  # n rows whose covariance has exactly these eigenvalues, in random directions
    d = len(eigenvalues)
    white = torch.randn(n, d)
    white = torch.linalg.qr(white - white.mean(0))[0] * math.sqrt(n)
    return white * torch.as_tensor(eigenvalues).sqrt() @ torch.linalg.qr(torch.randn(d, d))[0]


def exact_loss(model, x, beta=1.0):  # distortion + beta * rate, averaged over the rows, without Monte Carlo error
    code = model.encode(x)
    k, q = model.latent, code.q.base_dist
    points = math.sqrt(k) * torch.cat([torch.eye(k), -torch.eye(k)])[:, None]  # (2k, 1, k)
    z = (q.loc + q.scale * points).flatten(0, 1)
    distortion = -model.decode(z).log_prob(x.repeat(2 * k, 1)).unflatten(0, (2 * k, -1))
    return -nr.objectives.elbo(distortion, code.rate[None], beta).mean()


def trained(x, units, beta=1.0, sigma=None):  # a linear VAE at the end of gradient descent; sigma=None learns it
    likelihood = partial(nr.likelihoods.Gaussian, sigma=sigma or 1.0, learn=None if sigma else "shared")
    network = partial(nr.networks.Mlp, hidden=())
    model, _ = nr.recipes.vae((x.shape[1],), latent=units, likelihood=likelihood, network=network)
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=400, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = exact_loss(model, x, beta)
        loss.backward()
        return loss

    optimiser.step(closure)
    return model


def log_likelihood(eigenvalues, units):  # (1), nats a row
    values, d = torch.as_tensor(eigenvalues), len(eigenvalues)
    noise = values[units:].mean()
    return -0.5 * float(d * math.log(2 * math.pi) + values[:units].log().sum() + (d - units) * noise.log() + d)


def rate(eigenvalue, effective):  # (2), nats; effective = beta sigma^2
    return max(0.0, 0.5 * math.log(eigenvalue / effective))


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    eigenvalues = [4.0, 2.0, 1.0, 0.4, 0.2, 0.1]
    x = rows(eigenvalues)

    print("units   ELBO at the end of training   log-likelihood (1)   torch's N(mu, WW' + sigma^2 I)")
    reached = []
    for units in range(1, 6):
        model = trained(x, units)
        reached.append(-float(exact_loss(model, x).detach()))
        w, mu = model.decoder.layers[0].weight, model.decoder.layers[0].bias
        covariance = w @ w.T + model.likelihood.sigma**2 * torch.eye(6)
        direct = torch.distributions.MultivariateNormal(mu, covariance).log_prob(x).mean()
        print(f"{units:5}   {reached[-1]:27.8f}   {log_likelihood(eigenvalues, units):18.8f}   {direct:30.8f}")

    sigma, units = 0.5, 4
    betas = [0.1, 0.25, 0.6, 1.2, 2.5, 6.0, 12.0, 30.0]
    print(f"\nsigma = {sigma} fixed, {units} units: rate of each unit at the end of training, and (2)")
    found = []
    for beta in betas:
        rates = trained(x, units, beta, sigma).encode(x).rates.mean(0).detach().sort(descending=True).values
        found.append([abs(float(r)) for r in rates])
        told = [rate(value, beta * sigma**2) for value in eigenvalues[:units]]
        print(f"  beta {beta:5}: " + "  ".join(f"{a:.6f} ({b:.6f})" for a, b in zip(found[-1], told, strict=True)))

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, 6), [log_likelihood(eigenvalues, k) for k in range(1, 6)], color="#8a8f98", lw=1.5,
              label="log p(x), probabilistic PCA")  # fmt: skip
    left.plot(range(1, 6), reached, "o", color="#2563a8", label="ELBO of a trained linear VAE")
    left.set(xlabel="units k", ylabel="nats a row", title="the bound is reached", xticks=range(1, 6))
    left.legend(frameon=False, fontsize=9)
    effective = torch.logspace(-2, 1, 200).tolist()
    for i, colour in enumerate(("#1d4e89", "#2f7fb8", "#d9822b", "#a3541b")):
        right.semilogx(effective, [rate(eigenvalues[i], e) for e in effective], color=colour, lw=1.2)
        right.plot([b * sigma**2 for b in betas], [f[i] for f in found], "o", ms=4, color=colour,
                   label=f"unit {i + 1}, eigenvalue {eigenvalues[i]:g}")  # fmt: skip
    right.set(xlabel="β σ² = λ / 2", ylabel="rate of the unit, nats", title="a unit collapses at β σ² = its eigenvalue")
    right.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "linear_vae.png", dpi=100)


if __name__ == "__main__":
    main()
