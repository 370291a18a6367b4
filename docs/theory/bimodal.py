"""A posterior with two modes: what a normal q cannot say, and a flow can.

Let the decoder fold the line, D_theta(z) = z^2, with x = z^2 + noise. Which z made x = 2? Either of +-1.4, and the
posterior has two equal bumps. The ELBO's gap is KL( q(z|x) || p_theta(z|x) ) (evidence_gap.py), which punishes q where
the posterior is small. So the best normal q keeps to one bump, and if they lie far apart it misses

    KL = log 2 = 0.693 nats                                                                                         (1)

of the evidence, for it puts the mass 1 where the posterior has 1/2. No encoder phi, however large, can do better: this
is the approximation gap, a matter of the family of q (amortisation.py is about the other gap).

A normalizing flow takes the normal noise epsilon through an invertible map, z = T(epsilon), with density

    log q(z) = log N(epsilon; 0, 1) - log T'(epsilon)                                                               (2)

T that is steep in the middle pulls the noise apart into two bumps. Any increasing T will do on the line; here

    T(e) = a + b e + sum_j c_j tanh( (e - d_j) / w_j ),   b, c_j, w_j > 0

The expectation over epsilon is a sum over a grid, log p_theta(x) and the posterior are sums over another: no sampling,
so the gaps are exact up to how well T was optimised. Distortions are those of narrows.

References: Rezende & Mohamed 2015, arXiv:1505.05770, equations 5 and 15; Huang et al. 2018, arXiv:1804.00779, for sums
of sigmoids as T; Cremer et al. 2018, arXiv:1801.03558, for the names of the gaps.
Run it: python docs/theory/bimodal.py
"""

import math
from pathlib import Path

import torch
from torch.nn.functional import softplus

import narrows as nr

NOISE = 0.6
STEP = 0.004
GRID = torch.arange(-5, 5 + STEP / 2, STEP, dtype=torch.float64)  # of z
COARSE = torch.arange(-6, 6.002, 0.004, dtype=torch.float64)  # of epsilon, to find T with
FINE = torch.arange(-6, 6.0005, 0.001, dtype=torch.float64)  # and to say how good it is
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def log_joint(x, z):  # log p(x|z) + log p(z), nats; p(x|z) is narrows' likelihood at the decoder's z^2
    px = nr.likelihoods.Gaussian((1,), sigma=NOISE)((z**2)[:, None, None])
    return px.log_prob(torch.full((len(z), 1), x)) - z**2 / 2 - HALF_LOG_TAU


def log_evidence(x):
    return float(log_joint(x, GRID).logsumexp(0)) + math.log(STEP)


def flow(epsilon, parameters):  # T and log T' on a grid of epsilon
    a, b, c, d, w = parameters
    b, c, w = softplus(b), softplus(c), softplus(w) + 0.005  # bounded slopes: no T tears the line
    t = torch.tanh((epsilon[:, None] - d) / w)  # (grid, J)
    return a + b * epsilon + t @ c, (b + (1 - t**2) @ (c / w)).log()


def normal(epsilon, parameters):
    a, b = parameters
    return a + softplus(b) * epsilon, softplus(b).log().expand(len(epsilon))


def density(family, parameters, epsilon=FINE):  # z and log q(z), (2), where the noise is epsilon
    z, log_slope = family(epsilon, parameters)
    return z, -(epsilon**2) / 2 - HALF_LOG_TAU - log_slope


def gap(x, family, parameters, epsilon=FINE):  # log p(x) - ELBO, nats
    z, log_q = density(family, parameters, epsilon)
    return log_evidence(x) - (-(epsilon**2) / 2).softmax(0) @ (log_joint(x, z) - log_q)


def fitted(x, family, start, steps=150):  # the parameters of the best q that gradient descent finds, and its gap
    parameters = [torch.as_tensor(p, dtype=torch.float64).clone().requires_grad_() for p in start]
    optimiser = torch.optim.LBFGS(parameters, max_iter=steps, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = gap(x, family, parameters, COARSE)
        loss.backward()
        return loss

    optimiser.step(closure)
    parameters = [p.detach() for p in parameters]
    return float(gap(x, family, parameters)), parameters


def best_normal(x):  # of three starts: on the right bump, wide in the middle, narrow in the middle
    mode = math.sqrt(max(x, 0.05))
    return min((fitted(x, normal, start) for start in ((mode, -1.5), (0.0, 0.5), (0.0, -1.0))), key=lambda f: f[0])


def best_flow(x):
    smooth = (0.0, 0.0, [0.5] * 3, [-0.5, 0.0, 0.5], [-1.0] * 3)
    apart = (
        0.0,
        -2.0,
        [-3.0, math.log(math.expm1(math.sqrt(max(x, 0.05)))), -3.0],
        [-1.0, 0.0, 1.0],
        [-1.0, -3.0, -1.0],
    )
    return min((fitted(x, flow, start) for start in (smooth, apart)), key=lambda f: f[0])


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    places = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    normals, flows = [best_normal(x) for x in places], [best_flow(x) for x in places]
    print("    x     log p(x)   gap of a normal   gap of a flow, nats    (log 2 = 0.6931)")
    for x, (a, _), (b, _) in zip(places, normals, flows, strict=True):
        print(f"{x:5}   {log_evidence(x):10.5f}   {a:15.5f}   {b:13.5f}")

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    i = places.index(2.0)
    left.fill_between(GRID, (log_joint(2.0, GRID) - log_evidence(2.0)).exp(), color="#8a8f98", alpha=0.35, lw=0,
                      label="posterior p(z | x = 2)")  # fmt: skip
    for found, family, colour, label in (
        (normals, normal, "#d9822b", "best normal q"),
        (flows, flow, "#2563a8", "a flow"),
    ):
        z, log_q = density(family, found[i][1])
        left.plot(z, log_q.exp(), color=colour, lw=1.4, label=label)
    left.set(xlim=(-2.6, 2.6), ylim=(0, 2.4), xlabel="z", ylabel="density", title="two bumps")
    left.legend(frameon=False, fontsize=9, loc="upper left")
    right.axhline(math.log(2), color="#8a8f98", lw=1, ls="--")
    right.text(-1, math.log(2) + 0.015, "log 2", fontsize=9, color="#5c6068")
    right.plot(places, [a for a, _ in normals], "o-", ms=4, color="#d9822b", label="best normal q")
    right.plot(places, [b for b, _ in flows], "o-", ms=4, color="#2563a8", label="a flow")
    right.set(xlabel="x", ylabel="gap log p(x) − ELBO, nats", title="what it costs", ylim=(0, 0.8))
    right.legend(frameon=False, fontsize=9, loc="center right")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "bimodal.png", dpi=100)


if __name__ == "__main__":
    main()
