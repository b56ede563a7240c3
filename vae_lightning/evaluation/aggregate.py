"""The aggregate posterior q(z) = mean_n q(z|x_n), and how the KL term splits over it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.tracking import Track

CELLS_AT_ONCE = 2**23  # of samples x images x latents: 32 MiB


@dataclass(frozen=True)
class KLParts:
    """E_x KL(q(z|x) || p(z)) = mutual_information + total_correlation + dimension_wise_kl, one value per image, nats.

    Over the images at hand: the mutual information between image and latents is at most log(number of images).
    """

    mutual_information: Float[Tensor, " images"]
    total_correlation: Float[Tensor, " images"]
    dimension_wise_kl: Float[Tensor, " images"]


def decompose_kl(posterior: DiagonalGaussian, noise: Float[Tensor, "images latent"], track: Track) -> KLParts:
    """By Monte Carlo with one latent sample per image; q(z) is the whole mixture over these images, nothing is sampled.

    Source: Chen et al. 2018 (beta-TCVAE), equation 2, arXiv:1802.04942.
    """
    latents = posterior.sample(noise)
    count = len(latents)
    samples_at_once = max(1, CELLS_AT_ONCE // (count * latents.shape[1]))
    joint, marginals = torch.empty(count, dtype=torch.float64), torch.empty(count, dtype=torch.float64)
    firsts = range(0, count, samples_at_once)
    precision = torch.exp(-posterior.logvar)
    for first in track(firsts, "Aggregate posterior", len(firsts)):
        part = slice(first, first + samples_at_once)
        distance = (latents[part, None] - posterior.mean).square_().mul_(precision).add_(posterior.logvar)
        log_density = distance.mul_(-0.5)  # without its constant; samples x images x latents
        joint[part] = torch.logsumexp(log_density.sum(2), dim=1)
        marginals[part] = torch.logsumexp(log_density, dim=1).double().sum(1)
    num_latents = latents.shape[1]
    joint -= math.log(count)
    marginals -= num_latents * math.log(count)
    own = -0.5 * (noise.square() + posterior.logvar).double().sum(1)
    prior = -0.5 * latents.square().double().sum(1)  # all four lack the same constant, latents/2 log(2 pi)
    return KLParts(own - joint, joint - marginals, marginals - prior)


def gaussian_kl(mean: Float[Tensor, " latent"], covariance: Float[Tensor, "latent latent"]) -> float:
    """KL(N(mean, covariance) || N(0, I)) in nats."""
    trace, square = covariance.diagonal().sum(), mean.square().sum()
    return float(0.5 * (trace + square - len(mean) - torch.linalg.slogdet(covariance).logabsdet))


def aggregate_moments(
    posterior: DiagonalGaussian,
) -> tuple[Float[Tensor, " latent"], Float[Tensor, "latent latent"]]:
    """Mean and covariance of q(z), exactly: those of the means, plus the mean variance."""
    mean = posterior.mean.double()
    covariance = torch.cov(mean.T, correction=0).reshape(mean.shape[1], -1)
    return mean.mean(0), covariance + torch.diag(posterior.logvar.double().exp().mean(0))
