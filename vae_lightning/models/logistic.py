"""Discretised logistic likelihoods of pixels: exact probabilities of the 256 levels, channels conditioned.

Source: Salimans et al. 2017 (PixelCNN++), section 2.1 and 2.2, arXiv:1701.05517.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vae_lightning.models.distributions import PixelPrediction
from vae_lightning.models.pixels import NUM_LEVELS, PixelRange, to_unit_range

SMALLEST_LOG_SCALE = -7.0  # of pixels in [-1, 1]: the paper's; nearly all mass in one level
LARGEST_LOG_SCALE = 7.0  # all levels are equally likely long before; far above, the mass of a level would be 0
INITIAL_LOG_SCALE = -2.0  # where the decoder's output is 0: about 17 levels
HALF_BIN = 1 / (NUM_LEVELS - 1)  # of pixels in [-1, 1]
SMALLEST_UNIFORM = 2.0**-24  # the resolution of float32's random numbers: keeps logarithms of 0 away


def num_logistic_maps(channels: int, components: int) -> int:
    """Maps that a decoder gives for `components` logistic distributions per pixel.

    Each has a location and a scale per channel, and a coefficient for each pair of channels; several have weights.
    """
    per_component = 2 * channels + channels * (channels - 1) // 2
    return components * (per_component + (components > 1))


@dataclass(frozen=True)
class LogisticPrediction(PixelPrediction):
    """p(x|z) as a mixture of discretised logistic distributions, with one weight per pixel for all channels.

    A component's location of a channel moves by `coefficients` times what the channels before it lie off their own
    locations, so that channels depend on each other. That keeps the locations what they are on average: `mean` and
    `sample` know latents alone, never the channels of an image.
    """

    log_weights: Float[Tensor, "batch components height width"] = None  # type: ignore[assignment]
    locations: Float[Tensor, "batch components channels height width"] = None  # type: ignore[assignment]
    log_scales: Float[Tensor, "batch components channels height width"] = None  # type: ignore[assignment]
    coefficients: Float[Tensor, "batch components pairs height width"] = None  # type: ignore[assignment]

    @classmethod
    def from_maps(
        cls, maps: Float[Tensor, "batch maps height width"], channels: int, components: int, pixel_range: PixelRange
    ) -> "LogisticPrediction":
        """Reads a decoder's `num_logistic_maps` maps; locations are in [-1, 1], whatever the model's range."""
        weights, rest = maps[:, : components * (components > 1)], maps[:, components * (components > 1) :]
        log_weights = F.log_softmax(weights, 1) if components > 1 else torch.zeros_like(maps[:, :1])
        locations, scales, pairs = rest.unflatten(1, (components, -1)).split(
            [channels, channels, channels * (channels - 1) // 2], dim=2
        )
        log_scales = SMALLEST_LOG_SCALE + F.softplus(scales + INITIAL_LOG_SCALE - SMALLEST_LOG_SCALE)
        log_scales = log_scales.clamp_max(LARGEST_LOG_SCALE)
        low, high = pixel_range
        mean = (log_weights.exp()[:, :, None] * locations).sum(1).clamp(-1, 1)
        mean = (mean + 1) * (0.5 * (high - low)) + low
        return cls(mean, None, pixel_range, log_weights, locations, log_scales, torch.tanh(pairs))

    def detach(self) -> "LogisticPrediction":
        parts = (self.log_weights, self.locations, self.log_scales, self.coefficients)
        return LogisticPrediction(self.mean.detach(), None, self.pixel_range, *(part.detach() for part in parts))

    def nll(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
        """-log p(x|z) in nats over 256 levels, summed over pixels; `images` are in `pixel_range` and hold the levels.

        The mass between a and b is σ(a) σ(-b) (1 - exp(b - a)), whose logarithm loses no digits however far the level
        lies from the location.
        """
        pixels = (2 * to_unit_range(images, self.pixel_range) - 1)[:, None]  # [-1, 1]
        distance = pixels - self._conditioned(pixels - self.locations)
        inverse = torch.exp(-self.log_scales)
        above, below = inverse * (distance + HALF_BIN), inverse * (distance - HALF_BIN)
        lowest, highest = pixels < HALF_BIN - 1, pixels > 1 - HALF_BIN
        log_mass = (
            -F.softplus(-above).masked_fill(highest, 0.0)
            - F.softplus(below).masked_fill(lowest, 0.0)
            + torch.log(-torch.expm1(-2 * HALF_BIN * inverse)).masked_fill(lowest | highest, 0.0)
        )
        return -torch.logsumexp(self.log_weights + log_mass.sum(2), dim=1).sum(dim=(1, 2))

    def _conditioned(
        self, off: Float[Tensor, "batch components channels height width"]
    ) -> Float[Tensor, "batch components channels height width"]:
        """Locations of the channels, given how far the channels before lie `off` their own locations."""
        if self.locations.shape[2] == 1:
            return self.locations
        red, green, blue = self.locations.unbind(2)
        first, second, third = self.coefficients.unbind(2)
        green = green + first * off[:, :, 0]
        blue = blue + second * off[:, :, 0] + third * off[:, :, 1]
        return torch.stack([red, green, blue], dim=2)

    def _sample(self, generator: torch.Generator, temperature: float) -> Float[Tensor, "batch channels height width"]:
        """The temperature scales each logistic's spread, and the logarithm of a mixture's weights by its inverse."""

        def uniform(*shape: int) -> Tensor:
            drawn = torch.rand(shape, generator=generator, device=generator.device)
            return drawn.to(self.mean.device).clamp(SMALLEST_UNIFORM, 1 - SMALLEST_UNIFORM)

        batch, _, channels, height, width = self.locations.shape
        gumbel = -torch.log(-torch.log(uniform(*self.log_weights.shape)))
        chosen = (self.log_weights / temperature + gumbel).argmax(1)[:, None, None]
        locations, log_scales, coefficients = (
            part.gather(1, chosen.expand(-1, 1, part.shape[2], -1, -1))[:, 0]
            for part in (self.locations, self.log_scales, self.coefficients)
        )
        noise = temperature * log_scales.exp() * torch.logit(uniform(batch, channels, height, width))
        drawn: list[Tensor] = []
        off: list[Tensor] = []  # of their own locations
        for channel in range(channels):
            first = channel * (channel - 1) // 2  # of this channel's pairs
            moved = sum((coefficients[:, first + before] * off[before] for before in range(channel)), start=0.0)
            level = (locations[:, channel] + moved + noise[:, channel] + 1).clamp(0, 2) / (2 * HALF_BIN)
            drawn.append(level.round() * (2 * HALF_BIN) - 1)
            off.append(drawn[-1] - locations[:, channel])
        low, high = self.pixel_range
        return (torch.stack(drawn, 1) + 1) * (0.5 * (high - low)) + low
