"""The objective: reconstruction + beta * KL, summed over pixels and latents, averaged over the batch, in nats."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.losses.beta_schedule import BetaSchedule, Constant
from vae_lightning.losses.reconstruction import ReconstructionLoss


@dataclass(frozen=True)
class ObjectiveTerms:
    """What one batch costs."""

    loss: Float[Tensor, ""]  # mean over the batch of reconstruction + beta * KL
    reconstruction_nats: Float[Tensor, " batch"]  # summed over pixels
    kl_per_latent: Float[Tensor, "batch latent"]  # nats


class Objective(nn.Module):
    """The same in training, validation and test, but that training moves beta by the schedule.

    Source: Higgins et al. 2017 (beta-VAE), equation 4; beta = 1 is the ELBO of Kingma & Welling 2014.

    Raises:
        ValueError: beta is negative or not finite.
    """

    def __init__(
        self, reconstruction: ReconstructionLoss, beta: float = 1.0, beta_schedule: BetaSchedule | None = None
    ) -> None:
        super().__init__()
        if not math.isfinite(beta) or beta < 0:
            raise ValueError(f"beta={beta}: must be a finite number, 0 or larger (1 is the plain VAE)")
        self.reconstruction = reconstruction
        self.beta = beta
        self.beta_schedule = beta_schedule or Constant()

    def beta_at(self, epoch: int, step: int) -> float:
        """The training weight of the KL term."""
        return self.beta * self.beta_schedule.factor(epoch, step)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        reconstruction: Float[Tensor, "batch channels height width"],
        posterior: DiagonalGaussian,
        beta: float,
    ) -> ObjectiveTerms:
        reconstruction_nats = self.reconstruction(reconstruction, images)
        kl_per_latent = posterior.kl_per_latent()
        loss = (reconstruction_nats + beta * kl_per_latent.sum(1)).mean()
        return ObjectiveTerms(loss, reconstruction_nats, kl_per_latent)
