"""Paths between latents, straight or around the origin."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vae_lightning.models.levels import LatentLevel, level_slices
from vae_lightning.system.names import not_allowed

PATHS = ("linear", "spherical")
OPPOSITE = 1e-5  # |u + v| of unit vectors below which float32 has no plane to turn in


def latent_path(
    key_frames: Float[Tensor, "keys latent"],
    num_steps: int,
    path: str = "linear",
    loop: bool = False,
    levels: Sequence[LatentLevel] = (),
) -> Float[Tensor, "frames latent"]:
    """One path through all key frames.

    Args:
        key_frames: at least two.
        num_steps: from one key frame to the next, both counted: (keys - 1) (num_steps - 1) + 1 frames in all.
        path: see `latents_between`.
        loop: whether the path returns to the first key frame, to be repeated: keys (num_steps - 1) frames.
        levels: see `latents_between`.

    Raises:
        ValueError: as `latents_between`, or fewer than two key frames.
    """
    if len(key_frames) < 2:
        raise ValueError(f"{len(key_frames)} key frames: a path needs at least 2")
    if loop:
        key_frames = torch.cat([key_frames, key_frames[:1]])
    paths = latents_between(key_frames[:-1], key_frames[1:], num_steps, path, levels)
    frames = paths[:, :-1].flatten(0, 1)
    return frames if loop else torch.cat([frames, key_frames[-1:]])


def latents_between(
    first: Float[Tensor, "batch latent"],
    second: Float[Tensor, "batch latent"],
    num_steps: int,
    path: str = "linear",
    levels: Sequence[LatentLevel] = (),
) -> Float[Tensor, "batch steps latent"]:
    """Paths from each row of `first` to the same row of `second`, both included.

    Args:
        first: a = 0.
        second: a = 1.
        num_steps: 2 or more, a evenly spaced.
        path: "linear", (1 - a) z1 + a z2, or "spherical", see `slerp`.
        levels: of the model; a spherical path turns in each level by itself, because each has a typical length of its
            own. None given: one level.

    Raises:
        ValueError: no such path, fewer than 2 steps, or opposite latents on a spherical path.
    """
    if path not in PATHS:
        raise ValueError(not_allowed("path", path, PATHS))
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps}: must be at least 2, because both ends count")
    fractions = torch.linspace(0, 1, num_steps, device=first.device)
    if path == "spherical":
        parts = level_slices(levels) or [slice(None)]
        return torch.cat([slerp(first[:, part], second[:, part], fractions) for part in parts], dim=2)
    return torch.lerp(first[:, None], second[:, None], fractions[:, None])


def slerp(
    first: Float[Tensor, "batch latent"], second: Float[Tensor, "batch latent"], fractions: Float[Tensor, " steps"]
) -> Float[Tensor, "batch steps latent"]:
    """Spherical interpolation: the direction turns evenly on the shortest way, the length changes linearly.

    Directions: (sin((1 - a) θ) u + sin(a θ) v) / sin θ, Shoemake 1985, doi:10.1145/325334.325242; for latents, which
    have a typical length that a straight line leaves: White 2016, arXiv:1609.04468. Vectors of one direction, and a
    zero vector, which has none, give the straight line.

    Raises:
        ValueError: opposite vectors, between which there is no shortest way.
    """
    first, second, fractions = first[:, None], second[:, None], fractions[:, None]
    u, v = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    lengths = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)
    has_directions = (lengths[0] > 0) & (lengths[1] > 0)
    apart, together = (u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True)
    opposite = has_directions & (together < OPPOSITE)
    if opposite.any():
        raise ValueError(
            f"path=spherical: the latents of pair {int(opposite.flatten().nonzero()[0]) + 1} point in opposite "
            "directions, so that there is no shortest way: take path=linear, or another picture between them"
        )
    turns = 2 * torch.atan2(apart, together) / torch.pi  # θ / π; arccos is coarse near 0 and π

    def weight(fraction: Float[Tensor, "steps 1"]) -> Float[Tensor, "_batch steps 1"]:
        return fraction * torch.sinc(fraction * turns) / torch.sinc(turns)  # sin(a θ) / sin θ, a where θ = 0

    direction = F.normalize(weight(1 - fractions) * u + weight(fractions) * v, dim=-1)  # against rounding
    turned = torch.lerp(*lengths, fractions) * direction
    return torch.where(has_directions, turned, torch.lerp(first, second, fractions))
