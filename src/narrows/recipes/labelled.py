"""Rows that come with more than themselves: labels, of all or of few, or any features."""

from dataclasses import replace
from typing import Any

from narrows.divergences import Adversarial, Game, JensenShannon
from narrows.labels import Labelled, LabelledGaussian, SoftLabels
from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.penalties import CrossEntropy
from narrows.posteriors import Gaussian
from narrows.priors import ConditionalNormal, StandardNormal
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["conditional", "semi_supervised", "semi_supervised_aae"]


@recipe(likelihood=Bernoulli, prior=ConditionalNormal, posterior=Gaussian)
def conditional(common: Common, **objective: Any) -> Parts:
    """Conditional VAE: labels or features told to encoder, prior and decoder (Sohn et al. 2015, NeurIPS 28)."""
    if not common.context:
        raise ValueError(
            "conditional tells a model something of every row, and context=0 is nothing: give the "
            "number of features, data.context of data.load(..., context='label'), or take recipe vae"
        )
    return common.model(common.density()), Objective(**objective)


def _with_label(common: Common, classes: int) -> tuple[Common, Labelled]:
    """The prior of labels and styles, and what models are built from for a code of both."""
    prior = Labelled(common.p(), classes)
    return replace(common, latent=prior.latent), prior


@recipe(likelihood=Bernoulli, prior=StandardNormal)
def semi_supervised(
    common: Common,
    classes: int = 2,
    weight: float | None = None,  # of -log q(y|x) where the label is known: 1 for each value of a row
    **objective: Any,
) -> Parts:
    """Semi-supervised VAE (M2): a label in the code, known of some rows (Kingma et al. 2014, arXiv:1406.5298)."""
    wide, prior = _with_label(common, classes)
    weight = common.values if weight is None else weight
    return wide.model(LabelledGaussian(prior)), Objective(penalty=CrossEntropy(weight), **objective)


@recipe(beta=0.0, prior=StandardNormal)
def semi_supervised_aae(
    common: Common,
    classes: int = 2,
    labels: float | None = None,  # of -log q(y|x), as the weight of semi_supervised
    game: Game = JensenShannon(),  # noqa: B008 (frozen)
    weight: float | None = None,  # as in aae
    **objective: Any,
) -> Parts:
    """Semi-supervised AAE: a critic holds label and style to the prior (Makhzani et al. 2015, arXiv:1511.05644)."""
    wide, prior = _with_label(common, classes)
    weight = 0.004 * common.values / game.curvature if weight is None else weight
    labels = common.values if labels is None else labels
    critic = Adversarial(wide.latent, game, weight, context=common.context)
    posterior = SoftLabels(replace(common, prior=None).deterministic(), prior)
    return wide.model(posterior), Objective(discrepancy=critic, penalty=CrossEntropy(labels), **objective)
