"""KL terms: the whole KL, or only the part of it that exceeds a free allowance."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.losses.process_means import mean_over_processes


class KLTerm(ABC):
    """From the KL of every image and latent to the one number that the objective weighs by beta.

    `has_allowance` says whether a part of the KL is free, so that the term keeps it above 0. `words` is what a model
    card calls the term; without it the card has the name of the class.
    """

    has_allowance = False
    words: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        """Nats, summed over latents, averaged over the batch."""


class AnalyticKL(KLTerm):
    """The KL itself."""

    words = "KL(q(z|x) ‖ N(0, I))"

    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        return kl_per_latent.sum(1).mean()


class FreeBits(KLTerm):
    """sum_j max(nats_per_latent, mean over the batch of KL_j): a KL below the allowance is not rewarded.

    The logged `kl_nats` is the true KL; only the loss contains the allowance.
    Source: Kingma et al. 2016, equation 15, arXiv:1606.04934, with one latent per group.

    Args:
        nats_per_latent: the allowance.
    """

    has_allowance = True
    words = "KL(q(z|x) ‖ N(0, I)), of which each latent has an allowance free"

    def __init__(self, nats_per_latent: float = 0.25) -> None:
        if not math.isfinite(nats_per_latent) or nats_per_latent <= 0:
            raise ValueError(
                f"kl.nats_per_latent={nats_per_latent}: must be a number above 0; kl=analytic has no allowance"
            )
        self.nats_per_latent = nats_per_latent

    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        return torch.clamp(mean_over_processes(kl_per_latent.mean(0)), min=self.nats_per_latent).sum()
