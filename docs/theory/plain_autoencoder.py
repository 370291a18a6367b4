"""Why a plain autoencoder does not generate: nothing says which codes occur.

An autoencoder is trained on reconstruction alone, E |x - D_theta(z)|^2 at z = encoder_phi(x), lambda = 0. Its decoder
has been asked about the codes of the training rows and about no others. And where those lie is nobody's choice: any
invertible change of the code that the decoder undoes is as good. So D_theta of a draw z ~ N(0, I) is undefined.

A variational autoencoder blurs every code to q_phi(z|x) and pays for each nat by which that differs from the prior.
Blurs that overlap must decode to something plausible, and the aggregated posterior q(z) is drawn towards p(z)
(mutual_information.py), from which one can then sample.

The same can be had afterwards: fit a density to the codes of a plain autoencoder and sample from that. So what a plain
autoencoder lacks is less a good decoder than a p(z). The page trains both on digits, the same networks, and asks:

    samples     how far from test digits are pictures decoded from N(0, I), from a normal N(m, S) with the codes' own
                mean and covariance, from a mixture of 30 normals fitted to the codes, and from a VAE's prior?
                Frechet distance in the 32 features of a classifier that is trained here (in principal components it
                would see little: it compares means and covariances, and those of pictures from a fitted normal fit)
    midpoints   of codes of different digits: are they probable as codes? log q(z) less its median at codes of test
                digits, in nats, which no change of scale or axes alters; q(z) a sum of normals around training codes
                (for the VAE one draw of q_phi each) with their covariance times the h^2 that suits held-out codes best
    their rows  distance from a decoded midpoint to the nearest of all digits, beside that of the mean picture of the
                two, which is no digit, and that of a real test digit. (Blurred pictures lie near everything: read it
                with the picture)

What is found: N(0, I) is worse by far; N(m, S) is about as good as the VAE, the fitted mixture better than both; and
midpoints are improbable codes for either, a little less for the VAE. (With 20 units in place of 8 the fitted normal is
the better one, 0.6 against the VAE's 2.1.)

References: Ghosh et al. 2020, arXiv:1903.12436, table 1 (an autoencoder's samples from a normal, from a mixture fitted
afterwards, and its interpolations); Hinton & Salakhutdinov 2006; Makhzani et al. 2015, arXiv:1511.05644.
Run it: python docs/theory/plain_autoencoder.py
"""

import math
from functools import partial
from pathlib import Path

import torch
from torch.distributions import MultivariateNormal

import narrows as nr

UNITS = 8


def trained(recipe, x, epochs=100):
    likelihood, network = partial(nr.likelihoods.Gaussian, sigma=0.15), partial(nr.networks.Mlp, hidden=(128,))
    model, objective = getattr(nr.recipes, recipe)((x.shape[1],), latent=UNITS, likelihood=likelihood, network=network)
    nr.fit(model, objective, x, training=nr.Training(epochs=epochs, batch=100, lr=2e-3), quiet=True)
    return model


def kernel_density(codes, covariance, z):  # log of the mean of normals around codes, (n,) nats
    white = torch.linalg.inv(torch.linalg.cholesky(covariance))
    squares = torch.cdist(z @ white.T, codes @ white.T).square()
    constant = white.diagonal().log().sum() - UNITS / 2 * math.log(2 * math.pi) - math.log(len(codes))
    return (-squares / 2).logsumexp(1) + constant


def point_density(codes, held):  # a function log q(z) for point codes, with the width that serves held-out codes best
    covariance = torch.cov(codes.T)
    widths = [0.1, 0.15, 0.2, 0.3, 0.4, 0.6]
    best = max(widths, key=lambda h: float(kernel_density(codes, h**2 * covariance, held).mean()))
    return lambda z: kernel_density(codes, best**2 * covariance, z)


def classifier(x, label, steps=300):  # x -> 32 features by which a small network tells the ten digits apart
    network = nr.networks.Mlp((x.shape[1],), (10,), hidden=(32,))
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), label).backward()
        optimiser.step()
    return lambda t: network.layers[0](t).relu().detach()


def nearest(rows, real):  # distance to the nearest real row, (n,)
    return torch.cdist(rows, real).min(1).values


def main():
    from matplotlib.figure import Figure
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.data))
    x, label = torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]
    held, test, train = x[:200], x[200:597], x[597:]
    features = classifier(train, label[597:])

    def frechet(rows):
        return nr.evaluate.frechet_distance(features(rows), features(test))

    plain, vae = trained("autoencoder", train), trained("vae", train)
    pairs = [
        (i, j) for i, j in zip(range(0, 396, 2), range(1, 397, 2), strict=True) if label[200 + i] != label[200 + j]
    ]
    first, second = (test[list(side)] for side in zip(*pairs, strict=True))
    with torch.no_grad(), nr.draws.seeded(1):
        models = {"autoencoder": plain, "VAE": vae}
        codes = {name: model.encode(train, draw=True).z for name, model in models.items()}
        z = codes["autoencoder"]
        own = MultivariateNormal(z.mean(0), torch.cov(z.T))
        mixture = nr.priors.GaussianMixture(UNITS, components=30)
        mixture.fit(z)
        samples = {
            "autoencoder, N(0, I)": plain.decode(torch.randn(2000, UNITS)).mean,
            "autoencoder, N(m, S) of its codes": plain.decode(own.sample((2000,))).mean,
            "autoencoder, a mixture fitted to its codes": plain.decode(mixture().sample((2000,))).mean,
            "VAE, its prior": vae.sample(2000).mean,
        }
        print(f"standard deviations of the codes' units: autoencoder {z.std(0).min():.2f} to {z.std(0).max():.2f}, "
              f"VAE {codes['VAE'].std(0).min():.2f} to {codes['VAE'].std(0).max():.2f}")  # fmt: skip
        print("\nsamples from                                  Frechet distance to test digits")
        for name, rows in samples.items():
            print(f"  {name:43} {frechet(rows):.3f}")
        print(f"  {'(training digits themselves)':43} {frechet(train):.3f}")
        print("\nmidpoints of test digits of different labels     log q less its median at test codes   nearest digit")
        shown = {}
        for name, model in models.items():
            middle = (model.encode(first).z + model.encode(second).z) / 2
            density = point_density(codes[name], model.encode(held, draw=True).z)
            usual = density(model.encode(test).z)
            lacking = density(middle) - usual.median()
            shown[name] = model.decode(middle).mean
            few = (lacking < (usual - usual.median()).quantile(0.05)).float().mean()
            print(f"  {name:14} median {lacking.median():7.2f} nats; {few:4.0%} below 95 % of test codes"
                  f"   {nearest(shown[name], x).mean():28.3f}")  # fmt: skip
        blend = (first + second) / 2
        print(f"  {'mean of the two pictures':81} {nearest(blend, x).mean():.3f}")
        print(f"  {'a test digit, to the nearest training digit':81} {nearest(test, train).mean():.3f}")

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=[1.55, 1])
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    rows = [
        ("real digits", test),
        ("autoencoder, N(0, I)", samples["autoencoder, N(0, I)"]),
        ("autoencoder, N(m, S)", samples["autoencoder, N(m, S) of its codes"]),
        ("VAE, prior", samples["VAE, its prior"]),
        ("midpoints, autoencoder", shown["autoencoder"]),
        ("midpoints, VAE", shown["VAE"]),
    ]
    picture = torch.ones(6 * 10, 10 * 10)
    for i, (_, some) in enumerate(rows):
        for j in range(10):
            picture[10 * i + 1 : 10 * i + 9, 10 * j + 1 : 10 * j + 9] = 1 - some[j].reshape(8, 8).clamp(0, 1)
    left.imshow(picture, cmap="gray", vmin=0, vmax=1)
    left.set_yticks([10 * i + 4.5 for i in range(6)], [name for name, _ in rows], fontsize=9)
    left.set_xticks([])
    left.spines[:].set_visible(False)
    left.tick_params(length=0)
    bars = {**{name: frechet(rows) for name, rows in samples.items()}, "training digits themselves": frechet(train)}
    names = [
        "autoencoder,\nN(0, I)",
        "autoencoder,\nN(m, S)",
        "autoencoder,\nfitted mixture",
        "VAE, prior",
        "training\ndigits",
    ]
    colours = ["#d9822b", "#d9822b", "#d9822b", "#2563a8", "#8a8f98"]
    right.barh(range(5), list(bars.values()), color=colours, height=0.65)
    for i, value in enumerate(bars.values()):
        right.text(value * 1.06, i, f"{value:.2g}", va="center", fontsize=9)
    right.set_yticks(range(5), names, fontsize=9)
    right.invert_yaxis()
    right.set(xscale="log", xlabel="Fréchet distance to test digits", xlim=(0.15, 60), title="what samples are worth")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "plain_autoencoder.png", dpi=100)


if __name__ == "__main__":
    main()
