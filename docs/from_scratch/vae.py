"""A variational autoencoder from first principles, on handwritten digits.

A picture x of black and white pixels is thought to come from a short code z that nobody sees:

    p(z)   = N(0, I)                                       any code
    p(x|z) = product over pixels of Bernoulli(sigmoid(l))  l = decoder(z)

How probable is x? log p(x) = log of an integral over all z: too many. So a second network guesses which codes could
have made x, q(z|x) = N(mu, diag sigma^2) with mu, sigma = encoder(x), and Jensen's inequality gives a lower bound:

    log p(x) >= ELBO = E_q[ log p(x|z) ] - KL( q(z|x) || p(z) ) = -(distortion + rate)

Both in nats: the distortion is what x costs once z is known, the rate is what z costs. The expectation is taken as one
draw z = mu + sigma * epsilon, epsilon ~ N(0, I), which gradients can pass (Kingma & Welling 2013, arXiv:1312.6114).

Nothing here is imported but torch and the data. Run it: python docs/from_scratch/vae.py
"""

import math
from itertools import pairwise

import torch


def initialise(sizes):  # e.g. (64, 128, 16): a matrix (out, in) and a vector (out,) for each layer
    parameters = []
    for a, b in pairwise(sizes):
        bound = 1 / math.sqrt(a)
        parameters += [torch.empty(b, a).uniform_(-bound, bound), torch.empty(b).uniform_(-bound, bound)]
    return [p.requires_grad_() for p in parameters]


def softplus(s):  # log(1 + e^s) without overflow
    return torch.logaddexp(s, torch.zeros_like(s))


def network(x, w1, b1, w2, b2):
    return (x @ w1.T + b1).clamp(min=0) @ w2.T + b2  # two layers with ReLU between them


def encode(x, encoder):
    mu, s = network(x, *encoder).chunk(2, dim=1)  # (B, D) each
    return mu, softplus(s) + 1e-6  # sigma, positive and kept from 0


def decode(z, decoder):
    return network(z, *decoder)  # (B, pixels) logits l


def distortion(x, logits):  # (B,) nats, -log p(x|z): log p(1) = l - log(1 + e^l) and log p(0) = -log(1 + e^l)
    return (softplus(logits) - x * logits).sum(1)


def rate(mu, sigma):  # (B,) nats, KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1) / 2 - log sigma, of each unit
    return ((mu**2 + sigma**2 - 1) / 2 - torch.log(sigma)).sum(1)


def elbo(x, encoder, decoder, epsilon):  # (B,) nats
    mu, sigma = encode(x, encoder)
    z = mu + sigma * epsilon
    return -(distortion(x, decode(z, decoder)) + rate(mu, sigma))


def adam(parameters, gradients, moments, t, step_size=1e-3):  # Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
        m.mul_(0.9).add_(0.1 * g)  # running mean of the gradient
        v.mul_(0.999).add_(0.001 * g**2)  # and of its square; both start at 0, which the divisions undo
        p.data -= step_size * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def train_step(x, encoder, decoder, epsilon, moments, t):
    loss = -elbo(x, encoder, decoder, epsilon).mean()
    adam(encoder + decoder, torch.autograd.grad(loss, encoder + decoder), moments, t)
    return loss.item()


def main():
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data > 8, dtype=torch.float32)  # (1797, 64) black or white
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]
    encoder, decoder = initialise((64, 128, 2 * 8)), initialise((8, 128, 64))
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in encoder + decoder]
    for t in range(1, 2001):
        batch = train[torch.randint(len(train), (100,))]
        train_step(batch, encoder, decoder, torch.randn(100, 8), moments, t)
        if t % 400 == 0:
            with torch.no_grad():
                bound = elbo(test, encoder, decoder, torch.randn(297, 8))
            print(f"step {t}: ELBO {bound.mean():.2f} +- {bound.std() / math.sqrt(297):.2f} nats on 297 test digits")
    drawn = torch.sigmoid(decode(torch.randn(1, 8), decoder)).reshape(8, 8)
    print("a digit that nobody wrote:", *("".join(" .:#"[int(4 * p)] for p in row) for row in drawn * 0.999), sep="\n")


if __name__ == "__main__":
    main()
