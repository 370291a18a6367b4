"""What a trained model is for: walks through the code, projections, priors that make it generative (more to come)."""

from narrows.tasks.anomaly import Detector, Threshold, benjamini_hochberg, point_adjusted, reasons
from narrows.tasks.cells import (
    Blame,
    Cleaned,
    Cleaning,
    Imputed,
    Rehearsal,
    blame,
    denoise,
    impute,
    rehearse,
    rehearse_denoising,
)
from narrows.tasks.codes import Projection, canonical_latent, fit_prior, project
from narrows.tasks.rows import Sampled, sample
from narrows.tasks.rungs import redraw
from narrows.tasks.walks import Moved, Traversal, arithmetic, interpolate, traverse

__all__ = [
    "Blame",
    "Cleaned",
    "Cleaning",
    "Detector",
    "Imputed",
    "Moved",
    "Projection",
    "Rehearsal",
    "Sampled",
    "Threshold",
    "Traversal",
    "arithmetic",
    "benjamini_hochberg",
    "blame",
    "canonical_latent",
    "denoise",
    "fit_prior",
    "impute",
    "interpolate",
    "point_adjusted",
    "project",
    "reasons",
    "redraw",
    "rehearse",
    "rehearse_denoising",
    "sample",
    "traverse",
]
