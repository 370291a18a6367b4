"""A square penalty on mu and sigma - 1 in place of the KL: the same near the prior, something else away from it.

The KL of one unit and the simplest penalty that also pulls its code to N(0, 1) are

    KL( N(mu, s^2) || N(0, 1) ) = mu^2/2 + s^2/2 - 1/2 - log s          P = mu^2/2 + (s - 1)^2                      (1)

Near s = 1 they agree to second order, KL = mu^2/2 + (s - 1)^2 - (s - 1)^3/3 + ..., and in mu they are the same. So P
too makes a code that overlaps with its neighbours', from which one can sample. What the logarithm does, P does not: as
s -> 0 the KL grows without limit, and P to 1. A code that is sharp to any number of digits costs P one nat and no more.

The rest can be computed for a linear model with one unit, x = w z + noise of variance sigma^2, r = w^2 / sigma^2, on
centred data of variance l. Both have the best mean mu = w x / (w^2 + sigma^2); minimise over s by hand:

    best s     KL: 1 / sqrt(1 + r)       P: 1 / (1 + r/2)
    which adds KL: log(1 + r) / 2        P: r / (2 + r)                    to  l / (2 (w^2 + sigma^2)) + constant   (2)

1. distortion + P is no bound. distortion + KL is -log p_theta(x) here; with P it comes out smaller by
   log(1 + r)/2 - r/(2 + r) > 0, so a likelihood is claimed that the model does not have.                           (3)
2. The unit collapses at the same place, l <= sigma^2 (second order is all that counts there). But the best decoder is

       KL: r = l/sigma^2 - 1          P: r = 2 (a - 1) / (2 - a) with a = sqrt(l / sigma^2),  and none for a >= 2   (4)

   From l = 4 sigma^2 on, w grows without end and s goes to 0: the variational autoencoder becomes a plain one, whose
   codes have holes between them (plain_autoencoder.py). With the lecture's lambda = 2 sigma^2: from l = 2 lambda on.

The page minimises distortion + P of a linear VAE of narrows by gradient and finds (4).

References: Kingma & Welling 2013, arXiv:1312.6114, appendix B for the KL; the rest is derived above.
Run it: python docs/theory/square_penalty.py
"""

import math
from functools import partial
from pathlib import Path

import torch
from torch.distributions import Independent, Normal

import narrows as nr


def kl(mu, s):  # of one unit, by narrows
    q = Independent(Normal(mu[..., None], s[..., None]), 1)
    return nr.divergences.kl(q, Independent(Normal(torch.zeros(1), torch.ones(1)), 1))[..., 0]


def penalty(mu, s):
    return mu**2 / 2 + (s - 1) ** 2


def too_much(r):  # (3): by how much distortion + P lies below -log p(x), nats
    return 0.5 * math.log1p(r) - r / (2 + r)


def best(ratio):  # (4): r for KL and for P at l / sigma^2 = ratio
    a = math.sqrt(ratio)
    return max(0.0, ratio - 1), (max(0.0, 2 * (a - 1) / (2 - a)) if a < 2 else math.inf)


def trained(x, price, steps=300):  # distortion + price(mu, s) of a linear VAE, one unit and sigma = 1: loss, r and s
    network = partial(nr.networks.Mlp, hidden=())
    model, _ = nr.recipes.vae((1,), latent=1, likelihood=partial(nr.likelihoods.Gaussian, sigma=1.0), network=network)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=steps, tolerance_change=1e-15, tolerance_grad=1e-10,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def loss():
        q = model.encode(x).q.base_dist
        z = torch.cat([q.loc - q.scale, q.loc + q.scale])  # two points give the mean of a square exactly
        distortion = -model.decode(z).log_prob(x.repeat(2, 1)).view(2, -1)
        return (distortion.mean(0) + price(q.loc[:, 0], q.scale[:, 0])).mean()

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    r = float(model.decoder.layers[0].weight.detach().square())
    return float(loss().detach()), r, float(model.encode(x).q.base_dist.scale.detach().mean())


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    white = torch.randn(100, 1)
    white = (white - white.mean()) / white.std(correction=0)
    print("   l/sigma^2    r with KL: found (4)       r with P: found (4)         s with P   claims too much, nats")
    places, found = [0.5, 1.5, 2.0, 2.5, 3.0], []
    for ratio in places:
        x = white * math.sqrt(ratio)
        _, r_kl, _ = trained(x, kl)
        loss, r, s = trained(x, penalty)
        found.append(r)
        told = best(ratio)
        log_p = Normal(0.0, math.sqrt(1 + r)).log_prob(x).mean()
        print(f"   {ratio:9}    {r_kl:.6f} ({told[0]:.6f})      {r:10.6f} ({told[1]:.6f})    {s:.6f}   "
              f"{-log_p - loss:.6f} ({too_much(r):.6f})")  # fmt: skip
    _, r, s = trained(white * math.sqrt(5), penalty)
    print(f"           5    with P, where (4) has no optimum: after 300 steps r = {r:.3g}, s = {s:.2g}")

    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    s = torch.linspace(0.004, 2.4, 400)
    first.plot(s, kl(torch.zeros(()), s), color="#2563a8", label="KL")
    first.plot(s, penalty(0.0, s), color="#d9822b", label="(s − 1)²")
    first.set(xlabel="s", ylabel="nats, at μ = 0", ylim=(0, 4), title="alike near 1, not near 0")
    first.legend(frameon=False, fontsize=9)
    ratios = torch.linspace(0.2, 3.9, 300).tolist()
    second.plot(ratios, [best(v)[0] for v in ratios], color="#2563a8", label="with KL")
    second.plot(ratios, [best(v)[1] for v in ratios], color="#d9822b", label="with the squares")
    second.plot(places, found, "o", ms=4, color="#d9822b", label="narrows, trained")
    second.axvline(4, color="#8a8f98", lw=1, ls="--")
    second.set(xlabel="l / σ²", ylabel="best w² / σ²", title="no optimum beyond l = 4σ²")
    second.set(xlim=(0.2, 4.4), ylim=(-0.4, 14))
    second.legend(frameon=False, fontsize=9)
    powers = torch.logspace(-1, 4, 200).tolist()
    third.semilogx(powers, [0.5 * math.log1p(r) for r in powers], color="#2563a8", label="KL: ½ log(1 + r)")
    third.semilogx(powers, [r / (2 + r) for r in powers], color="#d9822b", label="squares: r / (2 + r)")
    third.fill_between(powers, [r / (2 + r) for r in powers], [0.5 * math.log1p(r) for r in powers], color="#d9822b",
                       alpha=0.12, lw=0)  # fmt: skip
    third.text(900, 2.0, "claimed,\nnot there", fontsize=9, color="#a3541b")
    third.set(xlabel="r = w² / σ²", ylabel="nats", title="a sharp code for one nat", ylim=(0, 5.6))
    third.legend(frameon=False, fontsize=8, loc="upper left")
    for ax in (first, second, third):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "square_penalty.png", dpi=100)


if __name__ == "__main__":
    main()
