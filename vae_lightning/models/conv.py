"""The plain convolutional VAE: strided convolutions with kernel 4, stride 2, padding 1 down, transposed ones up."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from vae_lightning.models.maps import MapAutoencoder, check_halvings, doubling, doubling_widths, halving

FIRST_WIDTH = 32
SMALLEST_MAP = 4


def widths_for(image_size: int) -> tuple[int, ...]:
    """Widths that halve the image down to 4x4: 64 -> 32-64-128-256, 128 -> 32-64-128-256-512."""
    return doubling_widths(FIRST_WIDTH, image_size, (image_size // SMALLEST_MAP).bit_length() - 1, "conv")


class ConvVAE(MapAutoencoder):
    """Each stage halves the image; linear heads read the flattened last map.

    Args:
        widths: channels after each stage; None takes the ones for the image size.
        norm: "none", "batch" or "group" normalisation after each convolution but the decoder's last.
        activation: non-linearity after each of those: "relu", "leaky_relu", "elu", "silu" or "gelu".
        others: see `Autoencoder`.

    Raises:
        ValueError: the image size cannot be halved once per width, or an option is unknown.
    """

    def __init__(
        self,
        image_size: int = 64,
        widths: Sequence[int] | None = None,
        norm: str = "none",
        activation: str = "relu",
        **others: Any,
    ) -> None:
        super().__init__(image_size=image_size, **others)
        widths = widths_for(image_size) if widths is None else tuple(widths)
        check_halvings(image_size, widths, halvings=len(widths))
        self.widths = widths
        side = image_size // 2 ** len(widths)
        self.map_shape = (widths[-1], side, side)
        self.encoder = _down_stages((self.channels, *widths), norm, activation)
        self.posterior_head = nn.Linear(widths[-1] * side**2, self.num_posterior_parameters)
        self.latent_projection = nn.Linear(self.latent_dim, widths[-1] * side**2)
        self.decoder = _up_stages((*reversed(widths), self.num_pixel_maps), norm, activation)


def _down_stages(widths: Sequence[int], norm: str, activation: str) -> nn.Sequential:
    stages = nn.Sequential()
    for before, after in pairwise(widths):
        stages.extend(halving(before, after, norm, activation))
    return stages


def _up_stages(widths: Sequence[int], norm: str, activation: str) -> nn.Sequential:
    """The last stage ends in bare logits: no normalisation, no activation."""
    stages = nn.Sequential()
    for before, after in pairwise(widths[:-1]):
        stages.extend(doubling(before, after, norm, activation))
    stages.append(nn.ConvTranspose2d(widths[-2], widths[-1], kernel_size=4, stride=2, padding=1))
    return stages
