"""Samples from the prior at several temperatures."""

import math
from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import ImageGrid
from vae_lightning.face_grids import Grid, temperature_grid
from vae_lightning.models import Autoencoder


class TemperatureGrid(ImageGrid):
    """One row per temperature t: decoded z = t * noise, with the same noise in every row, epoch and run.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        temperatures: the standard deviations of the latents; 1 is the prior itself.
        num_samples: number of columns.
    """

    kind = "temperature"
    needs_prior = True
    num_faces = 1

    def __init__(
        self,
        run_dir: str,
        every_n_epochs: int = 5,
        temperatures: Sequence[float] = (0.2, 0.5, 1.0, 1.5),
        num_samples: int = 8,
    ) -> None:
        super().__init__(run_dir, every_n_epochs)
        are_sizes = all(math.isfinite(temperature) and temperature >= 0 for temperature in temperatures)
        if not temperatures or not are_sizes or num_samples < 1:
            raise ValueError(
                f"callbacks.temperature: temperatures={list(temperatures)}, num_samples={num_samples}: "
                "at least one temperature, none below 0, and 1 sample are needed"
            )
        self.temperatures = list(temperatures)
        self.num_samples = num_samples

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return temperature_grid(model, self.temperatures, self.num_samples, faces.device)
