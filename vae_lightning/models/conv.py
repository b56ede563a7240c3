"""The strided convolutional VAE of S0 and S4: kernel 4, stride 2, padding 1, down and up again."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.base import Autoencoder, ModelError
from vae_lightning.models.blocks import make_activation, make_norm

SMALLEST_MAP = 4
FIRST_WIDTH, LARGEST_WIDTH = 32, 512
SIZES_WITH_WIDTHS = (32, 64, 128, 256)


def widths_for(image_size: int) -> tuple[int, ...]:
    """Widths that halve the image down to 4x4: 64 -> 32-64-128-256, 128 -> 32-64-128-256-512.

    Raises:
        ModelError: no widths are known for this size.
    """
    if image_size not in SIZES_WITH_WIDTHS:
        raise ModelError(
            f"data.image_size={image_size}: model=conv knows its widths for {SIZES_WITH_WIDTHS}; "
            f"choose one of them or give model.widths=[32,64,…], one per halving of the image"
        )
    num_stages = (image_size // SMALLEST_MAP).bit_length() - 1
    return tuple(min(FIRST_WIDTH * 2**stage, LARGEST_WIDTH) for stage in range(num_stages))


class ConvVAE(Autoencoder):
    """Each stage halves the image; linear heads read the flattened last map.

    Args:
        widths: channels after each stage; None takes the ones for the image size.
        norm: "none", "batch" or "group" normalisation after each convolution but the decoder's last.
        activation: non-linearity after each of those: "relu", "leaky_relu", "elu", "silu" or "gelu".
        others: see `Autoencoder`.

    Raises:
        ModelError: the image size cannot be halved once per width, or an option is unknown.
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
        if not widths or min(widths) < 1:
            raise ModelError(f"model.widths={list(widths)}: give at least one width, each at least 1")
        if image_size < 2 ** len(widths) or image_size % 2 ** len(widths):
            raise ModelError(
                f"data.image_size={image_size}: {len(widths)} stages (model.widths={list(widths)}) halve the image "
                f"{len(widths)} times, so it must be a multiple of {2 ** len(widths)}; change one of the two"
            )
        self.widths = widths
        side = image_size // 2 ** len(widths)
        self.map_shape = (widths[-1], side, side)
        self.encoder = _down_stages((self.channels, *widths), norm, activation)
        self.posterior_head = nn.Linear(widths[-1] * side**2, self.num_posterior_parameters)
        self.latent_projection = nn.Linear(self.latent_dim, widths[-1] * side**2)
        self.decoder = _up_stages((*reversed(widths), self.num_pixel_maps), norm, activation)

    def posterior_parameters(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch parameters"]:
        features = self.encoder(images)  # (B, widths[-1], side, side)
        parameters: Tensor = self.posterior_head(features.flatten(1))
        return parameters

    def pixel_parameters(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps height width"]:
        maps: Tensor = self.decoder(self.latent_projection(latents).unflatten(1, self.map_shape))
        return maps


def _down_stages(widths: Sequence[int], norm: str, activation: str) -> nn.Sequential:
    stages = nn.Sequential()
    for before, after in pairwise(widths):
        stages.append(nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1))
        stages.append(make_norm(norm, after))
        stages.append(make_activation(activation))
    return stages


def _up_stages(widths: Sequence[int], norm: str, activation: str) -> nn.Sequential:
    """The last stage ends in bare logits: no normalisation, no activation."""
    stages = nn.Sequential()
    num_stages = len(widths) - 1
    for stage, (before, after) in enumerate(pairwise(widths)):
        stages.append(nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1))
        if stage < num_stages - 1:
            stages.append(make_norm(norm, after))
            stages.append(make_activation(activation))
    return stages
