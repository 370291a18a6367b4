"""The Gibbs (Donsker-Varadhan) principle: the best q against a price of KL, and why the ELBO is an equality at its top.

For any function f and density p, over all densities q,

    sup_q  E_q[f] - KL(q || p)  =  log E_p[e^f],      reached at   q*(z) = p(z) e^f(z) / E_p[e^f]                   (1)

since E_q[f] - KL(q || p) = log E_p[e^f] - KL(q || q*), in one line. With g = f + log p in the place of both it is the
principle of statistical mechanics: mean energy and entropy H together are at most the free energy,

    sup_q  E_q[g] + H(q)  =  log of the integral of e^g,     reached at the normalised integrand  q* = e^g / that    (2)

Take f(z) = log p_theta(x|z) and the prior for p: (1) reads  sup over q of the ELBO = log p_theta(x), q* the posterior.
Take g(z) = log p_theta(x, z): (2) is the same once more. An encoder q_phi is a q that can be computed, and whatever
family it comes from, the supremum over it is at most that.

Turned round, with the supremum over functions, it gives the KL itself (what a critic learns from samples):

    KL(q || p) = sup_f  E_q[f] - log E_p[e^f],      reached at   f = log q/p + any constant                          (3)

The page climbs (1) by gradient over a q that is free in each of 400 cells, and over normal q with the KL of narrows,
for an f with two bumps; and walks through the optimum of (1) and of (3) along a line.

References: Donsker & Varadhan 1975, Communications on Pure and Applied Mathematics 28:1, for (3); Jordan et al. 1999,
Machine Learning 37:183, for (2); Zellner 1988, American Statistician 42:278, for the posterior as its optimum.
Run it: python docs/theory/gibbs.py
"""

import math
from pathlib import Path

import torch
from torch.distributions import Independent, Normal

import narrows as nr

STEP = 0.02
GRID = torch.arange(-4, 4, STEP, dtype=torch.float64) + STEP / 2  # the middles of 400 cells


def log_prior(z):  # of a cell's middle; normalised over the cells, so that (1) to (3) hold for the sums exactly
    return (-(z**2) / 2).log_softmax(0) - math.log(STEP)


def bumps(z):  # f
    return 5 * torch.exp(-(((z + 1) / 0.6) ** 2)) + 4.5 * torch.exp(-(((z - 1.2) / 0.7) ** 2))


def objective(log_q, f, log_p):  # E_q[f] - KL(q || p) of densities on the cells
    return (log_q.exp() * (f - log_q + log_p)).sum() * STEP


def free_energy(f, log_p):  # log E_p[e^f]
    return float((f + log_p).logsumexp(0)) + math.log(STEP)


def best(f, log_p):  # log q*
    return f + log_p - free_energy(f, log_p)


def climb(f, log_p, steps=40, rate=0.5):  # ascent over all densities on the cells, from the prior; values on the way
    log_q, values = log_p, []
    for _ in range(steps):
        q = log_q.exp().requires_grad_()
        value = objective(q.log(), f, log_p)
        (slope,) = torch.autograd.grad(value, q)  # of each cell, times STEP: f - log q + log p - 1
        values.append(float(value.detach()))
        # exponentiated gradient: q stays a density
        log_q = (log_q + rate * slope / STEP).log_softmax(0) - math.log(STEP)
    return values, log_q


def gaussian(f, start, steps=400):  # the best normal q against N(0, 1) from a start: value, mean, sigma
    mean, s = torch.tensor([start], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    optimiser = torch.optim.Adam([mean, s], lr=0.03)
    prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
    for _ in range(steps):
        q = Independent(Normal(mean, s.exp()), 1)
        weights = (q.log_prob(GRID[:, None])).softmax(0)
        value = weights @ f - nr.divergences.kl(q, prior).sum()
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    return float(value.detach()), float(mean.detach()), float(s.exp().detach())


def donsker_varadhan(f, log_q, log_p):  # E_q[f] - log E_p[e^f], the inside of (3)
    return float((log_q.exp() * f).sum() * STEP) - free_energy(f, log_p)


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    f, log_p = bumps(GRID), log_prior(GRID)
    top, log_star = free_energy(f, log_p), best(f, log_p)
    values, found = climb(f, log_p)
    normals = [gaussian(f, start) for start in (-1.0, 1.0)]
    kl = float((log_star.exp() * (log_star - log_p)).sum() * STEP)
    entropy = -float((log_star.exp() * log_star).sum() * STEP)
    print(f"log E_p[e^f]                               {top:.10f}")
    print(f"E_q[f] - KL(q || p) at q*                  {float(objective(log_star, f, log_p)):.10f}")
    energy = float((log_star.exp() * (f + log_p)).sum() * STEP)
    print(f"E_q[g] + H(q) at q*, g = f + log p         {energy + entropy:.10f}")
    print(f"after 40 steps of ascent from q = p         {values[-1]:.10f}, began at {values[0]:.4f}")
    print(f"largest difference of that q from q*       {float((found.exp() - log_star.exp()).abs().max()):.1e}")
    for value, mean, sigma in normals:
        print(f"a normal q that climbed from a bump        {value:.10f} at N({mean:.3f}, {sigma:.3f}^2)")
    print(f"KL(q* || p) {kl:.10f}; (3) at f            {donsker_varadhan(f, log_star, log_p):.10f}")

    scale = torch.linspace(-0.5, 2.5, 61)
    along = [float(objective(best(t * f, log_p), f, log_p)) for t in scale]
    witness = [donsker_varadhan(t * f, log_star, log_p) for t in scale]
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(GRID, log_p.exp(), color="#8a8f98", lw=1.2, label="p")
    left.plot(GRID, log_star.exp(), color="#2563a8", lw=2, label="q* = p e^f / E e^f")
    left.plot(GRID, found.exp(), color="#d9822b", lw=1, ls="--", label="q after 40 steps of ascent")
    _, mean, sigma = max(normals)
    left.plot(GRID, Normal(mean, sigma).log_prob(GRID).exp(), color="#3a8a5f", lw=1, label="best normal q")
    left.plot(GRID, f / 5, color="black", lw=0.8, ls=":", label="f / 5")
    left.set(xlabel="z", ylabel="density", title="the best q follows e^f as far as KL lets it", ylim=(0, 2.3))
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    right.axhline(top, color="#2563a8", lw=0.8, ls="--")
    right.plot(scale, along, color="#2563a8", label="E_q[f] − KL(q ‖ p) at q ∝ p e^(t f); top: log E_p[e^f]")
    right.axhline(kl, color="#d9822b", lw=0.8, ls="--")
    right.plot(scale, witness, color="#d9822b", label="E_q*[t f] − log E_p[e^(t f)]; top: KL(q* ‖ p)")
    right.axvline(1, color="#8a8f98", lw=0.8)
    right.set(xlabel="t", ylabel="nats", title="both suprema are reached at t = 1", ylim=(-1.3, 4.9))
    right.legend(frameon=False, fontsize=8, loc="upper center")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "gibbs.png", dpi=100)


if __name__ == "__main__":
    main()
