"""What a trained model is worth, in numbers that say how they were got.

Every function takes rows (`Rows`, or a tensor in model units) and draws under a seed of its own: the same call gives
the same number, and torch's generator is left as found.
"""

from narrows.evaluate.annealed import annealed_importance_sampling
from narrows.evaluate.classes import accuracy, log_joint, predict_proba
from narrows.evaluate.common import Mean, codes, inputs, reconstruct
from narrows.evaluate.gap import InferenceGap, Refined, inference_gap, refine, without_encoder
from narrows.evaluate.generation import frechet_distance
from narrows.evaluate.gradients import GradientVariance, gradient_variance
from narrows.evaluate.integral import Integral, quadrature
from narrows.evaluate.latent import (
    ActiveUnits,
    Features,
    RoundTrip,
    Usage,
    active_units,
    features,
    round_trip,
    usage,
)
from narrows.evaluate.likelihood import (
    Likelihood,
    bits_per_dimension,
    distortion_rate,
    log_likelihood,
    rate_by_rung,
    score_samples,
)
from narrows.evaluate.summary import evaluate, verdict
from narrows.evaluate.synthetic import Augmented, Beside, Synthetic, auc, augmentation, synthetic
from narrows.evaluate.uncertainty import Spread, spread

__all__ = [
    "ActiveUnits",
    "Augmented",
    "Beside",
    "Features",
    "GradientVariance",
    "InferenceGap",
    "Integral",
    "Likelihood",
    "Mean",
    "Refined",
    "RoundTrip",
    "Spread",
    "Synthetic",
    "Usage",
    "accuracy",
    "active_units",
    "annealed_importance_sampling",
    "auc",
    "augmentation",
    "bits_per_dimension",
    "codes",
    "distortion_rate",
    "evaluate",
    "features",
    "frechet_distance",
    "gradient_variance",
    "inference_gap",
    "inputs",
    "log_joint",
    "log_likelihood",
    "predict_proba",
    "quadrature",
    "rate_by_rung",
    "reconstruct",
    "refine",
    "round_trip",
    "score_samples",
    "spread",
    "synthetic",
    "usage",
    "verdict",
    "without_encoder",
]
