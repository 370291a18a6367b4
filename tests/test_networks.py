"""Networks against the formulas of their docstrings, written out."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from narrows import recipes
from narrows.activations import TopK
from narrows.networks import Mlp, Residual
from narrows.priors import Rungs
from narrows.spec import restore

close = torch.testing.assert_close


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize(("name", "f"), [("relu", relu), ("tanh", torch.tanh)])
def test_a_perceptron_is_layers_with_an_activation_between(name, f):
    """Context joins the input; pretraining reads the same activation."""
    network = Mlp((2, 3), (5,), 1, hidden=(4, 7), activation=name)
    x, told = torch.randn(6, 2, 3), torch.randn(6, 1)
    a, b, c = network.layers
    close(network(x, told), affine(c, f(affine(b, f(affine(a, torch.cat([x.flatten(1), told], 1)))))))
    close(network.between(torch.tensor([-0.5])), f(torch.tensor([-0.5])))


def test_a_residual_perceptron_reads_its_input_in_every_block():
    """By the formula; without the code's own path to a block, the block would not see it change."""
    network = Residual((3,), (1, 4), 2, width=8, blocks=2)
    x, told = torch.randn(6, 3), torch.randn(6, 2)
    both = torch.cat([x, told], 1)
    h = affine(network.first, both)
    for a, s, b in zip(network.inner, network.again, network.back, strict=True):
        h = h + affine(b, relu(affine(a, relu(h)) + both @ s.weight.T))
    close(network(x, told), affine(network.last, relu(h)).view(6, 1, 4))


def test_a_residual_decoder_is_a_part_like_any_other():
    """In a recipe, described and rebuilt."""
    model, _ = recipes.vae((6,), latent=2, network=partial(Residual, width=8))
    again, _ = recipes.build(model.spec)
    assert repr(again) == repr(model)


def test_what_a_part_takes_as_a_word_is_no_part():
    """Leaky perceptrons between the rungs and around them are rebuilt; a recipe's own activation is still a part."""
    leaky = partial(Mlp, hidden=(8,), activation="leaky", norm=True)
    model, _ = recipes.ladder((6,), latent=3, network=leaky, prior=partial(Rungs, activation="tanh"))
    assert repr(recipes.build(model.spec)[0]) == repr(model)
    assert restore("activation", "TopK") is TopK
    with pytest.raises(ValueError, match="there is no activation 'leaky'"):
        restore("activation", "leaky")


def test_what_no_network_can_be_is_refused():
    """At construction."""
    with pytest.raises(ValueError, match='activation is "relu", "tanh" or "leaky"; got \'elu\''):
        Mlp((2,), (2,), activation="elu")
    with pytest.raises(ValueError, match="at least 1; got width=4, blocks=0"):
        Residual((2,), (2,), width=4, blocks=0)
