"""An adversarial autoencoder from first principles, on handwritten digits.

A picture x goes through a code z of 8 numbers and back, as in autoencoder.py. That alone says nothing about which codes
occur: decode a draw from N(0, I), and what comes out is no digit. So a third network watches all codes together:

    V(z) large: "this is the code of a picture"        V(z) small: "this is a draw from the prior p(z) = N(0, I)"

It is a classifier, P(code) = sigmoid(V), trained on as many codes as draws. At its best V = log q(z) / p(z), where q is
how the codes are distributed, and what it then scores is a distance of q from p (Goodfellow et al. 2014, theorem 1):

    E_q log sigmoid(V) / 2 + E_p log sigmoid(-V) / 2 + log 2  =  Jensen-Shannon divergence of q and p

The critic climbs it. The encoder, besides keeping the distortion small, maximises log sigmoid(-V(z)) / 2: its codes
are to be taken for draws (Makhzani et al. 2015, arXiv:1511.05644). Neither player moves the other's weights.

Nothing here is imported but torch and the data. Run it: python docs/from_scratch/aae.py
"""

import math
from itertools import pairwise

import torch


def initialise(*sizes):  # e.g. 64, 128, 8: a matrix (out, in) and a vector (out,) for each layer
    parameters = []
    for a, b in pairwise(sizes):
        bound = 1 / math.sqrt(a)
        parameters += [torch.empty(b, a).uniform_(-bound, bound), torch.empty(b).uniform_(-bound, bound)]
    return [p.requires_grad_() for p in parameters]


def network(x, parameters):  # layers with ReLU between them
    for w, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = (x @ w.T + b).clamp(min=0)
    return x @ parameters[-2].T + parameters[-1]


def distortion(x, mean):  # (B,) nats, -log N(x; mean, I)
    return ((x - mean) ** 2).sum(1) / 2 + x.shape[1] / 2 * math.log(2 * math.pi)


def log_sigmoid(v):
    return torch.minimum(v, torch.zeros_like(v)) - torch.log1p(torch.exp(-v.abs()))


def losses(x, draws, encoder, decoder, critic, weight):
    z = network(x, encoder)  # (B, 8)
    v, v_draws = network(z, critic), network(draws, critic)
    model = distortion(x, network(z, decoder)).mean() - weight * log_sigmoid(-v).mean() / 2
    divergence = (log_sigmoid(v).mean() + log_sigmoid(-v_draws).mean()) / 2 + math.log(2)
    return model, -divergence


def adam(parameters, gradients, moments, t, step_size=1e-3):  # Kingma & Ba 2014, arXiv:1412.6980, algorithm 1
    for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
        m.mul_(0.9).add_(0.1 * g)
        v.mul_(0.999).add_(0.001 * g**2)
        p.data -= step_size * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)


def gradients(x, draws, encoder, decoder, critic, weight):  # each player's, of its own loss
    model, against = losses(x, draws, encoder, decoder, critic, weight)
    players = torch.autograd.grad(model, encoder + decoder, retain_graph=True), torch.autograd.grad(against, critic)
    return model, against, [*players[0], *players[1]]


def train_step(x, draws, encoder, decoder, critic, moments, t, weight=0.1):
    model, against, slopes = gradients(x, draws, encoder, decoder, critic, weight)
    adam(encoder + decoder + critic, slopes, moments, t)
    return model.item() + against.item()


def main():
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)  # (1797, 64) grey values in 0..1
    x = x[torch.randperm(len(x))]
    test, train = x[:297], x[297:]
    encoder, decoder, critic = initialise(64, 128, 8), initialise(8, 128, 64), initialise(8, 256, 256, 1)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in encoder + decoder + critic]
    for t in range(1, 4001):
        rows = train[torch.randint(len(train), (100,))]
        train_step(rows, torch.randn(100, 8), encoder, decoder, critic, moments, t)
        if t % 800 == 0:
            with torch.no_grad():
                z = network(test, encoder)
                error = (test - network(z, decoder)).pow(2).mean().sqrt()
                low, high = z.std(0).min(), z.std(0).max()
                print(
                    f"step {t}: root mean squared error {error:.4f} of the grey scale; codes: mean "
                    f"{z.mean(0).norm():.2f}, standard deviations {low:.2f} to {high:.2f}"
                )


if __name__ == "__main__":
    main()
