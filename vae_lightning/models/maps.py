"""Base of convolutional models: maps that are halved down to a small one, and linear heads on all of it."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.base import Autoencoder
from vae_lightning.models.blocks import make_activation, make_norm

SIZES_WITH_WIDTHS = (32, 64, 128, 256)
LARGEST_WIDTH = 512


class MapAutoencoder(Autoencoder):
    """A subclass builds the four parts; nothing is pooled between the last map and the heads."""

    map_shape: tuple[int, int, int]  # of the encoder's last map: channels, height, width
    encoder: nn.Module
    posterior_head: nn.Linear
    latent_projection: nn.Linear
    decoder: nn.Module

    def posterior_parameters(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch parameters"]:
        features = self.encoder(images)  # (B, *map_shape)
        parameters: Tensor = self.posterior_head(features.flatten(1))
        return parameters

    def pixel_parameters(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps height width"]:
        maps: Tensor = self.decoder(self.latent_projection(latents).unflatten(1, self.map_shape))
        return maps


def halving(before: int, after: int, norm: str, activation: str) -> list[nn.Module]:
    """A stage that halves the map: kernel 4, stride 2, padding 1."""
    convolution = nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1)
    return [convolution, make_norm(norm, after), make_activation(activation)]


def doubling(before: int, after: int, norm: str, activation: str) -> list[nn.Module]:
    """A stage that doubles the map: the same convolution transposed."""
    convolution = nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1)
    return [convolution, make_norm(norm, after), make_activation(activation)]


def doubling_widths(first: int, image_size: int, count: int, model: str) -> tuple[int, ...]:
    """`count` widths that double from `first` up to 512.

    Raises:
        ValueError: no widths are known for this size.
    """
    if image_size not in SIZES_WITH_WIDTHS:
        raise ValueError(
            f"data.image_size={image_size}: model={model} knows its widths for {SIZES_WITH_WIDTHS}; choose one of them "
            f"or give model.widths=[{first},{2 * first},…]"
        )
    return tuple(min(first * 2**stage, LARGEST_WIDTH) for stage in range(count))


def check_halvings(image_size: int, widths: Sequence[int], halvings: int) -> None:
    """Raises ValueError where there are no `widths`, or the image cannot be halved as often as they need."""
    if not widths or min(widths) < 1:
        raise ValueError(f"model.widths={list(widths)}: give at least one width, each at least 1")
    if image_size % 2**halvings:
        raise ValueError(
            f"data.image_size={image_size}: model.widths={list(widths)} halve the image {halvings} times, "
            f"so it must be a multiple of {2**halvings}; change one of the two"
        )
