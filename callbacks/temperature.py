"""Samples from the prior at several temperatures."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import Grid, ImageGrid, decode_uint8
from vae_lightning.models import Autoencoder

NOISE_SEED = 0


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
        if not temperatures or min(temperatures) < 0 or num_samples < 1:
            raise ValueError(
                f"callbacks.temperature: temperatures={list(temperatures)}, num_samples={num_samples}: "
                "at least one temperature, none below 0, and 1 sample are needed"
            )
        self.temperatures = list(temperatures)
        self.num_samples = num_samples

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        generator = torch.Generator().manual_seed(NOISE_SEED)  # on the CPU: the same on every device
        noise = torch.randn(self.num_samples, model.latent_dim, generator=generator).to(faces.device)
        temperatures = torch.tensor(self.temperatures, device=faces.device)
        return Grid(
            images=decode_uint8(model, temperatures[:, None, None] * noise),
            row_labels=[f"τ = {temperature:g}" for temperature in self.temperatures],
            column_labels=[f"sample {number}" for number in range(1, self.num_samples + 1)],
            title="Samples from N(0, τ²), same noise in each row",
        )
