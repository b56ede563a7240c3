"""Pictures to look at: what a model does with held-out faces and with noise."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8

from vae_lightning.evaluation.metric import Metric
from vae_lightning.pictures.face_grids import (
    Grid,
    interpolation_grid,
    levels_grid,
    reconstruction_grid,
    temperature_grid,
)
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result

NUM_FACES = 10
NUM_FACES_OF_LEVELS = 5  # two draws each
TEMPERATURES = (0.2, 0.5, 1.0, 1.5)
SAMPLE_ROWS, SAMPLE_COLUMNS = 6, 10


@dataclass(frozen=True)
class Showcase(Metric):
    """Pictures of a run: reconstructions, temperatures, interpolations, random samples, levels of a ladder."""

    title: ClassVar[str] = "Pictures"
    place: ClassVar[int] = 90

    @torch.inference_mode()
    def measure(self, subject: Subject) -> Result:
        faces = subject.pixels(subject.split, subject.rows(subject.split, NUM_FACES))
        grids = {
            "faces": reconstruction_grid(subject.model, faces),
            "interpolations": interpolation_grid(subject.model, faces, num_steps=9),
        }
        if subject.model.has_prior:
            grids["temperatures"] = temperature_grid(subject.model, TEMPERATURES, SAMPLE_COLUMNS, subject.device)
            grids["random_samples"] = _random_samples(subject)
        if not subject.model.is_flat:
            grids["levels"] = levels_grid(subject.model, faces[:NUM_FACES_OF_LEVELS])
        remarks = [] if subject.model.has_prior else ["A plain autoencoder has no prior: no samples of it are drawn."]
        pictures = {name: _draw(grid) for name, grid in grids.items()}
        return Result([], {"faces": f"{len(faces)} of the {subject.split} split, evenly spaced"}, remarks, {}, pictures)


def _random_samples(subject: Subject) -> Grid:
    latents = subject.noise(SAMPLE_ROWS * SAMPLE_COLUMNS, "random samples")
    images = subject.decode_uint8(latents).unflatten(0, (SAMPLE_ROWS, SAMPLE_COLUMNS))
    return Grid(images, [""] * SAMPLE_ROWS, [], "Samples from N(0, I), not selected")


def _draw(grid: Grid) -> UInt8[np.ndarray, "_height _width 3"]:
    return labelled_grid(grid.images, grid.row_labels, grid.column_labels, grid.title)
