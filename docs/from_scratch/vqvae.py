"""A vector-quantised autoencoder from first principles, on handwritten digits.

A picture x of black and white pixels becomes a word of P letters, each one of K codewords e_1 .. e_K of D numbers:

    h_1 .. h_P = encoder(x),   k_i = the codeword nearest to h_i,   p(x|k) = product of Bernoulli(sigmoid(decoder(e_k)))

Every word is equally likely, p(k) = K^-P. That is a variational autoencoder (vae.py) whose q(k|x) is sure of one word:
of an integral over codes one term is left, and what x costs is, in nats,

    -ELBO = distortion + rate,   distortion = -log p(x|k),   rate = -log p(k) = P log K,   log p(x) >= ELBO

No gradient passes through "the nearest". So the encoder is given the decoder's own: z = e in value, h in gradient
(straight through). That holds while h is near e, and a penalty of 0.25 |h - e|^2 keeps it there. The codebook has no
gradient: each codeword is the average of the h that choose it, over the last steps, newer ones counting more.

The loss is distortion + rate + penalty (van den Oord et al. 2017, arXiv:1711.00937; averages: its appendix A.1).

Nothing here is imported but torch and the data. Run it: python docs/from_scratch/vqvae.py
"""

import math
from itertools import pairwise

import torch


def initialise(sizes):  # e.g. (64, 128, 32): a matrix (out, in) and a vector (out,) for each layer
    parameters = []
    for a, b in pairwise(sizes):
        bound = 1 / math.sqrt(a)
        parameters += [torch.empty(b, a).uniform_(-bound, bound), torch.empty(b).uniform_(-bound, bound)]
    return [p.requires_grad_() for p in parameters]


def network(x, w1, b1, w2, b2):
    return (x @ w1.T + b1).clamp(min=0) @ w2.T + b2  # two layers with ReLU between them


def encode(x, encoder, width):  # (B, P, D): the output is D rows of P numbers, a column for each letter
    return network(x, *encoder).reshape(len(x), width, -1).transpose(1, 2)


def nearest(h, codebook):  # (B, P) whole numbers from 0 to K - 1
    return ((h[:, :, None] - codebook) ** 2).sum(3).argmin(2)


def decode(z, decoder):  # (B, P, D) -> (B, pixels) logits
    return network(z.transpose(1, 2).flatten(1), *decoder)


def distortion(x, logits):  # (B,) nats, -log p(x|k): log p(1) = l - log(1 + e^l) and log p(0) = -log(1 + e^l)
    return (torch.logaddexp(logits, torch.zeros_like(logits)) - x * logits).sum(1)


def terms(x, encoder, decoder, codebook):  # distortion, rate, penalty (B,) nats, and what the averages learn from
    h = encode(x, encoder, codebook.shape[1])
    k = nearest(h.detach(), codebook)
    e = codebook[k]
    z = e + (h - h.detach())
    rate = torch.full_like(x[:, 0], k.shape[1] * math.log(len(codebook)))
    return distortion(x, decode(z, decoder)), rate, 0.25 * ((h - e) ** 2).sum((1, 2)), h.detach(), k


def average(h, k, codebook, counts, sums, decay=0.99):  # moves all three, in place
    chosen = torch.zeros(k.numel(), len(codebook), dtype=h.dtype)
    chosen[torch.arange(k.numel()), k.flatten()] = 1  # (B P, K): who chose what
    counts.mul_(decay).add_((1 - decay) * chosen.sum(0))
    sums.mul_(decay).add_((1 - decay) * chosen.T @ h.flatten(0, 1))
    alive = counts > 1e-6  # what nobody chooses any more stays where it is
    codebook[alive] = sums[alive] / counts[alive, None]


def adam(parameters, gradients, moments, t, step_size=1e-3):  # Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g**2)
        p.data -= step_size * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def train_step(x, encoder, decoder, book, moments, t):  # book: codebook, counts, sums
    spent, rate, penalty, h, k = terms(x, encoder, decoder, book[0])
    loss = (spent + rate + penalty).mean()
    adam(encoder + decoder, torch.autograd.grad(loss, encoder + decoder), moments, t)
    average(h, k, *book)
    return loss.item()


def main(letters=4, codewords=32, width=8):
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data > 8, dtype=torch.float32)  # (1797, 64) black or white
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]
    encoder, decoder = initialise((64, 128, width * letters)), initialise((width * letters, 128, 64))
    codebook = encode(train, encoder, width).detach().flatten(0, 1)[:codewords].clone()  # what the first rows say
    book = codebook, torch.ones(codewords), codebook.clone()
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in encoder + decoder]
    for t in range(1, 3001):
        train_step(train[torch.randint(len(train), (100,))], encoder, decoder, book, moments, t)
        if t % 600 == 0:
            with torch.no_grad():
                spent, rate, _, _, k = terms(test, encoder, decoder, codebook)
            bound, used = -(spent + rate), len(k.unique())
            error = bound.std() / math.sqrt(297)
            print(f"step {t}: ELBO {bound.mean():.2f} +- {error:.2f} nats on 297 test digits, {used} codewords used")
    print("the first of them:", *k[0].tolist())
    drawn = torch.sigmoid(decode(codebook[k[:1]], decoder)).reshape(8, 8)
    print("as these letters spell it:", *("".join(" .:#"[int(4 * p)] for p in row) for row in drawn * 0.999), sep="\n")


if __name__ == "__main__":
    main()
