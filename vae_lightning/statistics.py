"""Sums over images of everything that is logged, so that any number of batches and processes gives the same means."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from vae_lightning.distributions import Posterior, nats_to_bits_per_dim
from vae_lightning.losses import ObjectiveTerms

ACTIVE_VARIANCE = 0.01
SUMS = ("count", "loss", "reconstruction", "squared_error", "perceptual", "likelihood_count", "likelihood_nll")


class ObjectiveStatistics(Metric):
    """Means over images of the objective's terms.

    `active_units` counts the latents whose posterior mean varies over the images by more than 0.01
    (Burda et al. 2016, section 5.2, arXiv:1509.00519). `elbo_nats` is the plain beta = 1 ELBO, up to the
    constant of the reconstruction term.

    Args:
        latent_dim: number of latents.
        num_pixels: dimensions of one image.
        has_kl: whether the posterior has a KL; without one there is no ELBO and no likelihood either.
    """

    full_state_update = False
    count: Tensor
    loss: Tensor
    reconstruction: Tensor
    squared_error: Tensor
    perceptual: Tensor
    kl_per_latent: Tensor
    mean: Tensor
    mean_squared: Tensor
    likelihood_count: Tensor
    likelihood_nll: Tensor

    def __init__(self, latent_dim: int, num_pixels: int, has_kl: bool = True, **metric_arguments: Any) -> None:
        super().__init__(**metric_arguments)
        self.num_pixels = num_pixels
        self.has_kl = has_kl
        self.has_perceptual = False  # until a batch brings one
        for name in SUMS:
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        for name in ("kl_per_latent", "mean", "mean_squared"):
            self.add_state(name, torch.zeros(latent_dim), dist_reduce_fx="sum")

    def update(
        self,
        terms: ObjectiveTerms,
        posterior: Posterior,
        mse: Float[Tensor, " batch"],
    ) -> None:
        mean = posterior.mean.detach()
        batch_size = len(mean)
        self.count += batch_size
        self.loss += terms.loss.detach() * batch_size
        self.reconstruction += terms.reconstruction_nats.detach().sum()
        self.squared_error += mse.detach().sum()
        self.kl_per_latent += terms.kl_per_latent.detach().sum(0)
        self.mean += mean.sum(0)
        self.mean_squared += mean.square().sum(0)
        if terms.perceptual is not None:
            self.has_perceptual = True
            self.perceptual += terms.perceptual.detach().sum()

    def update_likelihood(self, nll: Float[Tensor, " batch"]) -> None:
        """Takes the 256-level likelihood of images that `update` takes too, or of some of them: it is slow."""
        self.likelihood_count += len(nll)
        self.likelihood_nll += nll.sum()

    def compute(self) -> dict[str, Tensor]:
        """Means over the images seen; see design vocabulary for the names. Empty when no image was seen."""
        values = {
            "loss": self.loss / self.count,
            "reconstruction_nats": self.reconstruction / self.count,
            "mse": self.squared_error / self.count,
            "active_units": self._active().sum().float(),
        }
        if self.has_kl:
            kl_nats = self.kl_per_latent.sum() / self.count
            values["kl_nats"] = kl_nats
            values["elbo_nats"] = -(values["reconstruction_nats"] + kl_nats)
            nll = self.likelihood_nll / self.likelihood_count + kl_nats
            values["bits_per_dim"] = nats_to_bits_per_dim(nll, self.num_pixels)
        if self.has_perceptual:
            values["perceptual"] = self.perceptual / self.count
        values["kl_nats_per_latent"] = self.kl_per_latent / self.count  # the only vector
        return values

    def _active(self) -> Tensor:
        variance = self.mean_squared / self.count - (self.mean / self.count).square()
        return variance > ACTIVE_VARIANCE
