"""Levels: how the flat vector of latents of a hierarchical model is divided, coarse first."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

COARSE_LATENTS = 1_024  # a Gaussian over more takes long to fit, and its covariance much memory


class LatentLevel(NamedTuple):
    """Latents on one map; a flat model has one level of one pixel."""

    name: str
    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Number of its latents."""
        return self.channels * self.height * self.width


def level_slices(levels: Sequence[LatentLevel]) -> list[slice]:
    """Where each level lies in the flat vector."""
    ends = list(accumulate(level.size for level in levels))
    return [slice(end - level.size, end) for level, end in zip(levels, ends, strict=True)]


def coarse_levels(levels: Sequence[LatentLevel], at_most: int = COARSE_LATENTS) -> list[LatentLevel]:
    """The coarsest levels, as many as have `at_most` latents together; the first in any case."""
    ends = accumulate(level.size for level in levels)
    return [
        level for number, (level, end) in enumerate(zip(levels, ends, strict=True)) if number == 0 or end <= at_most
    ]
