"""Labelled grids in training and test: reconstructions, interpolations, traversals, temperatures, levels."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from jaxtyping import UInt8
from torch import Tensor

from callbacks.base import EveryNEpochs, datamodule_of
from callbacks.dashboard import save_picture
from vae_lightning.latents.statistics import latent_statistics
from vae_lightning.models import Autoencoder
from vae_lightning.models.levels import num_coarse_latents
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.pictures.face_grids import (
    Grid,
    check_has_levels,
    interpolation_grid,
    levels_grid,
    reconstruction_grid,
    temperature_grid,
    traversal_grid,
)
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.layout import IMAGES
from vae_lightning.training.vae_module import VAEModule

NUM_FACES_FOR_ACTIVITY = 64  # over which a latent's KL is averaged when the most active latents are looked for


class ImageGrid(EveryNEpochs):
    """Draws a grid of held-out faces after validation, and of test faces after the test.

    Faces and noise depend on the data set alone: they are the same throughout a run and in every run of a sweep.
    Pictures go to `images/<name>/epoch=0004.png`, and to TensorBoard as `images/<name>`.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw, also after the first and the last epoch.
    """

    fits = VAEModule
    also_first = True
    needs_prior = False  # whether the grid means nothing for a plain autoencoder
    shows_faces = True  # of the split; else its title does not name one
    num_faces: int  # that `draw` gets

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        self.run_dir = Path(run_dir)

    def check_model(self, model: Autoencoder) -> None:
        """Refuses a model that the grid cannot be drawn for; called before any data is read.

        Raises:
            ValueError: says which setting does not fit.
        """

    @abstractmethod
    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        """The grid for `faces` on the model's device; the model is in eval mode, gradients are off."""

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_due(trainer):
            self._draw_and_save(trainer, pl_module, "val", f"epoch={trainer.current_epoch + 1:04d}")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw_and_save(trainer, pl_module, "test", "test")

    def _draw_and_save(
        self, trainer: L.Trainer, module: L.LightningModule, split: Literal["val", "test"], stem: str
    ) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, VAEModule)
        faces = datamodule_of(trainer).held_out_faces(split, self.num_faces).to(module.device)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():  # the precision of validation
            grid = self.draw(module.model, faces)
        of_test = "test split" if self.shows_faces else "the tested weights"
        title = f"{grid.title} · " + (of_test if split == "test" else f"epoch {trainer.current_epoch + 1}")
        picture = labelled_grid(grid.images, grid.row_labels, grid.column_labels, title)
        tag = f"images/{self.name}" if split == "val" else f"test_images/{self.name}"
        save_picture(trainer, self.run_dir / IMAGES / self.name / f"{stem}.png", tag, picture)


class InterpolationGrid(ImageGrid):
    """One row per pair: the first face, decoded (1 - a) z1 + a z2 for a from 0 to 1, the second face.

    Args:
        run_dir: the run folder.
        every_n_epochs: see `ImageGrid`.
        num_pairs: number of rows.
        num_steps: number of values of a, both ends counted.
    """

    name = "interpolation"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_pairs: int = 4, num_steps: int = 9) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_pairs < 1 or num_steps < 2:
            raise ValueError(
                f"callbacks.{self.name}: num_pairs={num_pairs}, num_steps={num_steps}: "
                "at least 1 pair and 2 steps are needed"
            )
        self.num_faces = 2 * num_pairs
        self.num_steps = num_steps

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return interpolation_grid(model, faces, self.num_steps)


class LevelsGrid(ImageGrid):
    """Which level of a hierarchical model holds what: from row to row, one level more is drawn anew, the finest first.

    Args:
        run_dir: the run folder.
        every_n_epochs: see `ImageGrid`.
        num_faces: number of faces.
        num_draws: of the finer levels, a column each.
        temperature: standard deviation of what is drawn; 1 is the prior itself.
    """

    name = "levels"

    def __init__(
        self, run_dir: str, every_n_epochs: int = 5, num_faces: int = 4, num_draws: int = 2, temperature: float = 1.0
    ) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_faces < 1 or num_draws < 1 or not 0 <= temperature < math.inf:
            raise ValueError(
                f"callbacks.{self.name}: num_faces={num_faces}, num_draws={num_draws}, temperature={temperature}: "
                "at least 1 face, 1 draw and a temperature of 0 or more are needed"
            )
        self.num_faces = num_faces
        self.num_draws = num_draws
        self.temperature = temperature

    def check_model(self, model: Autoencoder) -> None:
        check_has_levels(model)

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return levels_grid(model, faces, self.num_draws, self.temperature)


class ReconstructionGrid(ImageGrid):
    """Originals in the upper row, the decoder's mean at the posterior mean in the lower one.

    Args:
        run_dir: the run folder.
        every_n_epochs: see `ImageGrid`.
        num_faces: number of faces.
    """

    name = "reconstruction"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_faces: int = 10) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_faces < 1:
            raise ValueError(f"callbacks.{self.name}.num_faces={num_faces}: must be at least 1")
        self.num_faces = num_faces

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return reconstruction_grid(model, faces)


class TemperatureGrid(ImageGrid):
    """One row per temperature t: decoded z = t * noise; a column has the same noise in every row, epoch and run.

    A hierarchical model has further rows, whose coarsest level stays at 1 while finer ones fall.

    Args:
        run_dir: the run folder.
        every_n_epochs: see `ImageGrid`.
        temperatures: the standard deviations of the latents; 1 is the prior itself.
        num_samples: number of columns.
    """

    name = "temperature"
    needs_prior = True
    shows_faces = False
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
                f"callbacks.{self.name}: temperatures={list(temperatures)}, num_samples={num_samples}: "
                "at least one temperature, none below 0, and 1 sample are needed"
            )
        self.temperatures = list(temperatures)
        self.num_samples = num_samples

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return temperature_grid(model, self.temperatures, self.num_samples, faces.device)


class TraversalGrid(ImageGrid):
    """One row per latent, set to values from -limit to limit while the others keep the posterior mean of one face.

    Args:
        run_dir: the run folder.
        every_n_epochs: see `ImageGrid`.
        dimensions: which latents; None takes those with the largest KL (an autoencoder's: largest variance), of a
            hierarchical model those of its coarse levels.
        num_dimensions: how many, where `dimensions` is None.
        limit: the largest value.
        num_steps: number of values.
    """

    name = "traversal"
    num_faces = NUM_FACES_FOR_ACTIVITY

    def __init__(
        self,
        run_dir: str,
        every_n_epochs: int = 5,
        dimensions: Sequence[int] | None = None,
        num_dimensions: int = 8,
        limit: float = 3.0,
        num_steps: int = 9,
    ) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_dimensions < 1 or num_steps < 2 or limit <= 0 or (dimensions is not None and not dimensions):
            raise ValueError(
                f"callbacks.{self.name}: dimensions={dimensions}, num_dimensions={num_dimensions}, limit={limit}, "
                f"num_steps={num_steps}: needed are 1 dimension, a limit above 0 and 2 steps at least"
            )
        self.dimensions = None if dimensions is None else list(dimensions)
        self.num_dimensions = num_dimensions
        self.limit = limit
        self.num_steps = num_steps

    def check_model(self, model: Autoencoder) -> None:
        wrong = [number for number in self.dimensions or [] if not 0 <= number < model.latent_dim]
        if wrong:
            raise ValueError(
                f"callbacks.{self.name}.dimensions={self.dimensions}: {wrong} are not among the latents "
                f"0 to {model.latent_dim - 1} (model.latent_dim={model.latent_dim})"
            )

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        statistics = latent_statistics([model.encode(to_pixel_range(faces, model.pixel_range))])
        chosen = self.dimensions or statistics.most_active(self.num_dimensions, num_coarse_latents(model.latent_levels))
        grid = traversal_grid(model, faces[0], chosen, statistics, self.limit, self.num_steps)
        return grid if self.dimensions else replace(grid, title=f"{grid.title}, most active first")
