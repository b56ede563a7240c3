"""The runs that a page shows, and what is known of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.explorer.faces import Face, Source
from vae_lightning.explorer.photographs import Photographs
from vae_lightning.latents.directions import Directions
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.models.levels import LatentLevel, coarse_levels, num_coarse_latents
from vae_lightning.runs.layout import run_folder
from vae_lightning.runs.run import Run
from vae_lightning.system.terminal import command

log = logging.getLogger("vae_lightning")

TEST_FACES = 100  # to choose from, evenly spaced over the test split
LATENTS_KEPT = 256  # of faces that were looked at


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run with all that a page needs of it, so that no click reads files.

    Args:
        label: what tells it from the others of its sweep; of a single run its folder's name.
        vae: the model.
        place: what the page calls its checkpoint, in lines of code and in advice.
        priors: names of those that can be sampled, first the one that is taken unasked.
        test_faces: None where the data are not there.
        statistics: None where they are not known.
        directions: None where they were not fitted.
        notes: what is missing, and how to get it.
    """

    label: str
    vae: Run
    place: Path
    priors: tuple[str, ...]
    test_faces: UInt8[Tensor, "faces channels height width"] | None = None
    statistics: LatentStatistics | None = None
    directions: Directions | None = None
    notes: tuple[str, ...] = ()

    @property
    def attributes(self) -> list[str]:
        """Those that can be added to a face."""
        return [] if self.directions is None else self.directions.fitted_names

    def most_active(self, count: int) -> list[int]:
        """Latents to be moved, of the coarse levels, first those that say most about a face.

        Without statistics the first ones.
        """
        if self.statistics is None:
            return list(range(min(count, self.num_coarse)))
        return self.statistics.most_active(count, self.num_coarse)

    @property
    def levels(self) -> list[LatentLevel]:
        return self.vae.model.latent_levels

    @property
    def num_coarse(self) -> int:
        """Latents of the coarse levels, which come first: all of a flat model."""
        return num_coarse_latents(self.levels)

    @property
    def finer_levels(self) -> str:
        """Names of the levels that no slider moves; empty for a flat model."""
        return ", ".join(level.name for level in self.levels[len(coarse_levels(self.levels)) :])

    @property
    def num_test_faces(self) -> int:
        return 0 if self.test_faces is None else len(self.test_faces)


class Workbench:
    """All runs of a page, and the photographs that people have put on it.

    Args:
        name: of the run or the sweep.
        runs: one or more.
        left_out: sentences about runs of a sweep that are not among them.
        shared: whether others than who started it see the page. They learn nothing of this machine's folders.
    """

    def __init__(
        self, name: str, runs: Sequence[OpenedRun], left_out: Sequence[str] = (), *, shared: bool = False
    ) -> None:
        self.name = name
        self.shared = shared
        self.runs = list(runs)
        self.left_out = list(left_out)
        self.photographs = Photographs([run.vae for run in runs])
        self._latents = lru_cache(LATENTS_KEPT)(self._look)

    def pixels(self, number: int, face: Face) -> UInt8[Tensor, "channels height width"]:
        """A face as the model of a run sees it.

        Raises:
            ValueError: a sample, which nobody has photographed, a test face that is not there, or no photograph.
        """
        run = self.runs[number]
        if face.source == Source.PHOTOGRAPH:
            return self.photographs.pixels(face.photograph, run.vae)
        if face.source == Source.SAMPLE:
            raise ValueError("a sample has no original")
        if run.test_faces is None:
            raise ValueError(f"{run.label}: the test faces are not there; see the note above, or upload a photograph")
        if not 1 <= face.number <= len(run.test_faces):
            raise ValueError(f"test face {face.number}: there are 1 to {len(run.test_faces)}")
        return run.test_faces[face.number - 1]

    def latents(self, number: int, face: Face) -> Float[Tensor, "1 latent"]:
        """Of a face in a run, on the CPU; a copy.

        Raises:
            ValueError: as `pixels`, or the run cannot be sampled.
        """
        return self._latents(number, face).clone()

    def told(self, error: Exception) -> str:
        """What is wrong, in words for the page."""
        return sayable(str(error), shared=self.shared)

    def _look(self, number: int, face: Face) -> Float[Tensor, "1 latent"]:
        run = self.runs[number]
        if face.source == Source.SAMPLE:
            return run.vae.sample_latents(1, face.temperature, face.seed, default_prior(run))
        return run.vae.encode(self.pixels(number, face)).mean.cpu()


def default_prior(run: OpenedRun) -> str:
    """
    Raises:
        ValueError: a plain autoencoder to which no prior was fitted.
    """
    if not run.priors:
        raise ValueError(
            f"{run.label} is a plain autoencoder without a prior to sample from; this fits some: "
            f"{command(f'vae evaluate {run_folder(run.place)} --metrics samplers')}"
        )
    return run.priors[0]


def sayable(words: str, *, shared: bool) -> str:
    """The words, but for those that might name a folder to others; these go to the terminal alone."""
    if not shared or not set(words) & {"/", "\\"}:
        return words
    log.warning("%s", words)
    return "this cannot be shown here; the terminal of vae explore says why"
