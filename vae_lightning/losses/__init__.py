"""Reconstruction terms, the KL and its schedule, the perceptual term, and the objective that joins them."""

from vae_lightning.losses.beta_schedule import BetaSchedule, Capacity, Constant, Cyclical, LinearWarmup
from vae_lightning.losses.kl import AnalyticKL, FreeBits, KLTerm, PerLevelKL
from vae_lightning.losses.objective import KLWeight, Objective, ObjectiveTerms
from vae_lightning.losses.perceptual import PerceptualTerm, VGG16Perceptual
from vae_lightning.losses.reconstruction import (
    AbsoluteError,
    BinaryCrossEntropy,
    GaussianDiscretised,
    GaussianPerPixel,
    GaussianShared,
    Logistic,
    ReconstructionLoss,
    SquaredError,
)

__all__ = [
    "AbsoluteError",
    "AnalyticKL",
    "BetaSchedule",
    "BinaryCrossEntropy",
    "Capacity",
    "Constant",
    "Cyclical",
    "FreeBits",
    "GaussianDiscretised",
    "GaussianPerPixel",
    "GaussianShared",
    "KLTerm",
    "KLWeight",
    "LinearWarmup",
    "Logistic",
    "Objective",
    "ObjectiveTerms",
    "PerLevelKL",
    "PerceptualTerm",
    "ReconstructionLoss",
    "SquaredError",
    "VGG16Perceptual",
]
