"""The ladder VAE: latents on maps of several sizes, drawn from coarse to fine, each given what was drawn above.

`latents` are the noise of all levels in units of their priors: z = mean_p(above) + sigma_p(above) * latent. Their prior
is N(0, I) whatever the hierarchy, and the decoder is a plain function of them.
Source: Sønderby et al. 2016, arXiv:1602.02282; Vahdat & Kautz 2020 (NVAE: posteriors relative to the prior),
arXiv:2007.03898; Child 2021 (very deep VAE), arXiv:2011.10650.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.base import Autoencoder
from vae_lightning.models.distributions import (
    HierarchicalGaussian,
    PixelPrediction,
    PosteriorDraw,
    gaussian_kl_per_latent,
    gaussian_log_ratio,
)
from vae_lightning.models.levels import LatentLevel
from vae_lightning.models.pixels import to_unit_range

Maps = Float[Tensor, "batch _channels _height _width"]  # of levels of different sizes in one function
Latents = Float[Tensor, "batch latent"]
# of one group of latents, from what is known above it: standardised latents as a map
Chooser = Callable[["LatentGroup", Maps], Maps]
MOST_BLOCKS = 100  # per level
FIRST_POSTERIOR = 0.02  # standard deviation of the weights that give it; from 0, levels wake some hundred steps later
LOG_SIGMA_LIMIT = 2.0  # of the priors: with wider ones, a rare image makes the maps below explode
LOGVAR_LIMIT = 6.0  # of the posteriors, in units of the priors; without it, a large step can make the KL infinite


class LadderVAE(Autoencoder):
    """Residual blocks up the image to the coarsest map, and down again through one level of latents per map size.

    Nothing works at full resolution: the finest map reads and writes square patches of the image, unless its side is
    the image's.

    Args:
        image_size: see `Autoencoder`.
        sides: of the maps, coarse first, each a multiple of the one before: [1, 4, 8, 16, 32].
        widths: channels of each map.
        blocks: of each level. Each block has its own latents, so that a level has blocks x latent_channels maps.
        latent_channels: maps of latents per block, of each level.
        latent_dim: must be null; the number follows from sides, blocks and latent_channels.
        posterior: "gaussian"; a ladder without noise would copy the image through its finest level.
        others: see `Autoencoder`.

    Raises:
        ValueError: the lists do not fit each other or the image, or an option is not a ladder's.
    """

    def __init__(
        self,
        image_size: int = 64,
        sides: Sequence[int] = (4, 8, 16, 32),
        widths: Sequence[int] = (96, 64, 48, 32),
        blocks: Sequence[int] = (2, 2, 2, 1),
        latent_channels: Sequence[int] = (16, 4, 8, 4),
        latent_dim: int | None = None,
        posterior: str = "gaussian",
        **others: Any,
    ) -> None:
        _check(image_size, sides, widths, blocks, latent_channels, latent_dim, posterior)
        levels = [
            LatentLevel(f"{side}x{side}", count * channels, side, side)
            for side, count, channels in zip(sides, blocks, latent_channels, strict=True)
        ]
        total = sum(level.size for level in levels)
        super().__init__(image_size=image_size, latent_dim=total, posterior=posterior, **others)
        self._levels = levels
        self.patch = image_size // sides[-1]
        self.stem = nn.Conv2d(self.channels * self.patch**2, widths[-1], 3, padding=1)
        self.up = nn.ModuleList(
            _residual_blocks(width, side, n) for width, side, n in zip(widths, sides, blocks, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, kernel_size=large // small, stride=large // small)
            for (coarse, fine), (small, large) in zip(pairwise(widths), pairwise(sides), strict=True)
        )
        self.grow = nn.ModuleList(
            nn.Conv2d(coarse, fine * (large // small) ** 2, kernel_size=1)
            for (coarse, fine), (small, large) in zip(pairwise(widths), pairwise(sides), strict=True)
        )
        # what every face has in common at each place: faces are aligned
        self.common = nn.ParameterList(
            nn.Parameter(torch.zeros(1, width, side, side)) for width, side in zip(widths, sides, strict=True)
        )
        self.groups = nn.ModuleList(
            LatentGroup(width, channels, side)
            for width, channels, side, count in zip(widths, latent_channels, sides, blocks, strict=True)
            for _ in range(count)
        )
        self.pixels = nn.Conv2d(widths[-1], self.num_pixel_maps * self.patch**2, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """At first each prior is N(0, I), posteriors are near it, and the more branches, the less each of them adds."""
        depth = len(self.groups)
        for module in self.modules():
            if isinstance(module, Residual):
                module.last.weight.data.mul_((2 * depth) ** -0.5)
            elif isinstance(module, LatentGroup):
                module.project.weight.data.mul_(depth**-0.5)
                nn.init.normal_(module.posterior.get_parameter("3.weight"), std=FIRST_POSTERIOR)
                for name in ("prior.weight", "prior.bias", "posterior.3.bias"):
                    nn.init.zeros_(module.get_parameter(name))

    @property
    def latent_levels(self) -> list[LatentLevel]:
        return self._levels

    def draw(self, images: Maps, noise: Latents) -> PosteriorDraw:
        return self._infer(images, noise)[0]

    def draw_and_predict(self, images: Maps, noise: Latents) -> tuple[PosteriorDraw, PixelPrediction]:
        """In one pass down, which ends where `pixel_parameters` of the draw's latents would."""
        draw, _, maps = self._infer(images, noise)
        return draw, self._prediction(self._to_pixels(maps))

    def posterior_parameters(self, images: Maps) -> Float[Tensor, "batch parameters"]:
        """Means, each given the means above it, and log-variances given the same."""
        draw, logvar, _ = self._infer(images, None)
        return torch.cat([draw.latents, logvar], dim=1)

    def _infer(self, images: Maps, noise: Latents | None) -> tuple[PosteriorDraw, Latents, Maps]:
        """Latents from coarse to fine, drawn with `noise` or at their means; their log-variances; the last map.

        Means and log-variances are in units of the prior, given what was chosen above; float32 also under autocast.
        """
        seen = self._features(images)
        parts = None if noise is None else self._maps_of(noise)
        found: list[tuple[Maps, Maps, Maps]] = []

        def choose(group: LatentGroup, above: Maps) -> Maps:
            mean, logvar = group.posterior(torch.cat([above, seen[group.side]], dim=1)).float().chunk(2, dim=1)
            logvar = _bounded(logvar, LOGVAR_LIMIT)
            if self.logvar_clamp is not None:
                logvar = logvar.clamp(*self.logvar_clamp)
            latents = mean if parts is None else mean + torch.exp(0.5 * logvar) * parts[len(found)]
            found.append((latents, mean, logvar))
            return latents

        maps = self._descend(images, choose)
        latents, mean, logvar = (
            torch.cat([part.flatten(1) for part in each], dim=1) for each in zip(*found, strict=True)
        )
        ratio = gaussian_log_ratio(latents, torch.zeros_like(latents) if noise is None else noise, logvar)
        return PosteriorDraw(latents, gaussian_kl_per_latent(mean, logvar), ratio), logvar, maps

    def encode(self, images: Maps) -> HierarchicalGaussian:
        mean, logvar = self.posterior_parameters(images).chunk(2, dim=1)
        return HierarchicalGaussian(mean, logvar)

    def pixel_parameters(self, latents: Latents) -> Float[Tensor, "batch maps height width"]:
        parts = iter(self._maps_of(latents))
        maps = self._descend(latents, lambda group, above: next(parts))
        return self._to_pixels(maps)

    def _to_pixels(self, maps: Maps) -> Maps:
        return F.pixel_shuffle(self.pixels(F.silu(maps)), self.patch)

    @property
    def _in_order(self) -> list["LatentGroup"]:
        """The groups of latents, coarse first."""
        return [group for group in self.groups if isinstance(group, LatentGroup)]

    def _maps_of(self, latents: Latents) -> list[Maps]:
        """The flat vector cut into the maps of each group, coarse first."""
        shapes = [(group.latent_channels, group.side, group.side) for group in self._in_order]
        parts = latents.split([prod(shape) for shape in shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _features(self, images: Maps) -> dict[int, Maps]:
        """What the encoder sees on the map of each side."""
        # about mean 0 and variance 1 over faces: with pixels in [0, 1] the first hundreds of steps learn little
        centred = (to_unit_range(images, self.pixel_range) - 0.5) * 4
        maps = self.stem(F.pixel_unshuffle(centred, self.patch))
        seen = {}
        for number in range(len(self._levels) - 1, -1, -1):
            maps = self.up[number](maps)
            seen[self._levels[number].width] = maps
            if number:
                maps = self.shrink[number - 1](maps)
        return seen

    def _descend(self, given: Float[Tensor, "batch ..."], choose: Chooser) -> Maps:
        """From the coarsest map to the finest, with the latents that `choose` gives; the last map."""
        # not len(given), a number: exported, it would hold for this size of batch alone
        maps, level = self.common[0].expand(given.shape[0], -1, -1, -1), 0
        for group in self._in_order:
            if group.side != maps.shape[-1]:
                maps = F.pixel_shuffle(self.grow[level](maps), group.side // maps.shape[-1])
                level += 1
                maps = maps + self.common[level]
            maps = group(maps, choose(group, maps))
        return maps


class LatentGroup(nn.Module):
    """A block of the way down: its prior and posterior given the map above, and what its latents do to the map."""

    def __init__(self, width: int, latent_channels: int, side: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.side = side
        kernel = _kernel(side)
        self.prior = nn.Conv2d(width, 2 * latent_channels, kernel_size=1)
        self.posterior = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(2 * width, width, kernel, padding=kernel // 2),
            nn.SiLU(),
            nn.Conv2d(width, 2 * latent_channels, kernel_size=1),
        )
        self.project = nn.Conv2d(latent_channels, width, kernel_size=1)
        self.mix = Residual(width, side)

    def forward(self, above: Maps, latents: Maps) -> Maps:
        """The map after latents in units of the prior: z = mean + sigma * latents enters it."""
        mean, log_sigma = self.prior(F.silu(above)).float().chunk(2, dim=1)
        sigma = torch.exp(_bounded(log_sigma, LOG_SIGMA_LIMIT))
        maps: Maps = self.mix(above + self.project(mean + sigma * latents))
        return maps


class Residual(nn.Module):
    """x + two convolutions of x."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        kernel = _kernel(side)
        self.first = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.last = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, maps: Maps) -> Maps:
        changed: Maps = maps + self.last(F.silu(self.first(F.silu(maps))))
        return changed


def _bounded(values: Maps, limit: float) -> Maps:
    """Between -limit and limit, unchanged near 0."""
    return limit * torch.tanh(values / limit)


def _kernel(side: int) -> int:
    """A map of one or two pixels has no neighbours worth weights."""
    return 3 if side > 2 else 1


def _residual_blocks(width: int, side: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width, side) for _ in range(count)))


def _check(
    image_size: int,
    sides: Sequence[int],
    widths: Sequence[int],
    blocks: Sequence[int],
    latent_channels: Sequence[int],
    latent_dim: int | None,
    posterior: str,
) -> None:
    """Raises ValueError where the settings are not those of a ladder."""
    if latent_dim is not None:
        raise ValueError(
            f"model.latent_dim={latent_dim}: a ladder's number of latents follows from model.sides, model.blocks and "
            "model.latent_channels; set model.latent_dim=null, and model.latent_channels, one number for each side"
        )
    if posterior != "gaussian":
        raise ValueError(
            f"posterior={posterior}: without noise, the finest level of a ladder would copy the image; set "
            "posterior=gaussian, or model=conv for a plain autoencoder"
        )
    grows = all(0 < small < large and large % small == 0 for small, large in pairwise(sides))
    if len(sides) < 2 or not grows:
        raise ValueError(
            f"model.sides={list(sides)}: give the sides of two maps or more, coarse first, each a multiple of the one "
            "before; model=conv has latents on one level"
        )
    lists = {"widths": widths, "blocks": blocks, "latent_channels": latent_channels}
    for name, values in lists.items():
        most = MOST_BLOCKS if name == "blocks" else None
        if len(values) != len(sides) or not all(1 <= value <= (most or value) for value in values):
            raise ValueError(
                f"model.{name}={list(values)}: give one whole number for each of model.sides={list(sides)}, at least 1"
                + (f" and at most {most}" if most else "")
            )
    if image_size % sides[-1]:
        raise ValueError(
            f"data.image_size={image_size}: must be a multiple of the finest map's side, {sides[-1]}; change it or "
            f"model.sides={list(sides)}"
        )
