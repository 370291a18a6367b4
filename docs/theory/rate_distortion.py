"""beta walks along a rate-distortion curve; for a linear VAE it is Shannon's, and samples are best in between.

With the loss  distortion + beta * rate  (the lecture's lambda is 2 beta sigma^2, two_sides.py) every beta gives a model
with a rate R, nats that are spent on the code, and a distortion D. At the optimum no model of the same networks lies
below the line through (R, D) of the slope -beta, or it would have the smaller loss. So the optima for all beta trace a
convex curve D(R) with

    dD/dR = -beta      (D in nats)                                                                                  (1)

Small beta: sharp reconstructions and expensive codes. Large beta: cheap codes and blurred pictures. At beta = 1 the
sum D + R = -ELBO is least, the bound on -log p(x).

For affine networks the curve is known. With l_i the eigenvalues of the data's covariance, unit i gets
R_i = 1/2 log( l_i / (beta sigma^2) ) if positive (linear_vae.py), and leaves the error beta sigma^2, else l_i:

    E |x - D(z)|^2 = sum of min(l_i, beta sigma^2),      R = sum of max(0, 1/2 log( l_i / (beta sigma^2) ))          (2)

That is "reverse water-filling" at the level beta sigma^2, Shannon's rate-distortion function of normal data with this
covariance (Cover & Thomas, theorem 10.3.3): no code of any kind does better on normal data. Digits are not normal, and
curved networks get below that line; at high rates 12 units, and digits that they were not trained on, are the limit.

Where on the curve are samples best? D says nothing about them: they are decoded from the prior. Beside the curve stands
the Frechet distance between digits and samples, in the features of a classifier that is trained here. It is U-shaped:
for small beta codes are not distributed as the prior is (mutual_information.py), for large beta pictures are blurred.

References: Alemi et al. 2018, arXiv:1711.00464, sections 2 and 3; Cover & Thomas 2006, section 10.3.3; Higgins et al.
2017, ICLR, equation 4.
Run it: python docs/theory/rate_distortion.py
"""

from functools import partial
from pathlib import Path

import torch

import narrows as nr

SIGMA = 0.15


def linear(eigenvalues, level):  # (2): squared error and rate in nats at level = beta sigma^2
    values = torch.as_tensor(eigenvalues)
    rate = 0.5 * (values / level).log().clamp_min(0).sum()
    return float(values.clamp_max(level).sum()), float(rate)


def shannon(eigenvalues, error):  # R(D) of normal data, nats: the water level by bisection, then (2)
    low, high = 0.0, float(max(eigenvalues))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if linear(eigenvalues, middle)[0] < error else (low, middle)
    return linear(eigenvalues, high)[1]


@torch.no_grad()
def measured(model, x):  # squared error E_q |x - D(z)|^2 and rate in nats of narrows' model, means over the rows
    with nr.draws.seeded(0):
        px, code = model(x, samples=4)
    return float((px.mean - x.repeat(4, 1)).square().sum(1).mean()), float(code.rate.mean())


def classifier(x, label, steps=300):  # x -> 32 features by which a small network tells the ten digits apart
    network = nr.networks.Mlp((x.shape[1],), (10,), hidden=(32,))
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), label).backward()
        optimiser.step()
    return lambda t: network.layers[0](t).relu().detach()


def main():
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    order = torch.randperm(len(x))
    x, label = x[order], torch.tensor(load_digits().target)[order]
    test, train = x[:497], x[497:]
    features = classifier(train, label[497:])

    def frechet(rows):  # to the test digits
        return nr.evaluate.frechet_distance(features(rows), features(test))

    betas = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    likelihood, network = partial(nr.likelihoods.Gaussian, sigma=SIGMA), partial(nr.networks.Mlp, hidden=(128,))
    points, distances, again = [], [], []
    print("   beta   error |x - D(z)|^2   rate, nats   Frechet distance of samples, of reconstructions")
    for beta in betas:
        model, objective = nr.recipes.vae((64,), latent=12, likelihood=likelihood, network=network, beta=beta)
        nr.fit(model, objective, train, training=nr.Training(epochs=80, batch=100, lr=2e-3), quiet=True)
        points.append(measured(model, test))
        with torch.no_grad(), nr.draws.seeded(1):
            distances.append(frechet(model.sample(3000).mean))
        again.append(frechet(nr.evaluate.reconstruct(model, test)))
        print(f"  {beta:5}   {points[-1][0]:18.4f}   {points[-1][1]:10.3f}   {distances[-1]:27.3f}   {again[-1]:.3f}")
    print(f"training digits, the best there could be: {frechet(train):.3f}")
    values = torch.linalg.eigvalsh(torch.cov(train.double().T, correction=0)).flip(0).clamp_min(1e-12)
    levels = torch.logspace(-3.6, 0, 200, dtype=torch.float64)
    line = [linear(values, float(level)) for level in levels]

    figure = Figure(figsize=(9.5, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(
        [r for _, r in line], [d for d, _ in line], color="#8a8f98", lw=1.3, label="linear: Shannon's, normal data"
    )
    left.plot([r for _, r in points], [d for d, _ in points], "o-", ms=4, color="#2563a8", label="VAEs, test digits")
    for beta, (d, r) in zip(betas, points, strict=True):
        place, side = ((-4, -13), "right") if beta >= 1 else ((0, 6), "center")
        left.annotate(f"β = {beta:g}", (r, d), xytext=place, textcoords="offset points", fontsize=8, ha=side)
    left.set(
        xlabel="rate, nats",
        ylabel="squared error of a digit",
        xlim=(-6, 45),
        ylim=(0, 4.9),
        title="β walks along a curve",
    )
    left.legend(frameon=False, fontsize=9)
    right.loglog(betas, distances, "o-", ms=4, color="#d9822b", label="samples from the prior")
    right.loglog(betas, again, "o-", ms=4, color="#2563a8", label="reconstructions")
    right.axhline(frechet(train), color="#8a8f98", lw=1, ls="--", label="training digits")
    right.set(xlabel="β", ylabel="Fréchet distance to test digits", title="samples are best in between")
    right.legend(frameon=False, fontsize=9)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "rate_distortion.png", dpi=100)


if __name__ == "__main__":
    main()
