"""Two gradients of the same expectation: reparameterised and score function, and what their variance is, exactly.

To train an encoder phi is to follow the gradient of an expectation whose distribution depends on phi. With
z ~ q_phi = N(m, s^2) and epsilon ~ N(0, 1), two unbiased estimates of d/dm E[f(z)] from one draw are

    reparameterised   f'(z),  z = m + s epsilon                the draw moves with m, and f says where it is better
    score function    f(z) d/dm log q(z) = f(z) epsilon / s    f only says how good a draw was (REINFORCE); no f' needed

For f(z) = (z - k)^2, which is a squared error, and d = m - k, both have the mean 2 d, and the variances are

    reparameterised                      4 s^2                                                                       (1)
    score function                       d^4 / s^2 + 14 d^2 + 15 s^2                                                 (2)
    score function of f - b              8 d^2 + 6 s^2  at the best constant baseline b = d^2 + 3 s^2                (3)

As q_phi narrows, s -> 0, the first vanishes, the second grows without limit, the third stays. A baseline changes no
mean, since E[epsilon] = 0. That is why variational autoencoders are trained by (1) where z is continuous.

It is no law, though. f' may be larger than f: for f(z) = cos(a z) that oscillates faster than q is wide, a s >> 1, the
reparameterised variance a^2/2 exceeds the score function's, which is at most that of epsilon / s.

In narrows f is a distortion: with sigma^2 = 1/(2 pi) the Gaussian distortion of x = k under the decoder D(z) = z is
exactly pi (z - k)^2, no constant left, and the variances above are multiplied by pi^2. The page draws codes by narrows,
differentiates its distortion, and compares; Gauss-Hermite quadrature is the second derivation of every formula.

References: Kingma & Welling 2013, arXiv:1312.6114, section 2.3; Williams 1992, Machine Learning 8:229; Mohamed et al.
2020, JMLR 21:132, section 3 for where each is the better one.
Run it: python docs/theory/gradients.py
"""

import math
from pathlib import Path

import torch
from numpy.polynomial.hermite_e import hermegauss

import narrows as nr


def moments(values, weights):  # mean and variance
    mean = weights @ values
    return float(mean), float(weights @ (values - mean) ** 2)


def quadrature(f, m, s, nodes=200):  # {estimator: (mean, variance)} for any smooth f; exact for polynomials
    epsilon, weights = map(torch.as_tensor, hermegauss(nodes))
    weights = weights / weights.sum()
    z = (m + s * epsilon).requires_grad_()
    value = f(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    value, score = value.detach(), epsilon / s
    baseline = float(weights @ (value * score**2) / (weights @ score**2))  # of the least variance
    return {
        "reparameterised": moments(slope, weights),
        "score function": moments(value * score, weights),
        "with the best baseline": moments((value - baseline) * score, weights),
    }


def formulas(d, s):  # (1), (2), (3)
    return {
        "reparameterised": 4 * s**2,
        "score function": d**4 / s**2 + 14 * d**2 + 15 * s**2,
        "with the best baseline": 8 * d**2 + 6 * s**2,
    }


def narrows(m, s, k, samples=200_000, seed=0):  # {estimator: (mean, variance)} of d/dm of narrows' distortion, drawn
    encoder, decoder = nr.networks.Mlp((1,), (2,), hidden=()), nr.networks.Mlp((1,), (1, 1), hidden=())
    with torch.no_grad():
        encoder.layers[0].weight.zero_()
        encoder.layers[0].bias.copy_(torch.tensor([m, math.log(math.expm1(s - 1e-6))]))
        decoder.layers[0].weight.fill_(1)
        decoder.layers[0].bias.zero_()
    q, p = nr.posteriors.Gaussian(nr.priors.StandardNormal(1)), nr.likelihoods.Gaussian((1,), (2 * math.pi) ** -0.5)
    vae, x = nr.Autoencoder(encoder, q, decoder, p), torch.tensor([[k]])
    with nr.draws.seeded(seed):
        code = vae.encode(x, samples=samples, draw=True)
    z = code.z.detach().requires_grad_()
    distortion = -vae.decode(z).log_prob(x)  # pi (z - k)^2 of each draw
    (slope,) = torch.autograd.grad(distortion.sum(), z)  # dz/dm = 1
    distortion = distortion.detach()
    score = (z.detach()[:, 0] - m) / s**2  # d/dm log q(z)
    baseline = (distortion * score**2).mean() / (score**2).mean()
    weights = torch.full((samples,), 1 / samples)
    return {
        "reparameterised": moments(slope[:, 0], weights),
        "score function": moments(distortion * score, weights),
        "with the best baseline": moments((distortion - baseline) * score, weights),
    }


def main():
    from matplotlib.figure import Figure

    torch.set_default_dtype(torch.float64)
    m, s, k = 1.3, 0.7, 0.4
    exact, drawn = quadrature(lambda z: (z - k) ** 2, m, s), narrows(m, s, k)
    print(f"f = (z - {k})^2, z ~ N({m}, {s}^2): true gradient {2 * (m - k):.4f}")
    print("                           mean by quadrature, narrows    variance: formula, quadrature, narrows")
    for name, formula in formulas(m - k, s).items():
        (a, b), (c, e) = exact[name], drawn[name]
        print(f"  {name:24} {a:10.6f} {c / math.pi:15.4f} {formula:23.6f} {b:11.6f} {e / math.pi**2:9.4f}")

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {"reparameterised": "#2563a8", "score function": "#d9822b", "with the best baseline": "#3a8a5f"}
    widths = torch.logspace(-1.3, 0.7, 60).tolist()
    places = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    at = {width: narrows(m, width, k, 20_000) for width in places}
    for name, colour in colours.items():
        left.loglog(widths, [formulas(m - k, w)[name] for w in widths], color=colour, lw=1.3, label=name)
        left.loglog(places, [at[w][name][1] / math.pi**2 for w in places], "o", ms=4, color=colour)
    left.set(xlabel="s, width of q", ylabel="variance of one draw's gradient", title=f"f = (z − k)², d = {m - k:.1f}")
    left.legend(frameon=False, fontsize=9, loc="lower right")
    speeds = torch.logspace(-0.5, 1.1, 60).tolist()
    found = [quadrature(lambda z, a=a: torch.cos(a * z), m, s) for a in speeds]
    for name, colour in colours.items():
        right.loglog([a * s for a in speeds], [f[name][1] for f in found], color=colour, lw=1.3, label=name)
    right.set(xlabel="a s, oscillations within q", ylabel="variance", title="f = cos(a z): it can be the other way")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "gradients.png", dpi=100)


if __name__ == "__main__":
    main()
