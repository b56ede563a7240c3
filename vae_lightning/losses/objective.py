"""The objective in nats: reconstruction + beta * |KL - capacity| + weight * perceptual term, mean over the batch."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.losses.beta_schedule import BetaSchedule, Constant
from vae_lightning.losses.kl import AnalyticKL, KLTerm
from vae_lightning.losses.perceptual import PerceptualTerm
from vae_lightning.losses.process_means import mean_over_processes
from vae_lightning.losses.reconstruction import ReconstructionLoss
from vae_lightning.models.distributions import PixelPrediction


@dataclass(frozen=True)
class KLWeight:
    """The KL costs beta * |KL - capacity_nats|. Numbers, or tensors of one number, which a compiled step needs."""

    beta: float | Float[Tensor, ""]
    capacity_nats: float | Float[Tensor, ""] = 0.0


@dataclass(frozen=True)
class ObjectiveTerms:
    """The objective of one batch, and what it is made of."""

    loss: Float[Tensor, ""]  # averaged over the batch
    reconstruction_nats: Float[Tensor, " batch"]  # summed over pixels
    perceptual: Float[Tensor, " batch"] | None = None  # before its weight


class Objective(nn.Module):
    """The same in training, validation and test, except that training changes beta and capacity by the schedule.

    Source: Higgins et al. 2017 (beta-VAE), equation 4; beta = 1 is the ELBO of Kingma & Welling 2014.

    Args:
        reconstruction: the pixel term.
        beta: weight of the KL term.
        beta_schedule: how that weight changes; None keeps it.
        kl: what the KL term counts; None counts all of it.
        perceptual: added with its own weight; None adds nothing.

    Raises:
        ValueError: beta is negative or not finite, or two terms contradict each other.
    """

    def __init__(
        self,
        reconstruction: ReconstructionLoss,
        beta: float = 1.0,
        beta_schedule: BetaSchedule | None = None,
        kl: KLTerm | None = None,
        perceptual: PerceptualTerm | None = None,
    ) -> None:
        super().__init__()
        if not math.isfinite(beta) or beta < 0:
            raise ValueError(f"beta={beta}: must be a finite number, 0 or larger (1 is the plain VAE)")
        self.reconstruction = reconstruction
        self.beta = beta
        self.beta_schedule = beta_schedule or Constant()
        self.kl = kl or AnalyticKL()
        self.perceptual = perceptual
        if self.kl.has_allowance and self.has_capacity:
            raise ValueError(
                f"kl={type(self.kl).__name__} and beta_schedule=capacity both keep the KL above 0 by different rules: "
                "take kl=analytic or another beta_schedule"
            )

    @property
    def has_capacity(self) -> bool:
        return self.beta_schedule.final_capacity_nats > 0

    @property
    def final_weight(self) -> KLWeight:
        """The weight in validation and test."""
        return KLWeight(self.beta, self.beta_schedule.final_capacity_nats)

    def weight_at(self, epoch: int, step: int) -> KLWeight:
        """The weight in training, in `epoch` at optimizer step `step`."""
        factor, capacity_nats = self.beta_schedule.factor(epoch, step), self.beta_schedule.capacity_nats(epoch, step)
        return KLWeight(self.beta * factor, capacity_nats)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        prediction: PixelPrediction,
        kl_per_latent: Float[Tensor, "batch latent"] | None,
        weight: KLWeight,
    ) -> ObjectiveTerms:
        """The terms of a batch of `images`, which are in the model's pixel range; a plain autoencoder has no KL."""
        reconstruction_nats = self.reconstruction(prediction, images)  # (batch,)
        loss = reconstruction_nats.mean()
        if kl_per_latent is not None:
            kl_nats = self.kl(kl_per_latent)  # summed over latents, averaged over the batch
            if self.has_capacity:
                kl_nats = (mean_over_processes(kl_nats) - weight.capacity_nats).abs()
            loss = loss + weight.beta * kl_nats
        perceptual = None
        if self.perceptual is not None:
            perceptual = self.perceptual(prediction, images)  # (batch,)
            loss = loss + self.perceptual.weight * perceptual.mean()
        return ObjectiveTerms(loss, reconstruction_nats, perceptual)
