"""Reconstruction + lambda KL is the evidence lower bound: the variational autoencoder from both sides.

From the one side, an autoencoder. An encoder phi makes a code of x, a decoder D_theta makes a picture of the code, and
so that codes fill the plane without holes, each is blurred to q_phi(z|x) = N(mu, diag s^2) and pulled towards N(0, I):

    lecture:  E_q |x - D_theta(z)|^2 + lambda KL( q_phi(z|x) || N(0, I) )

From the other side, a model of where x comes from: z ~ N(0, I), then x ~ N(D_theta(z), sigma^2 I). Its log-likelihood
has no closed form, but by Jensen's inequality log p_theta(x) >= ELBO, and in nats, with all constants,

    ours:    -ELBO = distortion + rate = E_q[ |x - D_theta(z)|^2 / (2 sigma^2) + d/2 log(2 pi sigma^2) ] + KL

Multiply by 2 sigma^2: with lambda = 2 sigma^2 the two are the same function of phi and theta, up to a constant,

    E_q |x - D|^2 + lambda KL  =  lambda (-ELBO) - lambda/2 d log(pi lambda),                                      (1)

so they have the same minima. A weight beta before the rate changes nothing but the number: lambda = 2 beta sigma^2.

What the probabilistic side adds is the constant. The lecture's loss is the smaller the smaller lambda is, and cannot
say which lambda is right; the ELBO can, since for every lambda it bounds a log-likelihood of the same data, and those
compare. Its best lambda is, at fixed networks,

    lambda = 2 sigma^2,   sigma^2 = E |x - D|^2 / d:  the mean squared error of a pixel.                            (2)

The figure shows it where everything is known: a linear decoder, for which theta, phi and so both losses have a closed
form (linear_vae.py). With l_i the eigenvalues of the data's covariance and k units, the smallest loss is

    -ELBO = d/2 log(2 pi sigma^2) + sum over units with l_i > sigma^2 of (1 + log(l_i / sigma^2)) / 2
            + sum over all other i of l_i / (2 sigma^2)                                                             (3)

and its minimum lies at the sigma^2 of probabilistic PCA, the mean of the eigenvalues that no unit stands for.

References: Kingma & Welling 2013, arXiv:1312.6114, equations 3 and 10; Lucas et al. 2019, arXiv:1911.02469, section 4;
Rybkin et al. 2021, arXiv:2006.13202, section 3 for (2).
Run it: python docs/theory/two_sides.py
"""

import math
from functools import partial
from pathlib import Path

import torch

import narrows as nr


def ours(model, x, noise, beta=1.0):  # (B,) nats: distortion + beta * rate as narrows has them; noise (K, B, latent)
    q = model.encode(x).q.base_dist
    z = (q.loc + q.scale * noise).flatten(0, 1)  # (K B, latent)
    distortion = -model.decode(z).log_prob(x.repeat(len(noise), 1)).unflatten(0, (len(noise), -1))
    return -nr.objectives.elbo(distortion, model.encode(x).rate[None], beta)


def lecture(model, x, noise, weight):  # (B,) |x - D(z)|^2 + lambda KL, written out: no density, no constant
    mu, s = model.encoder(x).chunk(2, 1)
    sigma = torch.nn.functional.softplus(s) + 1e-6
    squares = 0.0
    for epsilon in noise:
        squares = squares + (x - model.decoder(mu + sigma * epsilon)[:, 0]).square().sum(1) / len(noise)
    return squares + weight * (0.5 * (mu**2 + sigma**2 - 1) - sigma.log()).sum(1)


def from_ours(minus_elbo, weight, d):  # the right side of (1)
    return weight * minus_elbo - weight / 2 * d * math.log(math.pi * weight)


def smallest(eigenvalues, units, sigma2):  # (3): the least -ELBO of a linear VAE, nats
    top, rest = eigenvalues[:units], eigenvalues[units:]
    active = top > sigma2
    paid = torch.where(active, 0.5 * (1 + (top / sigma2).log()), 0.5 * top / sigma2).sum()
    return float(paid + 0.5 * rest.sum() / sigma2) + len(eigenvalues) / 2 * math.log(2 * math.pi * sigma2)


def main():
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16)
    d, units = x.shape[1], 8

    print("any networks, here with random weights, and the same noise: both sides of (1), mean over 100 digits")
    noise = torch.randn(5, 100, units)
    for beta, sigma in ((1.0, 1.0), (1.0, 0.2), (4.0, 0.2)):
        model, _ = nr.recipes.vae((d,), latent=units, likelihood=partial(nr.likelihoods.Gaussian, sigma=sigma))
        weight = 2 * beta * sigma**2
        a = lecture(model, x[:100], noise, weight).mean()
        constant = d / 2 * math.log(2 * math.pi * sigma**2)
        b = 2 * sigma**2 * (ours(model, x[:100], noise, beta).mean() - constant)
        print(f"  beta {beta:.0f}, sigma {sigma}: lambda {weight:.2f}: lecture {a:.10f}, ours {b:.10f}")

    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0).clamp_min(0)
    best = float(values[units:].mean())  # sigma^2 of probabilistic PCA
    print(f"\nlinear, {units} units, digits: -ELBO is least at sigma^2 = {best:.5f}, lambda = {2 * best:.5f}")
    grid = [float(v) for v in torch.logspace(-2.8, 0.3, 80)]  # lambda
    bound = [smallest(values, units, v / 2) for v in grid]
    plain = [from_ours(b, v, d) for b, v in zip(bound, grid, strict=True)]
    print("  lambda   lecture's loss     -ELBO")
    for i in range(0, 80, 11):
        print(f"  {grid[i]:.4f}   {plain[i]:12.4f}   {bound[i]:8.2f}")

    figure = Figure(figsize=(9, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogx(grid, plain, color="#2563a8")
    left.set(xlabel="λ", ylabel="least  |x − D(z)|² + λ KL", title="the lecture's loss: the smaller λ, the smaller")
    right.semilogx(grid, bound, color="#d9822b")
    right.axvline(2 * best, color="#8a8f98", ls="--", lw=1)
    right.annotate("λ = 2σ², σ² = mean squared\nerror of a pixel", (2 * best, 150),
                   xytext=(8, 0), textcoords="offset points", fontsize=9)  # fmt: skip
    right.set(xlabel="λ = 2σ²", ylabel="least −ELBO, nats", title="the same model in nats has a best λ",
              ylim=(-30, 260))  # fmt: skip
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "two_sides.png", dpi=100)


if __name__ == "__main__":
    main()
