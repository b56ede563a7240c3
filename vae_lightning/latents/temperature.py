"""Temperatures of samples: one for all latents, or one for each level of a hierarchical model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.models.levels import LatentLevel
from vae_lightning.system.names import not_allowed

Temperature = float | Mapping[str, float]  # by a level's name; 1 for levels that are not named
FALLING_TO = (0.5, 0.1)  # of the finest level, in rows of pictures whose coarsest level stays at 1


def temperature_per_latent(temperature: Temperature, levels: Sequence[LatentLevel]) -> float | Float[Tensor, " latent"]:
    """A number as it is; temperatures by level as one for each latent.

    Raises:
        ValueError: the levels have no such name, a flat model is given names, or a temperature is not 0 or more.
    """
    if not isinstance(temperature, Mapping):
        return temperature
    names = [level.name for level in levels]
    if len(levels) == 1:
        raise ValueError(
            f"temperature={dict(temperature)}: the latents of this model are a single level, so that there is nothing "
            "to name: give one number, for example 0.7"
        )
    for name, value in temperature.items():
        if name not in names:
            raise ValueError(not_allowed("level", name, names))
        if not 0 <= value < float("inf"):
            raise ValueError(f"temperature={value} for level {name}: must be 0 (no spread) or more; 1 is the prior")
    values = torch.tensor([float(temperature.get(name, 1.0)) for name in names], dtype=torch.float64)
    return values.repeat_interleave(torch.tensor([level.size for level in levels]))


def temperature_in_words(temperature: Temperature, levels: Sequence[LatentLevel], between: str = " · ") -> str:
    """`0.7`, or `1 · 0.6 · 0.3 · 0.1`: all levels, coarse first."""
    if not isinstance(temperature, Mapping):
        return f"{temperature:g}"
    return between.join(f"{temperature.get(level.name, 1.0):g}" for level in levels)


def falling_temperatures(levels: Sequence[LatentLevel]) -> list[dict[str, float]]:
    """Temperatures that fall evenly (by one factor) from 1 at the coarsest level; none for a flat model."""
    if len(levels) == 1:
        return []
    return [
        {
            level.name: float(f"{value:.2g}")
            for level, value in zip(levels, np.geomspace(1, lowest, len(levels)), strict=True)
        }
        for lowest in FALLING_TO
    ]
