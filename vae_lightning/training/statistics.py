"""The numbers that are logged, summed over images: the means do not depend on the number of batches and processes."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from vae_lightning.losses import ObjectiveTerms
from vae_lightning.models.distributions import ACTIVE_VARIANCE, nats_to_bits_per_dim

# of an autoencoder, most informative first; a plain autoencoder lacks those that need a KL
SHOWN_METRICS = ("loss", "elbo_nats", "reconstruction_nats", "kl_nats", "bits_per_dim", "active_units", "mse")
READ_METRICS = (
    "loss",
    "accuracy",
    "balanced_accuracy",
    "auc",
    "r_squared",
)  # of an attribute classifier or factor regressor
METRICS_OF_KL = ("elbo_nats", "kl_nats", "bits_per_dim")


@dataclass(frozen=True)
class BatchSums:
    """Sums over the images of a batch, in two tensors: each further tensor costs a GPU one kernel per step."""

    scalars: Float[Tensor, "5"]  # images, loss, reconstruction, mse, perceptual
    per_latent: Float[Tensor, "3 latent"]  # KL, posterior mean, its square

    @property
    def likelihood(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Images, and the nats of their reconstruction term."""
        return self.scalars[0], self.scalars[2]

    @property
    def mse(self) -> Float[Tensor, ""]:
        """Mean over the batch."""
        return self.scalars[3] / self.scalars[0]


@torch.no_grad()
def batch_sums(
    terms: ObjectiveTerms,
    kl_per_latent: Float[Tensor, "batch latent"],
    posterior_mean: Float[Tensor, "batch latent"] | None,
    mse: Float[Tensor, " batch"],
) -> BatchSums:
    count = torch.full_like(terms.loss, len(mse))
    perceptual = torch.zeros_like(count) if terms.perceptual is None else terms.perceptual.sum()
    scalars = (count, terms.loss * count, terms.reconstruction_nats.sum(), mse.sum(), perceptual)
    kl = kl_per_latent.sum(0)
    mean = torch.zeros_like(kl_per_latent) if posterior_mean is None else posterior_mean
    return BatchSums(torch.stack(scalars), torch.stack([kl, mean.sum(0), mean.square().sum(0)]))


class ObjectiveStatistics(Metric):
    """Means over images of the objective's terms and of what is logged beside them.

    `active_units` counts the latents whose posterior mean varies over the images by more than 0.01
    (Burda et al. 2016, section 5.2, arXiv:1509.00519). `elbo_nats` is the plain beta = 1 ELBO, up to the
    constant of the reconstruction term.

    Args:
        latent_dim: number of latents.
        num_pixels: dimensions of one image.
        has_kl: whether the posterior has a KL; without it there is neither ELBO nor likelihood.
        has_perceptual: whether the objective has a perceptual term.
        has_means: whether posterior means are known, which active units need.
    """

    full_state_update = False
    scalars: Tensor
    per_latent: Tensor
    likelihood: Tensor  # images, nats

    def __init__(
        self,
        latent_dim: int,
        num_pixels: int,
        has_kl: bool = True,
        has_perceptual: bool = False,
        has_means: bool = True,
        **metric_arguments: Any,
    ) -> None:
        super().__init__(**metric_arguments)
        self.num_pixels = num_pixels
        self.has_kl = has_kl
        self.has_perceptual = has_perceptual
        self.has_means = has_means
        for name, shape in (("scalars", (5,)), ("per_latent", (3, latent_dim)), ("likelihood", (2,))):
            self.add_state(name, torch.zeros(shape), dist_reduce_fx="sum")

    def update(self, sums: BatchSums) -> None:
        self.scalars += sums.scalars
        self.per_latent += sums.per_latent

    def update_likelihood(self, num_images: Float[Tensor, ""], nll: Float[Tensor, ""]) -> None:
        """Takes the summed 256-level nats, which are slow, of the images of `update` or of a part of them."""
        self.likelihood[0] += num_images
        self.likelihood[1] += nll

    def compute(self) -> dict[str, Tensor]:
        """Means over the images seen, nan where there were none; `kl_nats_per_latent` alone is a vector."""
        count, *sums = self.scalars.unbind()
        loss, reconstruction_nats, mse, perceptual = (total / count for total in sums)
        kl_nats_per_latent, mean, mean_squared = self.per_latent / count
        variance = mean_squared - mean.square()
        values = {"loss": loss, "reconstruction_nats": reconstruction_nats, "mse": mse}
        if self.has_means:
            values["active_units"] = (variance > ACTIVE_VARIANCE).sum().float()
        if self.has_kl:
            kl_nats = kl_nats_per_latent.sum()
            values["kl_nats"] = kl_nats
            values["elbo_nats"] = -(reconstruction_nats + kl_nats)
            nll = self.likelihood[1] / self.likelihood[0] + kl_nats
            values["bits_per_dim"] = nats_to_bits_per_dim(nll, self.num_pixels)
        if self.has_perceptual:
            values["perceptual"] = perceptual
        values["kl_nats_per_latent"] = kl_nats_per_latent
        return values
