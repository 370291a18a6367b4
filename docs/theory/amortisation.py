"""Two gaps: what the family of q cannot say, and what the encoder does not say (amortisation).

An encoder q_phi(z|x) answers for all rows x with one set of weights phi. Optimising q for a single row instead, q*, can
only raise its ELBO, and what is still missing then is the family's fault:

    log p_theta(x) - ELBO(q_phi)  =  [ log p_theta(x) - ELBO(q*) ]  +  [ ELBO(q*) - ELBO(q_phi) ]                    (1)
                                       approximation gap >= 0           amortisation gap >= 0

The first is KL( q* || posterior ) for the best normal q*; bimodal.py makes it large. The second is the price for an
answer in one pass, and falls with a larger encoder, but on rows that the encoder was trained on more than on new ones.

The page trains a VAE of narrows with two units on digits (black or white), keeps its decoder theta, trains encoders phi
of two sizes anew for it, and splits the gap on test rows. With two units all three numbers of (1) are quadratures:
log p(x) a sum over a grid of z, ELBOs by 16 x 16 Gauss-Hermite points, so that q* is found by plain gradient descent on
a function without noise, all rows in one batch.

References: Cremer et al. 2018, arXiv:1801.03558, section 3; Gershman & Goodman 2014 for the word amortised.
Run it: python docs/theory/amortisation.py
"""

import math
from functools import partial
from pathlib import Path

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.nn.functional import softplus

import narrows as nr


def points(nodes=16):  # of the plane, (nodes^2, 2), and their weights: expectations under N(0, I)
    e, w = map(torch.as_tensor, hermegauss(nodes))
    w = w / w.sum()
    return torch.cartesian_prod(e, e).float(), torch.outer(w, w).flatten().float()


@torch.no_grad()
def log_evidence(model, x, width=5.5, cells=160):  # (B,) nats: the sum of p(x|z) p(z) over a grid of the plane
    line = (torch.arange(cells) + 0.5) / cells * 2 * width - width
    z = torch.cartesian_prod(line, line)
    log_p = -z.square().sum(1) / 2 - math.log(2 * math.pi) + 2 * math.log(2 * width / cells)
    logits = model.decode(z).base_dist.logits  # (cells^2, pixels)
    return (x @ logits.T - softplus(logits).sum(1) + log_p).logsumexp(1)


def elbo(model, x, mean, sigma, nodes=16):  # (B,) nats: narrows' distortion and rate, the expectation by quadrature
    epsilon, weights = points(nodes)
    z = mean + sigma * epsilon[:, None]  # (nodes^2, B, 2)
    distortion = -model.decode(z.flatten(0, 1)).log_prob(x.repeat(len(epsilon), 1)).view(len(epsilon), -1)
    q = torch.distributions.Independent(torch.distributions.Normal(mean, sigma), 1)
    rate = nr.divergences.kl(q, model.prior(None)).sum(1)
    return -(weights @ distortion + rate)


def encoded(model, x):  # mean and sigma of q_phi
    with torch.no_grad():
        q = model.encode(x).q.base_dist
    return q.loc, q.scale


def refined(model, x, steps=80, rate=0.05):  # mean and sigma of q* of each row, from the encoder's guess
    mean, sigma = encoded(model, x)
    mean, s = mean.clone().requires_grad_(), sigma.log().requires_grad_()
    optimiser = torch.optim.Adam([mean, s], lr=rate)
    best, at = elbo(model, x, mean, s.exp()).detach(), (mean.detach().clone(), s.detach().exp())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        value = elbo(model, x, mean, s.exp())
        better = value.detach() > best  # every row keeps the best that it has seen
        best = torch.where(better, value.detach(), best)
        now = (mean.detach(), s.detach().exp())
        at = tuple(torch.where(better[:, None], new, old) for new, old in zip(now, at, strict=True))
        optimiser.zero_grad()
        (-value.sum()).backward()
        optimiser.step()
    return at


def gaps(model, x, steps=80):  # approximation and amortisation gap of each row, (B,) nats
    own, amortised = elbo(model, x, *refined(model, x, steps)).detach(), elbo(model, x, *encoded(model, x)).detach()
    return log_evidence(model, x) - own, own - amortised


def main():
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data > 8, dtype=torch.float32)
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]
    network = partial(nr.networks.Mlp, hidden=(64,))
    model, objective = nr.recipes.vae((64,), latent=2, network=network)
    nr.fit(model, objective, train, training=nr.Training(epochs=100, batch=100, lr=2e-3), quiet=True)
    encoders = {}
    for width in (8, 128):
        other, _ = nr.recipes.vae((64,), latent=2, network=partial(nr.networks.Mlp, hidden=(width,)))
        other.decoder = model.decoder
        other.decoder.requires_grad_(False)
        nr.fit(other, nr.Objective(), train, training=nr.Training(epochs=100, batch=100, lr=2e-3), quiet=True)
        encoders[width] = other
    print("hidden units of phi    rows    log p(x)    ELBO of q_phi   approximation gap   amortisation gap, nats")
    found = {}
    for width, other in encoders.items():
        for name, rows in (("train", train[:80]), ("test", test[:80])):
            a, b = gaps(other, rows)
            found[width, name] = float(a.mean()), float(b.mean())
            evidence = float(log_evidence(other, rows).mean())
            print(f"  {width:17}   {name:5}    {evidence:8.4f}    {evidence - a.mean() - b.mean():13.4f}"
                  f"   {a.mean():17.4f}   {b.mean():16.4f}")  # fmt: skip

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (width, name) in enumerate(found):
        a, b = found[width, name]
        place = i + 0.35 * (i // 2)
        left.bar(place, a, color="#8a8f98", label=None if i else "approximation gap")
        left.bar(place, b, bottom=a, color="#d9822b", label=None if i else "amortisation gap")
    left.set_xticks([i + 0.35 * (i // 2) for i in range(len(found))], [f"{n}\n{w} units" for w, n in found], fontsize=8)
    left.set(ylabel="nats a row", title="log p(x) − ELBO, by the encoder's size")
    left.legend(frameon=False, fontsize=9)
    other = encoders[8]
    own, amortised = refined(other, test[:80]), encoded(other, test[:80])
    gain = elbo(other, test[:80], *own).detach() - elbo(other, test[:80], *amortised).detach()
    i = int(gain.argsort()[60])  # a row of which the encoder is wrong, though not the worst
    line = torch.linspace(-4, 4, 200)
    with torch.no_grad():
        z = torch.cartesian_prod(line, line)
        log_p = other.decode(z).log_prob(test[i].expand(len(z), -1)) - z.square().sum(1) / 2
    density = (log_p - log_p.max()).exp().view(200, 200).T
    right.contourf(line, line, density, levels=[0.05, 0.2, 0.4, 0.6, 0.8, 1.0], cmap="Greys", alpha=0.8)
    turn = torch.linspace(0, 2 * math.pi, 100)
    around = torch.stack([turn.cos(), turn.sin()], 1)
    for (mean, sigma), colour, label in (
        (amortised, "#d9822b", "q of the encoder"),
        (own, "#2563a8", "q* of this row"),
    ):
        ring = mean[i] + 2 * sigma[i] * around
        right.plot(ring[:, 0], ring[:, 1], color=colour, lw=1.6, label=f"{label}, two standard deviations")
    middle, reach = own[0][i], 1.9
    right.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach + 0.7))
    right.set(xlabel="z₁", ylabel="z₂", title=f"posterior of a test digit: {gain[i]:.2f} nats to gain")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "amortisation.png", dpi=100)


if __name__ == "__main__":
    main()
