"""The importance-weighted bound rises to log p(x) as the number K of draws grows, and is short of it by about 1/K.

Instead of one draw take K from the encoder, z_1 ... z_K ~ q_phi(z|x), with w_k = p_theta(x, z_k) / q_phi(z_k|x):

    L_K = E[ log (w_1 + ... + w_K) / K ],      L_1 = ELBO <= L_2 <= ... <= log p_theta(x)                            (1)

The mean of K weights has the expectation p_theta(x) like a single one but scatters less, so that Jensen's inequality
costs less. For many draws, by the delta method, with R = w / p_theta(x), whose mean is 1,

    log p_theta(x) - L_K  =  Var(R) / (2 K) + O(1 / K^2),     Var(R) = integral of p_theta(z|x)^2 / q_phi(z|x) - 1   (2)

if that integral is finite: q_phi must not be narrower than the posterior in its tails. Where it is infinite, L_K still
rises to log p(x), but slower.

L_K itself can be had without sampling: log r is the integral over t of (e^-t - e^-tr) / t (Frullani), and of a mean of
K independent weights the expectation of e^-tr is the K-th power of that of one. So with phi(u) = E_q[e^(-u R)],

    L_K - log p_theta(x) = integral over t > 0 of ( e^-t - phi(t/K)^K ) / t                                          (3)

which is a sum over a grid of v = log t, with phi(u) another over a grid of z. The page takes x = z + noise, whose
posterior is known, and q wider than it and displaced; and holds (3) against `nr.objectives.iwae` on draws.

References: Burda et al. 2015, arXiv:1509.00519, theorem 1; Domke & Sheldon 2018, arXiv:1808.09034, theorem 3, and
Nowozin 2018, ICLR ("Debiasing Evidence Approximations"), proposition 1, for (2).
Run it: python docs/theory/importance.py
"""

import math
from pathlib import Path

import torch

import narrows as nr

NOISE = 0.5  # sigma of p(x|z) = N(z, sigma^2): the posterior is N(x / (1 + sigma^2), sigma^2 / (1 + sigma^2))


def posterior(x):  # mean and standard deviation
    return x / (1 + NOISE**2), NOISE / math.sqrt(1 + NOISE**2)


def log_evidence(x):  # x ~ N(0, 1 + sigma^2)
    return -(x**2) / (2 * (1 + NOISE**2)) - 0.5 * math.log(2 * math.pi * (1 + NOISE**2))


def model(x, shift, stretch):  # narrows: q of every x is the posterior of this x, displaced and stretched
    mean, s = posterior(x)
    encoder, decoder = nr.networks.Mlp((1,), (2,), hidden=()), nr.networks.Mlp((1,), (1, 1), hidden=())
    q, p = nr.posteriors.Gaussian(nr.priors.StandardNormal(1)), nr.likelihoods.Gaussian((1,), sigma=NOISE)
    with torch.no_grad():
        encoder.layers[0].weight.zero_()
        encoder.layers[0].bias.copy_(torch.tensor([mean + shift * s, math.log(math.expm1(stretch * s - 1e-6))]))
        decoder.layers[0].weight.fill_(1)
        decoder.layers[0].bias.zero_()
    return nr.Autoencoder(encoder, q, decoder, p)


def sampled(vae, x, k, groups, seed=0):  # L_K of narrows: mean over groups of K draws, and its standard error
    with nr.draws.seeded(seed), torch.no_grad():
        distortion, rate = nr.objectives.log_weights(*vae(torch.tensor([[x]]), samples=k * groups), torch.tensor([[x]]))
    values = nr.objectives.iwae(distortion.view(k, groups), rate.view(k, groups))
    return float(values.mean()), float(values.std()) / math.sqrt(groups)


def ratios(shift, stretch, step=0.01):  # log R on a grid of e, z = mean + stretch s e + shift s, with e ~ N(0, 1)
    e = torch.arange(-12, 12, step)
    u = shift + stretch * e  # in standard deviations of the posterior
    return -(u**2) / 2 + math.log(stretch) + e**2 / 2, (-(e**2) / 2).softmax(0)


def gap(k, shift, stretch):  # log p(x) - L_K by (3)
    log_r, weights = ratios(shift, stretch)
    step = 0.1
    v = torch.arange(-40, 260, step)  # far out: phi falls no faster than q's tails, where R is small
    # 1 - phi keeps its digits where u R is small
    phi = torch.cat([-torch.expm1(-(part - math.log(k) + log_r).exp()) @ weights for part in v[:, None].split(100)])
    return float(((k * torch.log1p(-phi)).exp() - (-v.exp()).exp()).sum() * step)


def asymptote(shift, stretch):  # Var(R) / 2, in closed form for two normals; infinite for stretch^2 <= 1/2
    precision = 2 - 1 / stretch**2
    return (stretch / math.sqrt(precision) * math.exp((shift / stretch) ** 2 / precision) - 1) / 2


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    x, cases = 1.0, ((0.8, 1.5), (0.0, 2.5))
    evidence = log_evidence(x)
    print(f"log p(x) = {evidence:.6f} nats")
    ks = [1, 2, 5, 10, 50, 200, 1000]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(evidence, color="#8a8f98", lw=1, ls="--", label="log p(x)")
    for (shift, stretch), colour in zip(cases, ("#2563a8", "#d9822b"), strict=True):
        vae = model(x, shift, stretch)
        print(f"q displaced by {shift} and stretched by {stretch} standard deviations of the posterior")
        print("      K    L_K by (3)   narrows' iwae on draws     K x gap   (Var(R) / 2 = "
              f"{asymptote(shift, stretch):.5f})")  # fmt: skip
        exact, drawn = [], []
        for k in ks:
            exact.append(gap(k, shift, stretch))
            drawn.append(sampled(vae, x, k, 200_000 // k))
            ours = "{:.6f} +- {:.6f}".format(*drawn[-1])
            print(f"  {k:5}   {evidence - exact[-1]:.6f}    {ours}   {k * exact[-1]:.5f}")
        label = f"q displaced {shift}, stretched {stretch}"
        left.semilogx(ks, [evidence - g for g in exact], color=colour, lw=1.2, label=label)
        left.errorbar(ks, [a for a, _ in drawn], [2 * b for _, b in drawn], fmt="o", ms=4, color=colour)
        right.loglog(ks, exact, "o-", ms=4, color=colour, label=label)
        right.loglog(ks, [asymptote(shift, stretch) / k for k in ks], ":", color=colour, label="Var(R) / 2K")
    left.set(xlabel="draws K", ylabel="L_K, nats", title="exact (lines) and narrows' iwae (dots)")
    right.set(xlabel="draws K", ylabel="log p(x) − L_K, nats", title="ten times the draws, a tenth of the gap")
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "importance.png", dpi=100)


if __name__ == "__main__":
    main()
