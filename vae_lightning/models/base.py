"""The contract of every model: images to a posterior over latents, latents to a prediction of pixels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.distributions import (
    Deterministic,
    DiagonalGaussian,
    PixelPrediction,
    Posterior,
    PosteriorDraw,
    floored_logvar,
)
from vae_lightning.models.levels import LatentLevel
from vae_lightning.models.logistic import LogisticPrediction, num_logistic_maps
from vae_lightning.models.pixels import PixelRange

CHANNELS: dict[str, int] = {"rgb": 3, "gray": 1}
RANGE_OF_ACTIVATION: dict[str, PixelRange] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
LARGEST_IMAGE = 4096  # side in pixels
# Outputs of the encoder's head per latent
PARAMETERS_PER_LATENT: dict[str, int] = {"gaussian": 2, "deterministic": 1}
MOST_COMPONENTS = 100  # of a mixture


class Autoencoder(nn.Module, ABC):
    """Base of all models.

    A subclass defines `posterior_parameters` and `pixel_parameters`, with `num_posterior_parameters` and
    `num_pixel_maps` outputs. This class decides what the outputs mean, for all architectures alike.

    Args:
        image_size: side of the square images in pixels.
        color: "rgb" (3 channels) or "gray" (1).
        latent_dim: number of latents.
        posterior: "gaussian" for a VAE, "deterministic" for a plain autoencoder.
        output_activation: last layer of the decoder, "sigmoid" for [0, 1] or "tanh" for [-1, 1].
        pixel_range: range of the pixels that the model reads and writes; None takes the activation's own.
        pixel_logvar: whether the decoder also predicts the log-variance of every pixel.
        logistic_components: logistic distributions per pixel that the decoder predicts in place of a mean, which then
            has no activation: 1, or more for a mixture; 0 predicts means.
        logvar_clamp: (low, high) that the posterior's log-variance is clamped to; None does not clamp.

    Raises:
        ValueError: an argument is not allowed, or range and activation do not fit each other.
    """

    def __init__(
        self,
        image_size: int = 64,
        color: str = "rgb",
        latent_dim: int = 128,
        posterior: str = "gaussian",
        output_activation: str = "sigmoid",
        pixel_range: Sequence[float] | None = None,
        pixel_logvar: bool = False,
        logistic_components: int = 0,
        logvar_clamp: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= image_size <= LARGEST_IMAGE:
            raise ValueError(f"data.image_size={image_size}: allowed are 1 to {LARGEST_IMAGE} pixels")
        if latent_dim < 1:
            raise ValueError(f"model.latent_dim={latent_dim}: at least 1 latent is needed")
        if color not in CHANNELS:
            raise ValueError(f"model.color={color!r}: allowed are {', '.join(CHANNELS)}")
        if posterior not in PARAMETERS_PER_LATENT:
            raise ValueError(f"posterior={posterior!r}: allowed are {', '.join(PARAMETERS_PER_LATENT)}")
        if not 0 <= logistic_components <= MOST_COMPONENTS or (logistic_components and pixel_logvar):
            raise ValueError(
                f"model.logistic_components={logistic_components} with model.pixel_logvar={str(pixel_logvar).lower()}: "
                f"allowed are 0 to {MOST_COMPONENTS}, and more than 0 without log-variances; "
                "reconstruction=logistic sets both"
            )
        self.image_size = image_size
        self.channels = CHANNELS[color]
        self.latent_dim = latent_dim
        self.posterior = posterior
        self.pixel_range = matching_pixel_range(output_activation, pixel_range)
        self.output_activation = output_activation
        self.pixel_logvar = pixel_logvar
        self.logistic_components = logistic_components
        self.logvar_clamp = checked_logvar_clamp(logvar_clamp, posterior)

    @property
    def num_pixels(self) -> int:
        """Dimensions of one image, channels counted."""
        return self.channels * self.image_size**2

    @property
    def num_posterior_parameters(self) -> int:
        """Outputs of the encoder's head: means, and log-variances where the posterior has them."""
        return self.latent_dim * PARAMETERS_PER_LATENT[self.posterior]

    @property
    def num_pixel_maps(self) -> int:
        """Channels of the decoder's last layer: means, log-variances with `pixel_logvar`, or logistic parameters."""
        if self.logistic_components:
            return num_logistic_maps(self.channels, self.logistic_components)
        return self.channels * (2 if self.pixel_logvar else 1)

    @property
    def has_prior(self) -> bool:
        """Whether latents can be sampled from N(0, I); nothing draws a plain autoencoder's codes to it."""
        return self.posterior != "deterministic"

    @property
    def latent_levels(self) -> list[LatentLevel]:
        """How `latents` are divided, coarse first: one level for a flat model."""
        return [LatentLevel("latents", self.latent_dim, 1, 1)]

    @property
    def is_flat(self) -> bool:
        """Whether the latents are independent given the image; otherwise each level depends on those above."""
        return len(self.latent_levels) == 1

    @abstractmethod
    def posterior_parameters(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch parameters"]:
        """Images in `pixel_range` -> `num_posterior_parameters` per image: all means, then all log-variances."""

    @abstractmethod
    def pixel_parameters(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps height width"]:
        """Latents -> `num_pixel_maps` maps per image before the activation: all means, then all log-variances."""

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Posterior:
        """Images in `pixel_range` -> q(z|x), in float32 also under autocast."""
        # float32 from here on: the KL's exp() and the sampling would lose digits in bfloat16
        parameters = self.posterior_parameters(images).float()
        if self.posterior == "deterministic":
            return Deterministic(parameters)
        mean, logvar = parameters.chunk(2, dim=1)
        if self.logvar_clamp is not None:
            logvar = logvar.clamp(*self.logvar_clamp)
        return DiagonalGaussian(mean, logvar)

    def draw(
        self, images: Float[Tensor, "batch channels height width"], noise: Float[Tensor, "batch latent"]
    ) -> PosteriorDraw:
        """A draw from q(z|x) for images in `pixel_range` and standard normal noise: all models draw by this alone."""
        posterior = self.encode(images)
        assert isinstance(posterior, DiagonalGaussian | Deterministic), "a hierarchical model draws level by level"
        return posterior.draw(noise)

    def draw_and_predict(
        self, images: Float[Tensor, "batch channels height width"], noise: Float[Tensor, "batch latent"]
    ) -> tuple[PosteriorDraw, PixelPrediction]:
        """A draw and p(x|z) there, as a training step needs both; `predict_pixels` of the draw gives the same."""
        draw = self.draw(images, noise)
        return draw, self.predict_pixels(draw.latents)

    def predict_pixels(self, latents: Float[Tensor, "batch latent"]) -> PixelPrediction:
        """Latents -> p(x|z) in `pixel_range`, in float32 also under autocast."""
        return self._prediction(self.pixel_parameters(latents))

    def _prediction(self, maps: Float[Tensor, "batch maps height width"]) -> PixelPrediction:
        """What the decoder's last maps say about the pixels."""
        # float32 first: a bfloat16 sigmoid has only 1/256 of resolution near 1
        maps = maps.float()
        if self.logistic_components:
            return LogisticPrediction.from_maps(maps, self.channels, self.logistic_components, self.pixel_range)
        activation = torch.sigmoid if self.output_activation == "sigmoid" else torch.tanh
        if not self.pixel_logvar:
            return PixelPrediction(activation(maps), None, self.pixel_range)
        logits, logvar = maps.chunk(2, dim=1)
        return PixelPrediction(activation(logits), floored_logvar(logvar, self.pixel_range), self.pixel_range)

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        """Latents -> the mean of p(x|z) in `pixel_range`, in float32 also under autocast."""
        return self.predict_pixels(latents).mean


def checked_logvar_clamp(logvar_clamp: Sequence[float] | None, posterior: str) -> tuple[float, float] | None:
    """The clamp as (low, high).

    Raises:
        ValueError: not two ascending numbers, or a posterior that has no log-variance.
    """
    if logvar_clamp is None:
        return None
    if len(logvar_clamp) != 2 or not logvar_clamp[0] < logvar_clamp[1]:  # also of nan
        raise ValueError(f"model.logvar_clamp={list(logvar_clamp)}: give [low, high] with low < high, or null")
    if posterior == "deterministic":
        raise ValueError(
            f"model.logvar_clamp={list(logvar_clamp)}: posterior=deterministic has no log-variance; "
            "set model.logvar_clamp=null or posterior=gaussian"
        )
    return float(logvar_clamp[0]), float(logvar_clamp[1])


def matching_pixel_range(output_activation: str, pixel_range: Sequence[float] | None) -> PixelRange:
    """The range of `output_activation`, checked against the one asked for.

    Raises:
        ValueError: unknown activation, or a range that the activation cannot produce.
    """
    if output_activation not in RANGE_OF_ACTIVATION:
        allowed = ", ".join(RANGE_OF_ACTIVATION)
        raise ValueError(f"model.output_activation={output_activation!r}: allowed are {allowed}")
    produced = RANGE_OF_ACTIVATION[output_activation]
    if pixel_range is not None and tuple(map(float, pixel_range)) != produced:
        fitting = [name for name, made in RANGE_OF_ACTIVATION.items() if made == tuple(map(float, pixel_range))]
        fix = f"model.output_activation={fitting[0]} or " if fitting else ""
        raise ValueError(
            f"model.pixel_range={list(pixel_range)} does not fit model.output_activation={output_activation}, "
            f"which produces {list(produced)}: set {fix}model.pixel_range={list(produced)}"
        )
    return produced
