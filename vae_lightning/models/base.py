"""The contract that every model keeps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.pixels import PixelRange

CHANNELS: dict[str, int] = {"rgb": 3, "gray": 1}
RANGE_OF_ACTIVATION: dict[str, PixelRange] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


class ModelError(ValueError):
    """A model was asked for what it cannot be; the message says what is allowed."""


class Autoencoder(nn.Module, ABC):
    """Images to a posterior over latents, latents back to images.

    Args:
        image_size: side of the square images in pixels.
        color: "rgb" (3 channels) or "gray" (1).
        latent_dim: number of latents.
        output_activation: what ends the decoder, "sigmoid" for [0, 1] or "tanh" for [-1, 1].
        pixel_range: range of the pixels that the model reads and writes; None takes the activation's own.
        logvar_clamp: (low, high) that the posterior's log-variance is clamped to; None does not clamp.

    Raises:
        ModelError: an argument is not allowed, or range and activation do not fit each other.
    """

    def __init__(
        self,
        image_size: int = 64,
        color: str = "rgb",
        latent_dim: int = 128,
        output_activation: str = "sigmoid",
        pixel_range: Sequence[float] | None = None,
        logvar_clamp: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ModelError(f"model.latent_dim={latent_dim}: at least 1 latent is needed")
        if color not in CHANNELS:
            raise ModelError(f"model.color={color!r}: allowed are {', '.join(CHANNELS)}")
        self.image_size = image_size
        self.channels = CHANNELS[color]
        self.latent_dim = latent_dim
        self.pixel_range = matching_pixel_range(output_activation, pixel_range)
        self.output_activation = output_activation
        if logvar_clamp is not None and (len(logvar_clamp) != 2 or logvar_clamp[0] >= logvar_clamp[1]):
            raise ModelError(f"model.logvar_clamp={list(logvar_clamp)}: give [low, high] with low < high, or null")
        self.logvar_clamp = None if logvar_clamp is None else (float(logvar_clamp[0]), float(logvar_clamp[1]))

    @property
    def num_pixels(self) -> int:
        """Dimensions of one image, channels counted."""
        return self.channels * self.image_size**2

    @abstractmethod
    def encode(self, images: Float[Tensor, "batch channels height width"]) -> DiagonalGaussian:
        """Images in `pixel_range` -> q(z|x), in float32 also under autocast."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        """Latents -> the mean of p(x|z) in `pixel_range`, in float32 also under autocast."""

    def _posterior(self, head: Float[Tensor, "batch twice_latent"]) -> DiagonalGaussian:
        # float32 from here on: the KL's exp() and the sampling would lose digits in bfloat16
        mean, logvar = head.float().chunk(2, dim=1)
        if self.logvar_clamp is not None:
            logvar = logvar.clamp(*self.logvar_clamp)
        return DiagonalGaussian(mean, logvar)

    def _activate(
        self, logits: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        # float32 first: a bfloat16 sigmoid has only 1/256 of resolution near 1
        activation = torch.sigmoid if self.output_activation == "sigmoid" else torch.tanh
        return activation(logits.float())


def matching_pixel_range(output_activation: str, pixel_range: Sequence[float] | None) -> PixelRange:
    """The range of `output_activation`, checked against the one asked for.

    Raises:
        ModelError: unknown activation, or a range that the activation cannot produce.
    """
    if output_activation not in RANGE_OF_ACTIVATION:
        allowed = ", ".join(RANGE_OF_ACTIVATION)
        raise ModelError(f"model.output_activation={output_activation!r}: allowed are {allowed}")
    produced = RANGE_OF_ACTIVATION[output_activation]
    if pixel_range is not None and tuple(map(float, pixel_range)) != produced:
        fitting = [name for name, made in RANGE_OF_ACTIVATION.items() if made == tuple(map(float, pixel_range))]
        fix = f"model.output_activation={fitting[0]} or " if fitting else ""
        raise ModelError(
            f"model.pixel_range={list(pixel_range)} does not fit model.output_activation={output_activation}, "
            f"which produces {list(produced)}: set {fix}model.pixel_range={list(produced)}"
        )
    return produced
