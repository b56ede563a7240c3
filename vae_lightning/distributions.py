"""Posteriors over latents and likelihoods over pixels. Logarithms are natural: nats."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.pixels import NUM_LEVELS, PixelRange, as_level, to_unit_range


@dataclass(frozen=True)
class DiagonalGaussian:
    """q(z|x) = N(mean, diag(exp(logvar)))."""

    mean: Float[Tensor, "batch latent"]
    logvar: Float[Tensor, "batch latent"]

    def sample(self, noise: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """z = mean + sigma * noise, the reparametrised sample for standard normal `noise`.

        The noise comes from outside so that a training step is a function of its inputs: the caller decides
        which generator draws it, and a resumed run draws the same.
        Source: Kingma & Welling 2014, section 2.4, arXiv:1312.6114.
        """
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl_per_latent(self) -> Float[Tensor, "batch latent"]:
        """KL(q(z_j|x) || N(0, 1)) in nats, one value per image and latent.

        Source: Kingma & Welling 2014, appendix B, arXiv:1312.6114.
        """
        # expm1(logvar) - logvar: exact near logvar = 0, where exp(logvar) - 1 - logvar loses all digits
        return 0.5 * (self.mean.square() + torch.expm1(self.logvar) - self.logvar)


def discretised_gaussian_nll(
    reconstruction: Float[Tensor, "batch *pixels"],
    images: Float[Tensor, "batch *pixels"],
    variance: Float[Tensor, ""],
    pixel_range: PixelRange,
) -> Float[Tensor, " batch"]:
    """-log p(x|z) in nats, summed over pixels, for 256 pixel levels: a proper likelihood.

    Each level has the Gaussian's mass in its bin of width 1/255; the bins of levels 0 and 255 reach to
    minus and plus infinity, so that the 256 masses add up to one.
    `variance` is that of a pixel on the [0, 1] scale. `images` must hold the 256 levels (no dequantisation).
    Source: Salimans et al. 2017, section 2.1, arXiv:1701.05517, with a Gaussian in place of the logistic.
    """
    level = as_level(images, pixel_range)
    scale = (NUM_LEVELS - 1) * variance.sqrt()
    offset = level / (NUM_LEVELS - 1) - to_unit_range(reconstruction, pixel_range)
    centre = offset * (NUM_LEVELS - 1) / scale
    half_width = 0.5 / scale
    lower = torch.where(level == 0, -math.inf, centre - half_width)
    upper = torch.where(level == NUM_LEVELS - 1, math.inf, centre + half_width)
    # The Gaussian is symmetric: work in its lower tail, where log Phi keeps its digits.
    flipped = centre > 0
    lower, upper = torch.where(flipped, -upper, lower), torch.where(flipped, -lower, upper)
    log_upper = torch.special.log_ndtr(upper)
    log_ratio = torch.special.log_ndtr(lower) - log_upper
    log_mass = log_upper + torch.log(-torch.expm1(log_ratio))
    return -log_mass.flatten(1).sum(1)


def nats_to_bits_per_dim(nats: Float[Tensor, "*shape"], num_dims: int) -> Float[Tensor, "*shape"]:
    return nats / (num_dims * math.log(2.0))
