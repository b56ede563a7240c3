"""Posteriors over latents and likelihoods over pixels. Logarithms are natural: nats."""

import math
from dataclasses import dataclass
from itertools import repeat

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.models.pixels import NUM_LEVELS, PixelRange, as_level, to_pixel_range, to_uint8, to_unit_range

SMALLEST_SIGMA = 1 / (NUM_LEVELS - 1)  # of a pixel in [0, 1]: one grey level; a narrower density models rounding
UNIFORM_PIXEL_VARIANCE = 1 / 12  # of a pixel in [0, 1]: where a running variance starts
RUNNING_WEIGHT = 0.02  # of one batch in a running variance of pixels: it remembers about 50 batches
IMAGES_AT_ONCE = 32  # in a likelihood on the CPU: they stay in its cache, three times as fast
ACTIVE_VARIANCE = 0.01  # of a latent's posterior mean over images: above it the latent is active
SMALLEST_MASS = 1e-30  # below, differences of float32's erfc lose their digits


@dataclass(frozen=True)
class PosteriorDraw:
    """One draw of latents for each image, and what it costs."""

    latents: Float[Tensor, "batch latent"]
    kl_per_latent: Float[Tensor, "batch latent"]  # nats; of a hierarchical posterior: given what was drawn above
    log_ratio: Float[Tensor, " batch"]  # log q(z|x) - log p(z) at these latents, nats
    mean: Float[Tensor, "batch latent"] | None = None  # of q(z|x); None where a draw does not come across it

    def detach(self) -> "PosteriorDraw":
        mean = None if self.mean is None else self.mean.detach()
        return PosteriorDraw(self.latents.detach(), self.kl_per_latent.detach(), self.log_ratio.detach(), mean)


@dataclass(frozen=True)
class Deterministic:
    """The code of a plain autoencoder: q(z|x) is one point, so there is no KL and no prior to sample from."""

    mean: Float[Tensor, "batch latent"]

    def draw(self, noise: Float[Tensor, "batch latent"]) -> PosteriorDraw:
        """The point itself, whatever the noise; it costs nothing, see `kl_per_latent`."""
        return PosteriorDraw(self.mean, self.kl_per_latent(), self.mean.new_zeros(len(self.mean)), self.mean)

    def kl_per_latent(self) -> Float[Tensor, "batch latent"]:
        """Zeros, because an autoencoder's objective has no KL term. (The KL of a point is infinite.)"""
        return torch.zeros_like(self.mean)

    def detach(self) -> "Deterministic":
        return Deterministic(self.mean.detach())


@dataclass(frozen=True)
class DiagonalGaussian:
    """q(z|x) = N(mean, diag(exp(logvar)))."""

    mean: Float[Tensor, "batch latent"]
    logvar: Float[Tensor, "batch latent"]

    def draw(self, noise: Float[Tensor, "batch latent"]) -> PosteriorDraw:
        """z = mean + sigma * noise, the reparametrised sample for standard normal `noise`.

        The noise comes from outside so that a training step is a function of its inputs: the caller decides
        which generator draws it, and a resumed run draws the same.
        Source: Kingma & Welling 2014, section 2.4, arXiv:1312.6114.
        """
        latents = self.mean + torch.exp(0.5 * self.logvar) * noise
        return PosteriorDraw(latents, self.kl_per_latent(), gaussian_log_ratio(latents, noise, self.logvar), self.mean)

    def kl_per_latent(self) -> Float[Tensor, "batch latent"]:
        """KL(q(z_j|x) || N(0, 1)) in nats, one value per image and latent.

        Source: Kingma & Welling 2014, appendix B, arXiv:1312.6114.
        """
        return gaussian_kl_per_latent(self.mean, self.logvar)

    def detach(self) -> "DiagonalGaussian":
        return DiagonalGaussian(self.mean.detach(), self.logvar.detach())


@dataclass(frozen=True)
class HierarchicalGaussian:
    """q(z|x) of a model whose levels depend on what was drawn above, seen along the path of the means.

    Each level's Gaussian is that given the means above it. There is no joint log-variance, and a draw of all levels
    is no draw from these Gaussians: `Autoencoder.draw` makes one.
    """

    mean: Float[Tensor, "batch latent"]
    logvar_given_means: Float[Tensor, "batch latent"]

    def kl_per_latent(self) -> Float[Tensor, "batch latent"]:
        """The KL to N(0, 1) of each latent given the means above, in nats. Its sum is not the KL of the posterior."""
        return gaussian_kl_per_latent(self.mean, self.logvar_given_means)

    def detach(self) -> "HierarchicalGaussian":
        return HierarchicalGaussian(self.mean.detach(), self.logvar_given_means.detach())


Posterior = DiagonalGaussian | HierarchicalGaussian | Deterministic


def gaussian_kl_per_latent(mean: Float[Tensor, "*shape"], logvar: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats."""
    # expm1(logvar) - logvar: exact near logvar = 0, where exp(logvar) - 1 - logvar loses all digits
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def gaussian_log_ratio(
    latents: Float[Tensor, "batch latent"], noise: Float[Tensor, "batch latent"], logvar: Float[Tensor, "batch latent"]
) -> Float[Tensor, " batch"]:
    """log N(z; mean, exp(logvar)) - log N(z; 0, I) at z = mean + sigma * noise: the constants cancel. Nats."""
    return 0.5 * (latents.square() - noise.square() - logvar).sum(1)


@dataclass(frozen=True)
class PixelPrediction:
    """p(x|z) of a decoder: the mean of each pixel, and its log-variance where the decoder predicts one."""

    mean: Float[Tensor, "batch channels height width"]  # in pixel_range
    logvar: Float[Tensor, "batch channels height width"] | None = None  # of pixels in pixel_range
    pixel_range: PixelRange = (0.0, 1.0)

    def detach(self) -> "PixelPrediction":
        """The same numbers without gradients."""
        return PixelPrediction(
            self.mean.detach(), None if self.logvar is None else self.logvar.detach(), self.pixel_range
        )

    def sample(
        self, generator: torch.Generator, temperature: float = 1.0
    ) -> Float[Tensor, "batch channels height width"]:
        """Pixels on the 256 levels, in `pixel_range`.

        Args:
            generator: of the noise, which is drawn on its device.
            temperature: factor on the spread of each pixel, above 0; 1 is p(x|z) itself.

        Raises:
            ValueError: the temperature is not above 0, or the prediction is a mean and no distribution.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(
                f"pixel_temperature={temperature}: must be 0 (the mean of each pixel) or more; 1 is the model's own "
                "distribution"
            )
        return self._sample(generator, temperature)

    def _sample(self, generator: torch.Generator, temperature: float) -> Float[Tensor, "batch channels height width"]:
        if self.logvar is None:
            raise ValueError(
                f"pixel_temperature={temperature}: this model predicts the mean of each pixel and no distribution to "
                "draw it from: leave it at 0, or train with reconstruction=logistic, gaussian_discretised or "
                "gaussian_shared"
            )
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device).to(self.mean.device)
        pixels = self.mean + temperature * torch.exp(0.5 * self.logvar) * noise
        return to_pixel_range(to_uint8(pixels, self.pixel_range), self.pixel_range)


def floored_logvar(logvar: Float[Tensor, "*shape"], pixel_range: PixelRange) -> Float[Tensor, "*shape"]:
    """Keeps sigma above one grey level, smoothly, so that a gradient always remains.

    Without a floor the density of a pixel that is predicted exactly grows without bound.
    Source: Rybkin et al. 2021, section 4.3 ("softclip"), arXiv:2006.13202.
    """
    low, high = pixel_range
    smallest = 2 * math.log(SMALLEST_SIGMA * (high - low))
    return smallest + torch.nn.functional.softplus(logvar - smallest)


def gaussian_nll(
    squared_error: Float[Tensor, "batch channels height width"],
    logvar: Float[Tensor, "#batch #channels #height #width"],
) -> Float[Tensor, " batch"]:
    """-log N(x; mean, exp(logvar)) in nats, summed over pixels; a density, so it may be negative.

    Source: Kingma & Welling 2014, appendix C.2, arXiv:1312.6114.
    """
    per_pixel = 0.5 * (math.log(2 * math.pi) + logvar + squared_error * torch.exp(-logvar))
    return per_pixel.sum(dim=(1, 2, 3))


@torch.no_grad()
def discretised_gaussian_nll(
    reconstruction: Float[Tensor, "batch *pixels"],
    images: Float[Tensor, "batch *pixels"],
    variance: Float[Tensor, "..."],
    pixel_range: PixelRange,
) -> Float[Tensor, " batch"]:
    """-log p(x|z) in nats, summed over pixels, for 256 pixel levels: a proper likelihood.

    Each level has the Gaussian's mass in its bin of width 1/255; the bins of levels 0 and 255 reach to
    minus and plus infinity, so that the 256 masses add up to one.
    `variance` is that of pixels on the [0, 1] scale: one for all, or one for each. `images` must hold the 256 levels
    (no dequantisation), `reconstruction` must lie in `pixel_range`. A measure, not a loss: it has no gradient.
    Source: Salimans et al. 2017, section 2.1, arXiv:1701.05517, with a Gaussian in place of the logistic.
    """
    if images.device.type == "cpu" and len(images) > IMAGES_AT_ONCE:
        parts = (tensor.split(IMAGES_AT_ONCE) for tensor in (reconstruction, images))
        variances = variance.split(IMAGES_AT_ONCE) if len(variance.shape) == images.ndim else repeat(variance)
        likelihoods = (
            discretised_gaussian_nll(mean, pixels, one_variance, pixel_range)
            for mean, pixels, one_variance in zip(*parts, variances, strict=False)
        )
        return torch.cat(list(likelihoods))
    level = as_level(images, pixel_range)
    levels_per_sigma = (NUM_LEVELS - 1) * variance.sqrt()
    distance = (level - (NUM_LEVELS - 1) * to_unit_range(reconstruction, pixel_range)).abs() / levels_per_sigma
    half_width = 0.5 / levels_per_sigma
    # By symmetry every bin may lie above the mean: from `near` to `far` standard deviations. The open side of
    # levels 0 and 255 is the far one, since the mean is inside the range.
    near = distance - half_width
    far = torch.where((level == 0) | (level == NUM_LEVELS - 1), math.inf, distance + half_width)
    mass = 0.5 * (torch.erfc(near * math.sqrt(0.5)) - torch.erfc(far * math.sqrt(0.5)))
    log_mass = torch.log(mass)
    far_out = mass < SMALLEST_MASS
    if images.device.type != "cpu":  # a check whether there are any would wait for the device
        log_mass = torch.where(far_out, _log_mass_far_out(near, far), log_mass)
    elif far_out.any():  # rare, and slow
        log_mass[far_out] = _log_mass_far_out(near[far_out], far[far_out])
    return -log_mass.sum(dim=tuple(range(1, images.ndim)))


def _log_mass_far_out(near: Float[Tensor, "*shape"], far: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(Phi(far) - Phi(near)) where float32 has no such small masses: 10 standard deviations and more from the mean.

    Source: Abramowitz & Stegun 26.2.12, two terms; relative error of the mass below 3 / near^4.
    """
    log_near, log_far = (
        -0.5 * edge.square() - torch.log(edge * math.sqrt(2 * math.pi)) + torch.log1p(-1 / edge.square())
        for edge in (near.clamp_min(10.0), far.clamp_min(10.0))
    )
    return log_near + torch.log(-torch.expm1(log_far - log_near))


def nats_to_bits_per_dim(nats: Float[Tensor, "*shape"], num_dims: int) -> Float[Tensor, "*shape"]:
    return nats / (num_dims * math.log(2.0))
