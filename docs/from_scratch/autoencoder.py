"""An autoencoder from first principles, on handwritten digits.

A picture x of 64 grey values goes through a code z of 8 numbers and back:

    z = encoder(x),  m = decoder(z),  p(x|z) = N(m, I)

Both networks are trained to make the picture probable given its own code, that is to minimise, in nats,

    distortion = -log p(x|z) = |x - m|^2 / 2 + 64 / 2 log(2 pi),

which is the squared error and a constant. A code costs nothing here: the other half of the story is in vae.py.

Were both networks linear, the best they could do is known: PCA (Baldi & Hornik 1989). So PCA with 8 components is what
the curves of the networks have to beat (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647).

Nothing here is imported but torch and the data. Run it: python docs/from_scratch/autoencoder.py
"""

import math
from itertools import pairwise

import torch


def initialise(sizes):  # e.g. (64, 128, 8): a matrix (out, in) and a vector (out,) for each layer
    parameters = []
    for a, b in pairwise(sizes):
        bound = 1 / math.sqrt(a)
        parameters += [torch.empty(b, a).uniform_(-bound, bound), torch.empty(b).uniform_(-bound, bound)]
    return [p.requires_grad_() for p in parameters]


def network(x, w1, b1, w2, b2):
    return (x @ w1.T + b1).clamp(min=0) @ w2.T + b2  # two layers with ReLU between them


def encode(x, encoder):
    return network(x, *encoder)  # (B, 8) codes z


def decode(z, decoder):
    return network(z, *decoder)  # (B, 64) means m


def distortion(x, mean):  # (B,) nats, -log N(x; mean, I)
    return ((x - mean) ** 2).sum(1) / 2 + x.shape[1] / 2 * math.log(2 * math.pi)


def adam(parameters, gradients, moments, t, step_size=1e-3):  # Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
        m.mul_(0.9).add_(0.1 * g)  # running mean of the gradient
        v.mul_(0.999).add_(0.001 * g**2)  # and of its square; both start at 0, which the divisions undo
        p.data -= step_size * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def train_step(x, encoder, decoder, moments, t):
    loss = distortion(x, decode(encode(x, encoder), decoder)).mean()
    adam(encoder + decoder, torch.autograd.grad(loss, encoder + decoder), moments, t)
    return loss.item()


def pca(train, test, components):  # test rows through the best linear code of the training rows, and back
    mean = train.mean(0)
    basis = torch.linalg.svd(train - mean, full_matrices=False).Vh[:components]  # (components, 64)
    return (test - mean) @ basis.T @ basis + mean


def main():
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)  # (1797, 64) grey values in 0..1
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]

    def report(name, mean):
        nats, error = distortion(test, mean).mean(), (test - mean).pow(2).mean().sqrt()
        print(f"{name}: {nats:.3f} nats, root mean squared error {error:.4f} of the grey scale")

    report("PCA, 8 components", pca(train, test, 8))
    encoder, decoder = initialise((64, 128, 8)), initialise((8, 128, 64))
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in encoder + decoder]
    for t in range(1, 2001):
        train_step(train[torch.randint(len(train), (100,))], encoder, decoder, moments, t)
        if t % 400 == 0:
            with torch.no_grad():
                report(f"step {t}", decode(encode(test, encoder), decoder))


if __name__ == "__main__":
    main()
