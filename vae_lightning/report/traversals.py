"""What single latents do, matched between runs by what they do: training permutes them, and flips their signs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from vae_lightning.models.levels import num_coarse_latents
from vae_lightning.models.pixels import to_uint8
from vae_lightning.runs.run import Run

REACH = 2.0  # an effect is what lies between -REACH and +REACH
VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
SMALLEST_KL_NATS = 0.01  # a latent below says nothing about the face; the direction of its effect is noise
MOST_ACTIVE = 64  # latents whose effects are looked at: with all 256 of a large model a report would take minutes
CHUNK = 32  # latents decoded at once


@dataclass(frozen=True)
class Latents:
    """One face's code in one run, and what its latents do: of a hierarchical model those of its coarse levels.

    The codes of a plain autoencoder have no scale of their own: there a value of 1 is one standard deviation over
    held-out faces, around their mean.
    """

    code: Float[Tensor, " latent"]
    centre: Float[Tensor, " latent"]
    scale: Float[Tensor, " latent"]
    activity: Float[Tensor, " coarse"]  # KL in nats; an autoencoder's standard deviation
    active: Int64[Tensor, " active"]  # those that say anything, most active first, MOST_ACTIVE at most; else all
    is_active: bool  # whether any says anything
    effects: Float[Tensor, "active channels height width"]  # pixels in [0, 1]: between -1 and 1


@dataclass(frozen=True)
class Match:
    """The latent of another run that does most nearly the same; `sign` is -1 where it does so in reverse."""

    latent: int
    sign: int
    similarity: float  # absolute cosine of the two effects, 0 to 1


def measure_latents(run: Run, faces: UInt8[Tensor, "faces channels height width"]) -> Latents:
    """Effects at the first face; activity over all of them.

    Raises:
        ValueError: the latents of a face are not finite.
    """
    posterior = run.encode(faces)
    if not posterior.mean.isfinite().all():
        raise ValueError("its latents are not finite (nan or inf), so there is nothing to traverse")
    if run.model.has_prior:
        activity = posterior.kl_per_latent().mean(0)[: num_coarse_latents(run.model.latent_levels)]
        centre, scale = torch.zeros_like(posterior.mean[0]), torch.ones_like(posterior.mean[0])
        is_active = activity > SMALLEST_KL_NATS
    else:
        activity = scale = posterior.mean.std(0, correction=0)
        centre = posterior.mean.mean(0)
        is_active = activity > 0
    order = activity.argsort(descending=True)
    active = (order[is_active[order]] if is_active.any() else order)[:MOST_ACTIVE]
    code = posterior.mean[0]
    effects = [
        traverse(run, code, centre, scale, part, (REACH,)) - traverse(run, code, centre, scale, part, (-REACH,))
        for part in active.split(CHUNK)
    ]
    return Latents(code, centre, scale, activity, active, bool(is_active.any()), torch.cat(effects)[:, 0])


def traverse(
    run: Run,
    code: Float[Tensor, " latent"],
    centre: Float[Tensor, " latent"],
    scale: Float[Tensor, " latent"],
    latents: Int64[Tensor, " chosen"],
    values: Sequence[float],
) -> Float[Tensor, "chosen values channels height width"]:
    """Decodes `code` with one latent after the other set to each value; pixels in [0, 1]."""
    codes = code.repeat(len(latents), len(values), 1)
    for row, latent in enumerate(latents.tolist()):
        codes[row, :, latent] = centre[latent] + scale[latent] * torch.tensor(values, device=code.device)
    return run.decode(codes.flatten(0, 1)).unflatten(0, (len(latents), len(values)))


def match_latents(reference: Latents, other: Latents, num_latents: int) -> list[Match]:
    """For each of the reference's most active latents the one in `other` with the most similar effect."""
    wanted = reference.effects[:num_latents]
    offered = like(other.effects, wanted)
    wanted = like(wanted, offered)
    cosines = F.normalize(wanted.flatten(1), dim=1) @ F.normalize(offered.flatten(1), dim=1).T
    best = cosines.abs().argmax(1)
    return [
        Match(int(other.active[column]), -1 if cosines[row, column] < 0 else 1, float(cosines[row, column].abs()))
        for row, column in enumerate(best.tolist())
    ]


def like(
    effects: Float[Tensor, "latents channels height width"], other: Float[Tensor, "others colors rows columns"]
) -> Float[Tensor, "latents new_channels new_height new_width"]:
    """Effects at the size of `other`, gray where one of the two is gray, so that they can be compared."""
    if effects.shape[1] > other.shape[1]:
        effects = effects.mean(1, keepdim=True)
    return effects if effects.shape[2:] == other.shape[2:] else F.interpolate(effects, other.shape[2:], mode="area")


def traversal_row(run: Run, latents: Latents, latent: int, sign: int) -> UInt8[Tensor, "values channels height width"]:
    """One latent moved over VALUES, in reverse where `sign` is -1."""
    chosen = torch.tensor([latent], device=latents.code.device)
    values = [sign * value for value in VALUES]
    row = traverse(run, latents.code, latents.centre, latents.scale, chosen, values)
    return to_uint8(row[0], (0.0, 1.0))
