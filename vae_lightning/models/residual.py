"""The residual VAE: bottleneck blocks with channel attention, and no global pooling."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.blocks import make_activation, make_norm
from vae_lightning.models.maps import MapAutoencoder, check_halvings, doubling_widths

FIRST_WIDTH = 64
SMALLEST_MAP = 8
BOTTLENECK = 4  # the middle of a block has a quarter of its channels
SQUEEZE = 16  # the attention squeezes them to a sixteenth
# Touvron et al. 2021, section 4, takes 0.1 for networks as shallow as these
LAYER_SCALE = 0.1
MOST_BLOCKS = 100  # per stage


def widths_for(image_size: int) -> tuple[int, ...]:
    """Widths that leave a map of 8x8: 64 -> 64-128-256-512, 128 -> 64-128-256-512-512."""
    return doubling_widths(FIRST_WIDTH, image_size, (image_size // SMALLEST_MAP).bit_length(), "residual")


class ResidualVAE(MapAutoencoder):
    """Residual stages at halving sizes; linear heads read the flattened last map, 8x8x512 at 64x64.

    Args:
        widths: channels of each stage, the first at full size; None takes the ones for the image size.
        num_blocks: residual blocks per stage.
        activation: non-linearity: "silu", "relu", "leaky_relu", "elu" or "gelu".
        others: see `Autoencoder`.

    Raises:
        ValueError: the image size cannot be halved between the widths, or an option is unknown.
    """

    def __init__(
        self,
        image_size: int = 64,
        widths: Sequence[int] | None = None,
        num_blocks: int = 2,
        activation: str = "silu",
        **others: Any,
    ) -> None:
        super().__init__(image_size=image_size, **others)
        widths = widths_for(image_size) if widths is None else tuple(widths)
        check_halvings(image_size, widths, halvings=len(widths) - 1)
        if not 0 <= num_blocks <= MOST_BLOCKS:
            raise ValueError(f"model.num_blocks={num_blocks}: allowed are 0 to {MOST_BLOCKS}")
        self.widths = widths
        side = image_size // 2 ** (len(widths) - 1)
        self.map_shape = (widths[-1], side, side)
        num_features = widths[-1] * side**2
        self.encoder = _down_stages(self.channels, widths, num_blocks, activation)
        self.posterior_head = nn.Linear(num_features, self.num_posterior_parameters)
        self.latent_projection = nn.Linear(self.latent_dim, num_features)
        self.decoder = _up_stages(self.num_pixel_maps, tuple(reversed(widths)), num_blocks, activation)


class ResidualBottleneck(nn.Module):
    """x + scale * attention(1x1 -> 3x3 -> 1x1 of x), with a quarter of the channels in the middle.

    Source: He et al. 2016 (bottleneck), arXiv:1512.03385; Hu et al. 2018 (squeeze-excitation), arXiv:1709.01507;
    Touvron et al. 2021 (LayerScale), arXiv:2103.17239.
    """

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        middle = max(channels // BOTTLENECK, 1)
        self.branch = nn.Sequential(
            conv_norm_act(channels, middle, activation, kernel_size=1),
            conv_norm_act(middle, middle, activation),
            nn.Conv2d(middle, channels, kernel_size=1),
            make_norm("group", channels),
        )
        self.attention = SqueezeExcitation(channels, activation)
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), LAYER_SCALE))

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        change = self.branch(maps)
        # both factors in one pass over the map: on a CPU these passes cost as much as the convolutions
        return torch.addcmul(maps, change, self.attention(change) * self.scale.to(maps.dtype))


class SqueezeExcitation(nn.Module):
    """A weight per channel, between 0 and 1, from the means of all channels."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        squeezed = max(channels // SQUEEZE, 4)
        self.weights = nn.Sequential(
            nn.Linear(channels, squeezed), make_activation(activation), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 1 1"]:
        weights: Tensor = self.weights(maps.mean(dim=(2, 3)))
        return weights[:, :, None, None]


def conv_norm_act(before: int, after: int, activation: str, kernel_size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size, padding=kernel_size // 2),
        make_norm("group", after),
        make_activation(activation),
    )


def _down_stages(channels: int, widths: Sequence[int], num_blocks: int, activation: str) -> nn.Sequential:
    stages = nn.Sequential(conv_norm_act(channels, widths[0], activation))
    stages.extend(ResidualBottleneck(widths[0], activation) for _ in range(num_blocks))
    for before, after in pairwise(widths):
        stages.append(nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1))
        stages.extend(ResidualBottleneck(after, activation) for _ in range(num_blocks))
    return stages


def _up_stages(num_maps: int, widths: Sequence[int], num_blocks: int, activation: str) -> nn.Sequential:
    """The last convolution ends in bare logits: no normalisation, no activation."""
    stages = nn.Sequential(*(ResidualBottleneck(widths[0], activation) for _ in range(num_blocks)))
    for before, after in pairwise(widths):
        # interpolation, then convolution: transposed convolutions leave checkerboards (Odena et al. 2016)
        stages.append(nn.Upsample(scale_factor=2, mode="bilinear"))
        stages.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
        stages.extend(ResidualBottleneck(after, activation) for _ in range(num_blocks))
    stages.append(nn.Conv2d(widths[-1], num_maps, kernel_size=3, padding=1))
    return stages
