"""Reconstruction terms, the KL's schedule, and the objective that joins them."""

from vae_lightning.losses.beta_schedule import BetaSchedule, Constant, LinearWarmup
from vae_lightning.losses.objective import Objective, ObjectiveTerms
from vae_lightning.losses.reconstruction import BinaryCrossEntropy, ReconstructionLoss, SquaredError

__all__ = [
    "BetaSchedule",
    "BinaryCrossEntropy",
    "Constant",
    "LinearWarmup",
    "Objective",
    "ObjectiveTerms",
    "ReconstructionLoss",
    "SquaredError",
]
