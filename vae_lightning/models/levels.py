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


def num_coarse_latents(levels: Sequence[LatentLevel]) -> int:
    """How many latents `coarse_levels` have together: they stand first in the flat vector."""
    return sum(level.size for level in coarse_levels(levels))


def level_words(levels: Sequence[LatentLevel]) -> str:
    """`128 latents`; `6,912 latents in 4 levels` of a hierarchical model."""
    count = f"{sum(level.size for level in levels):,} latents"
    return count if len(levels) == 1 else f"{count} in {len(levels)} levels"


def latent_name(levels: Sequence[LatentLevel], number: int) -> str:
    """`latent 12` of a flat model; `4x4 map 3 (1, 2)`, with row and column on the map, of a hierarchical one."""
    if len(levels) == 1:
        return f"latent {number}"
    for level, part in zip(levels, level_slices(levels), strict=True):
        if number < part.stop:
            place, column = divmod(number - part.start, level.width)
            channel, row = divmod(place, level.height)
            return f"{level.name} map {channel} ({row}, {column})"
    raise IndexError(number)


def chosen_levels(levels: Sequence[LatentLevel], names: Sequence[str] | None = None) -> list[LatentLevel]:
    """`coarse_levels`, or only the first of them, by name.

    Raises:
        ValueError: a flat model, or names that are not those of the coarsest levels in their order.
    """
    coarse = coarse_levels(levels)
    if not names:
        return coarse
    if len(levels) == 1:
        raise ValueError(f"levels={','.join(names)}: this model has a single level of latents; leave it out")
    if list(names) != [level.name for level in coarse[: len(names)]]:
        known = [level.name for level in coarse]
        allowed = " or ".join(",".join(known[: number + 1]) for number in range(len(known)))
        raise ValueError(
            f"levels={','.join(names)}: allowed are the coarsest levels in their order, {allowed}; all levels of this "
            f"model: {', '.join(level.name for level in levels)}, and {COARSE_LATENTS:,} latents at most are fitted"
        )
    return coarse[: len(names)]
