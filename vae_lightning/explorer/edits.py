"""Changes latents by what the sliders say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from vae_lightning.explorer.workbench import OpenedRun
from vae_lightning.latents.finer import with_finer
from vae_lightning.latents.paths import latents_between
from vae_lightning.models.levels import LatentLevel

REACH = 3.0  # of a slider to both sides, in standard deviations
PATH_STEPS = 101  # between two faces, both counted: percent
UNIT = "std"


@dataclass(frozen=True)
class Edit:
    """What is changed in a face, in standard deviations of the latents of faces.

    Args:
        latents: number of a latent -> shift; without statistics in units of the latent itself.
        ranks: as `latents`, by rank of activity from 0, for runs whose latents stand in another order.
        attributes: name -> strength.
        method: one of `directions.METHODS`.
        orthogonal_to: attributes that are kept as they are.
        finer: what becomes of a hierarchical model's finer levels, which no slider moves: one of `finer.FINER`.
        seed: of the draw of those that are redrawn.
    """

    latents: Mapping[int, float] = field(default_factory=dict)
    ranks: Mapping[int, float] = field(default_factory=dict)
    attributes: Mapping[str, float] = field(default_factory=dict)
    method: str = "means"
    orthogonal_to: Sequence[str] = ()
    finer: str = "keep"
    seed: int = 0

    def others(self, attribute: str) -> list[str]:
        """The attributes to which the direction of this one is made orthogonal."""
        return [name for name in self.orthogonal_to if name != attribute]

    def shifts(self, run: OpenedRun) -> dict[int, float]:
        """Number of a latent -> shift, without those that do not move."""
        order = run.most_active(max(self.ranks, default=-1) + 1)
        by_rank = {order[rank]: shift for rank, shift in self.ranks.items() if rank < len(order)}
        return {latent: shift for latent, shift in {**by_rank, **self.latents}.items() if shift}


def moved(latents: Float[Tensor, "1 latent"], run: OpenedRun, edit: Edit) -> Float[Tensor, "1 latent"]:
    """
    Raises:
        ValueError: no such attribute or method, nothing is left of its direction, or there are no finer levels.
        RunError: an attribute is to move, and the run has no directions.
    """
    latents = with_finer(latents, run.num_coarse, edit.finer, edit.seed).clone()
    for latent, shift in edit.shifts(run).items():
        latents[:, latent] += shift if run.statistics is None else shift * run.statistics.std[latent]
    for attribute, strength in edit.attributes.items():
        if strength:
            directions = run.directions or run.vae.directions()  # the latter says how to fit them
            direction = directions.direction(attribute, edit.method, edit.others(attribute))
            latents += direction.shift(strength, UNIT)
    return latents


def between(
    first: Float[Tensor, "1 latent"],
    second: Float[Tensor, "1 latent"],
    percent: int,
    path: str,
    levels: Sequence[LatentLevel] = (),
) -> Float[Tensor, "1 latent"]:
    """
    Raises:
        ValueError: no such path, or opposite latents on a spherical one.
    """
    return latents_between(first, second, PATH_STEPS, path, levels)[:, percent]
