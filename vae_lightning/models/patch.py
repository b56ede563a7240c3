"""A convolutional VAE for little compute: no layer works at full resolution, and the decoder is the larger part."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from vae_lightning.models.blocks import make_activation, make_norm
from vae_lightning.models.maps import MapAutoencoder, check_halvings, doubling, halving

ENCODER_WIDTHS = (32, 64, 128)
DECODER_WIDTHS = (64, 128, 256)


class PatchVAE(MapAutoencoder):
    """Patches of the image become one pixel of a map; strided convolutions halve that map down, and up again.

    At 64x64 with patches of 4 the maps are 16x16, 8x8, 4x4. `ConvVAE` spends two thirds of its time on maps of 32x32
    and 64x64, whose few channels do not keep a processor busy.

    Args:
        patch: side of a patch in pixels.
        widths: channels of the encoder's maps, the largest map first.
        decoder_widths: channels of the decoder's maps in the same order; as many as `widths`.
        norm: "none", "batch" or "group" normalisation after each convolution but the decoder's last.
        activation: non-linearity after each of those: "silu", "relu", "leaky_relu", "elu" or "gelu".
        initial_logvar: where the posterior's log-variances start. Below 0 the decoder learns from less noise at first.
        others: see `Autoencoder`.

    Raises:
        ValueError: the image size is no multiple of patch and halvings, or an option is unknown.
    """

    def __init__(
        self,
        image_size: int = 64,
        patch: int = 4,
        widths: Sequence[int] = ENCODER_WIDTHS,
        decoder_widths: Sequence[int] = DECODER_WIDTHS,
        norm: str = "batch",
        activation: str = "silu",
        initial_logvar: float = -4.0,
        **others: Any,
    ) -> None:
        super().__init__(image_size=image_size, **others)
        if patch < 1 or image_size % patch:
            raise ValueError(f"model.patch={patch}: data.image_size={image_size} must be a multiple of it")
        check_halvings(image_size // patch, widths, halvings=len(widths) - 1)
        if len(decoder_widths) != len(widths) or min(decoder_widths) < 1:
            raise ValueError(
                f"model.decoder_widths={list(decoder_widths)}: give {len(widths)} widths, as many as "
                f"model.widths={list(widths)}, each at least 1"
            )
        side = image_size // patch // 2 ** (len(widths) - 1)
        self.map_shape = (decoder_widths[-1], side, side)
        self.encoder = _down_stages((self.channels, *widths), patch, norm, activation)
        self.posterior_head = nn.Linear(widths[-1] * side**2, self.num_posterior_parameters)
        self.latent_projection = nn.Linear(self.latent_dim, decoder_widths[-1] * side**2)
        self.decoder = _up_stages(tuple(reversed(decoder_widths)), norm, activation)
        self.decoder.append(nn.Conv2d(decoder_widths[0], self.num_pixel_maps * patch**2, kernel_size=3, padding=1))
        self.decoder.append(nn.PixelShuffle(patch))
        if self.posterior == "gaussian":
            with torch.no_grad():
                self.posterior_head.bias[self.latent_dim :] = initial_logvar


def _down_stages(widths: Sequence[int], patch: int, norm: str, activation: str) -> nn.Sequential:
    channels, first, *_ = widths
    stages = nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=patch, stride=patch), make_norm(norm, first), make_activation(activation)
    )
    for before, after in pairwise(widths[1:]):
        stages.extend(halving(before, after, norm, activation))
    return stages


def _up_stages(widths: Sequence[int], norm: str, activation: str) -> nn.Sequential:
    stages = nn.Sequential()
    for before, after in pairwise(widths):
        stages.extend(doubling(before, after, norm, activation))
    return stages
