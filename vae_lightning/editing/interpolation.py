"""Interpolation from picture to picture through the latents: one grid with numbers, or frames of an animation."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.latents.paths import PATHS, latent_path, latents_between
from vae_lightning.models.pixels import NUM_LEVELS
from vae_lightning.pictures.face_grids import encode_mean
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Row

HEADING = 12  # letters above a column

Pictures = UInt8[Tensor, "pictures channels height width"]


@dataclass(frozen=True)
class Way:
    """From one original to another, all on the host."""

    start: str
    end: str
    path: str
    originals: UInt8[Tensor, "2 channels height width"]
    latents: Float[Tensor, "steps latent"]
    pictures: UInt8[Tensor, "steps channels height width"]

    def pixel_steps(self) -> list[float]:
        """Root mean squared difference of each picture to the one before it, in units of [0, 1]."""
        change = self.pictures.double().diff(dim=0) / (NUM_LEVELS - 1)
        return change.square().mean((1, 2, 3)).sqrt().tolist()

    def rows(self) -> list[Row]:
        fractions = np.linspace(0, 1, len(self.latents)).tolist()
        columns = (fractions, self.latents.norm(dim=1).tolist(), [None, *self.pixel_steps()])
        return [
            {"from": self.start, "to": self.end, "path": self.path, "a": a, "latent_length": length, "pixel_step": step}
            for a, length, step in zip(*columns, strict=True)
        ]


def interpolate(
    subject: Subject,
    originals: Pictures,
    names: Sequence[str] = (),
    *,
    num_steps: int = 9,
    paths: Sequence[str] = PATHS,
    loop: bool = False,
) -> Result:
    """A row for each way and kind of path, from original to original.

    The table has a row for each picture with the length of its latents, and how far its pixels are from the picture
    before it (root mean square, in units of [0, 1]). `protocol` says for each path where the latents are shortest, how
    far the pictures go in all, and the longest step over the mean step: 1 where they change evenly.

    Args:
        subject: encodes and decodes; its data are not used.
        originals: at least two.
        names: of the originals; empty = A, B, C, …
        num_steps: pictures on each way, both ends counted.
        paths: "linear", "spherical", or both.
        loop: one way more, from the last original to the first.

    Raises:
        ValueError: fewer than two originals, another number of names, no path, or as `latents_between`.
    """
    names = _names(len(originals), names)
    if not paths:
        raise ValueError(f"no path: expected {' or '.join(PATHS)}, or both")
    ways = _ways(subject, originals.cpu(), names, num_steps, paths, loop)
    several = len(ways) > len(paths)  # from one original to the next
    steps = [f"a = {fraction:.3g}" for fraction in np.linspace(0, 1, num_steps)]
    picture = labelled_grid(
        torch.stack([torch.cat([way.originals[:1], way.pictures, way.originals[1:]]) for way in ways]),
        [f"{way.start} → {way.end}\n{way.path}" if several else way.path for way in ways],
        ["from", *steps, "to"] if several else [_heading(names[0]), *steps, _heading(names[1])],
        "Originals at the ends, decoded latents between them",
    )
    return Result(
        protocol={"paths": {path: _summary([way for way in ways if way.path == path]) for path in paths}},
        tables={"interpolation": [row for way in ways for row in way.rows()]},
        pictures={"interpolation": picture},
    )


def frames_through(
    subject: Subject, originals: Pictures, *, num_steps: int = 24, path: str = "linear", loop: bool = True
) -> UInt8[Tensor, "frames channels height width"]:
    """An animation's pictures on the way through all originals, on the host; arguments and errors of `latent_path`."""
    levels = subject.model.latent_levels
    return _decoded(subject, latent_path(_encoded(subject, originals), num_steps, path, loop, levels))


def _ways(
    subject: Subject, originals: Pictures, names: Sequence[str], num_steps: int, paths: Sequence[str], loop: bool
) -> list[Way]:
    """Way by way, and of each way path by path."""
    latents, levels = _encoded(subject, originals), subject.model.latent_levels
    stops = [*range(len(originals)), *([0] if loop else [])]
    starts, ends = stops[:-1], stops[1:]
    between = torch.stack(
        [latents_between(latents[starts], latents[ends], num_steps, path, levels) for path in paths], dim=1
    )
    pictures = _decoded(subject, between.flatten(0, 2)).unflatten(0, between.shape[:3])
    return [
        Way(names[start], names[end], path, originals[[start, end]], between[way, kind], pictures[way, kind])
        for way, (start, end) in enumerate(zip(starts, ends, strict=True))
        for kind, path in enumerate(paths)
    ]


@torch.inference_mode()
def _encoded(subject: Subject, originals: Pictures) -> Float[Tensor, "pictures latent"]:
    return encode_mean(subject.model, originals.to(subject.device)).cpu()


def _decoded(
    subject: Subject, latents: Float[Tensor, "pictures latent"]
) -> UInt8[Tensor, "pictures channels height width"]:
    parts = subject.batches(len(latents), "Decoding the ways")
    return torch.cat([subject.decode_uint8(latents[part]).cpu() for part in parts])


def _heading(name: str) -> str:
    """No wider than its column."""
    return name if len(name) <= HEADING else f"{name[: HEADING - 1]}…"


def _names(count: int, names: Sequence[str]) -> Sequence[str]:
    if count < 2:
        raise ValueError(f"{count} pictures: a way needs at least 2")
    names = names or ascii_uppercase[:count]
    if len(names) != count:
        raise ValueError(f"{count} pictures, but {len(names)} names: give one for each (the letters end at 26)")
    return names


def _summary(ways: Sequence[Way]) -> dict[str, Any]:
    steps = [step for way in ways for step in way.pixel_steps()]
    mean = sum(steps) / len(steps)
    return {
        "shortest_latent_length": min(way.latents.norm(dim=1).min().item() for way in ways),
        "pixel_steps_sum": sum(steps),
        "longest_over_mean_pixel_step": max(steps) / mean if mean else None,
    }
