"""What the rate is spent on: E_x KL( q_phi(z|x) || p(z) ) = I(x; z) + KL( q(z) || p(z) ).

The KL term of a variational autoencoder, averaged over the N rows of the data, pays for two things at once. With
q(z) = 1/N sum over x of q_phi(z|x), the aggregated posterior (how codes are distributed, all rows together),

    E_x KL( q_phi(z|x) || p(z) )  =  I(x; z)  +  KL( q(z) || p(z) )                                                 (1)

    I(x; z) = E_x KL( q_phi(z|x) || q(z) )     how much a code tells about which row it came from: at most log N
    KL( q(z) || p(z) )                         how far draws from the prior are from codes, which decides on samples

The proof is to add and subtract log q(z). So the rate is an upper bound on what the code tells about x, and the bound
is tight where the aggregated posterior is the prior. It also shows what a weight lambda (ours: beta) on the KL does
that one may not want: it presses on the information as well as on the mismatch. Adversarial and Wasserstein
autoencoders, whose discrepancy compares q(z) with p(z), press on the second term alone.

The page has five rows, an encoder that gives each a mean and all the same width s, and one unit z, and computes the
three terms on a grid of z: a mixture of five normals is all there is. The left side comes from narrows. As s falls, the
information rises to log 5 and stays there, while the rate grows without limit: what is paid beyond log N buys nothing.

References: Hoffman & Johnson 2016, "ELBO surgery"; Makhzani et al. 2015, arXiv:1511.05644; Alemi et al. 2018,
arXiv:1711.00464, section 2.
Run it: python docs/theory/mutual_information.py
"""

import math
from pathlib import Path

import torch

import narrows as nr

STEP = 0.002
GRID = torch.arange(-24, 24 + STEP / 2, STEP, dtype=torch.float64)
MEANS = [-1.6, -0.7, 0.1, 0.5, 1.5]


def integral(values):
    return values.sum(-1) * STEP


def encoder(means, sigma):  # narrows' posterior for rows that are one-hot, so that an affine encoder can say anything
    network = nr.networks.Mlp((len(means),), (2,), hidden=())
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.stack([torch.tensor(means), torch.zeros(len(means))]))
        network.layers[0].bias.copy_(torch.tensor([0.0, math.log(math.expm1(sigma - 1e-6))]))
    return network, nr.posteriors.Gaussian(nr.priors.StandardNormal(1))


def rate(means, sigma):  # the left side of (1), nats: narrows' rate, averaged over the rows
    network, posterior = encoder(means, sigma)
    with torch.no_grad():
        return float(posterior(network(torch.eye(len(means)))).rate.mean())


def parts(means, sigma):  # I(x; z) and KL(q(z) || p(z)) on the grid, nats
    log_q = -(((GRID - torch.tensor(means)[:, None]) / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
    log_p = -(GRID**2) / 2 - math.log(math.sqrt(2 * math.pi))
    log_all = log_q.logsumexp(0) - math.log(len(means))  # log q(z)
    information = integral(log_q.exp() * (log_q - log_all)).mean()
    return float(information), float(integral(log_all.exp() * (log_all - log_p)))


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    print("      s          rate     I(x; z)   KL(q(z) || p)        sum     (log 5 = 1.609438)")
    for s in (2.0, 1.0, 0.5, 0.25, 0.1, 0.03):
        information, mismatch = parts(MEANS, s)
        print(f"  {s:5}   {rate(MEANS, s):.8f}   {information:.6f}   {mismatch:11.6f}   {information + mismatch:.8f}")

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    s = 0.5
    q = (-(((GRID - torch.tensor(MEANS)[:, None]) / s) ** 2) / 2).exp() / (s * math.sqrt(2 * math.pi))
    for i, row in enumerate(q):
        left.plot(GRID, row / 5, color="#2563a8", lw=0.9, label=None if i else "q(z|x) / 5 of five rows")
    left.plot(GRID, q.mean(0), color="#d9822b", lw=2, label="q(z), their sum")
    left.plot(GRID, (-(GRID**2) / 2).exp() / math.sqrt(2 * math.pi), color="#8a8f98", lw=1.3, ls="--", label="p(z)")
    left.set(xlim=(-3.8, 3.8), ylim=(0, 0.52), xlabel="z", ylabel="density", title=f"an encoder of width s = {s}")
    left.legend(frameon=False, fontsize=8, loc="upper left")
    widths = torch.logspace(-1.8, 0.5, 70).tolist()
    found = [parts(MEANS, w) for w in widths]
    information, both = [a for a, _ in found], [a + b for a, b in found]
    right.fill_between(widths, 0, information, color="#2563a8", alpha=0.35, lw=0, label="I(x; z)")
    right.fill_between(widths, information, both, color="#d9822b", alpha=0.35, lw=0, label="KL(q(z) ‖ p(z))")
    right.plot(widths, [rate(MEANS, w) for w in widths], color="black", lw=1.3, label="rate of narrows")
    right.axhline(math.log(5), color="#2563a8", lw=0.9, ls="--")
    right.text(0.7, math.log(5) + 0.06, "log 5", fontsize=9, color="#2563a8")
    right.set(xscale="log", xlabel="s, width of every q(z|x)", ylabel="nats", title="the rate is the sum of two")
    right.set_ylim(0, 4.5)
    right.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "mutual_information.png", dpi=100)


if __name__ == "__main__":
    main()
