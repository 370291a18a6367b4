"""A ladder variational autoencoder from first principles, on handwritten digits.

As in vae.py, with a code of several rungs, each drawn given the one above it; the pixels see the lowest, z_L:

    p(z) = N(z_1; 0, I) N(z_2; mu_2(z_1), sigma_2(z_1)^2) ... N(z_L; mu_L, sigma_L^2),  p(x|z) = Bernoulli(decoder(z_L))

Inference climbs first, a network for each rung, and reads off what x says of it, N(mu^, sigma^). Then it descends as
the model generates: what the rung above says, N(mu_p, sigma_p), is joined to that, each counted by its precision,

    1 / sigma_q^2 = 1 / sigma^^2 + 1 / sigma_p^2,    mu_q = sigma_q^2 (mu^ / sigma^^2 + mu_p / sigma_p^2)

which is the product of the two normals, as in Bayes' rule; on top q is what x says. Since q and p are told the same
rungs above, each rung's price is a KL of two normals in closed form, and the bound is as ever, in nats:

    log p(x) >= ELBO = E_q[ log p(x|z_L) ] - sum_l E_q[ KL( q(z_l | z_<l, x) || p(z_l | z_<l) ) ] = -(distortion + rate)

Upper rungs are of use only once lower ones carry something, and paid for at once they fall silent. So the rate counts
beta = t / 2000 at first: warm-up (Sonderby et al. 2016, arXiv:1602.02282). What is reported stands at beta = 1.
The rates that are printed tell how far that helps: on pictures of 64 pixels one rung can say it all, and others may say
nothing.

Nothing here is imported but torch and the data. Run it: python docs/from_scratch/ladder.py
"""

import math
from itertools import pairwise

import torch


def initialise(*sizes):  # e.g. 64, 128, 64: a matrix (out, in) and a vector (out,) for each layer
    parameters = []
    for a, b in pairwise(sizes):
        bound = 1 / math.sqrt(a)
        parameters += [torch.empty(b, a).uniform_(-bound, bound), torch.empty(b).uniform_(-bound, bound)]
    return [p.requires_grad_() for p in parameters]


def ladder(rungs, pixels=64, wide=8):  # rungs: units of each, top first; networks beside one are 8 times as wide
    encoder, decoder = initialise(pixels, 128, wide * rungs[-1]), initialise(rungs[-1], 128, pixels)
    down = [initialise(a, wide * a, wide * a, 2 * b) for a, b in pairwise(rungs)]  # top first
    up = [initialise(wide * a, wide * b, wide * b) for a, b in pairwise(rungs[::-1])]  # bottom first
    heads = [initialise(wide * n, 2 * n) for n in rungs[::-1]]
    return encoder, down, up, heads, decoder


def leaky(x):
    return torch.where(x > 0, x, x / 10)


def network(x, parameters):  # layers with leaky ReLU between them
    for w, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = leaky(x @ w.T + b)
    return x @ parameters[-2].T + parameters[-1]


def softplus(s):  # log(1 + e^s) without overflow
    return torch.logaddexp(s, torch.zeros_like(s))


def climb(x, encoder, up, heads):  # what x says of each rung, mu^ and sigma^ (B, units), top first
    said = []
    for parameters, head in zip([encoder, *up], heads, strict=True):
        x = leaky(network(x, parameters))
        mu, s = network(x, head).chunk(2, dim=1)
        said.append((mu, softplus(s) + 1e-6))
    return said[::-1]


def above(z, parameters):  # what the rung above says of the next, mu_p and sigma_p (B, units), near 1 to begin with
    mu, s = network(z, parameters).chunk(2, dim=1)
    return mu, softplus(s + math.log(math.e - 1)) + 1e-6


def joined(mu, sigma, mu_p, sigma_p):  # the product of two normals
    precision = 1 / sigma**2 + 1 / sigma_p**2
    return (mu / sigma**2 + mu_p / sigma_p**2) / precision, 1 / torch.sqrt(precision)


def kl(mu, sigma, mu_p, sigma_p):  # (B,) nats, KL(N(mu, sigma^2) || N(mu_p, sigma_p^2)), summed over units
    return (torch.log(sigma_p / sigma) + (sigma**2 + (mu - mu_p) ** 2) / (2 * sigma_p**2) - 0.5).sum(1)


def distortion(x, logits):  # (B,) nats, -log p(x|z): log p(1) = l - log(1 + e^l) and log p(0) = -log(1 + e^l)
    return (softplus(logits) - x * logits).sum(1)


def terms(x, encoder, down, up, heads, decoder, epsilon):  # distortion (B,) and each rung's rate (B, L), in nats
    rates, z = [], None
    for rung, ((mu, sigma), noise) in enumerate(zip(climb(x, encoder, up, heads), epsilon, strict=True)):
        p = (torch.zeros_like(mu), torch.ones_like(mu)) if rung == 0 else above(z, down[rung - 1])
        q = (mu, sigma) if rung == 0 else joined(mu, sigma, *p)
        z = q[0] + q[1] * noise
        rates.append(kl(*q, *p))
    return distortion(x, network(z, decoder)), torch.stack(rates, 1)


def flat(model):  # all tensors of all networks in one list
    return [model] if isinstance(model, torch.Tensor) else [p for part in model for p in flat(part)]


def adam(parameters, gradients, moments, t, step_size=1e-3):  # Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g**2)
        p.data -= step_size * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def train_step(x, model, epsilon, moments, t, warm_up=2000):
    spent, rates = terms(x, *model, epsilon)
    loss = (spent + min(1, t / warm_up) * rates.sum(1)).mean()
    adam(flat(model), torch.autograd.grad(loss, flat(model)), moments, t)
    return loss.item()


def main(rungs=(2, 4, 8)):
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data > 8, dtype=torch.float32)  # (1797, 64) black or white
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]
    model = ladder(rungs)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in flat(model)]
    for t in range(1, 4001):
        batch = train[torch.randint(len(train), (100,))]
        train_step(batch, model, [torch.randn(100, n) for n in rungs], moments, t)
        if t % 800 == 0:
            with torch.no_grad():
                spent, rates = terms(test, *model, [torch.randn(297, n) for n in rungs])
            bound, each = -(spent + rates.sum(1)), ", ".join(f"{r:.2f}" for r in rates.mean(0))
            error = bound.std() / math.sqrt(297)
            print(f"step {t}: ELBO {bound.mean():.2f} +- {error:.2f} nats on 297 test digits; rates, top first: {each}")


if __name__ == "__main__":
    main()
