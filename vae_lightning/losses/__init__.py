"""Reconstruction terms, the KL and its schedule, the perceptual term, and the objective that joins them."""

from vae_lightning.losses.beta_schedule import BetaSchedule, Capacity, Constant, Cyclical, LinearWarmup
from vae_lightning.losses.kl import AnalyticKL, FreeBits, KLTerm
from vae_lightning.losses.objective import KLWeight, Objective, ObjectiveTerms
from vae_lightning.losses.perceptual import PerceptualTerm, VGG16Perceptual
from vae_lightning.losses.reconstruction import (
    AbsoluteError,
    BinaryCrossEntropy,
    GaussianPerPixel,
    GaussianShared,
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
    "GaussianPerPixel",
    "GaussianShared",
    "KLTerm",
    "KLWeight",
    "LinearWarmup",
    "Objective",
    "ObjectiveTerms",
    "PerceptualTerm",
    "ReconstructionLoss",
    "SquaredError",
    "VGG16Perceptual",
]
