"""What all picture callbacks share: when to draw, on which faces, and where the picture goes."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from jaxtyping import UInt8
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.dashboard import show_picture
from vae_lightning.data import FaceDataModule
from vae_lightning.latents.statistics import latent_statistics
from vae_lightning.models import Autoencoder
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.pictures.face_grids import (
    Grid,
    interpolation_grid,
    reconstruction_grid,
    temperature_grid,
    traversal_grid,
)
from vae_lightning.pictures.grids import labelled_grid, write_picture
from vae_lightning.runs.layout import IMAGES
from vae_lightning.training.vae_module import VAEModule

# Faces over which a latent's KL is averaged when the most active ones are looked for
NUM_FACES_FOR_ACTIVITY = 64


class ImageGrid(L.Callback):
    """Draws after validation on held-out faces, and after the test on test faces.

    The faces and the noise depend on the data set alone, so they are the same all through a run and in every
    run of a sweep. Pictures go to `images/<kind>/epoch=0004.png` and to TensorBoard as `images/<kind>`.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw; the first and the last epoch are always drawn.
    """

    kind: str
    num_faces: int
    needs_prior = False  # whether the grid means nothing for a plain autoencoder

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.{self.kind}.every_n_epochs={every_n_epochs}: must be at least 1")
        self.run_dir = Path(run_dir)
        self.every_n_epochs = every_n_epochs

    def check_model(self, model: Autoencoder) -> None:
        """Refuses a model that the grid cannot be drawn for; called before any data is read.

        Raises:
            ValueError: says which setting does not fit.
        """

    @abstractmethod
    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        """The grid for `faces` on the model's device; the model is in eval mode, gradients are off."""

    # The epoch's end, not validation's: a mean of the weights (callbacks=[…,ema]) is exchanged back in between.
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        epoch = trainer.current_epoch
        assert isinstance(pl_module, VAEModule)
        is_an_end = epoch == 0 or epoch + 1 == trainer.max_epochs
        if is_an_end or (epoch + 1) % self.every_n_epochs == 0:
            self._draw_and_save(trainer, pl_module, "val", f"epoch={epoch + 1:04d}")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        self._draw_and_save(trainer, pl_module, "test", "test")

    def _draw_and_save(self, trainer: L.Trainer, module: VAEModule, split: Literal["val", "test"], name: str) -> None:
        if not trainer.is_global_zero:
            return
        datamodule: FaceDataModule = trainer.datamodule  # type: ignore[attr-defined]
        faces = datamodule.held_out_faces(split, self.num_faces).to(module.device)
        with torch.inference_mode(), trainer.precision_plugin.forward_context():  # the precision of validation
            grid = self.draw(module.model, faces)
        title = f"{grid.title} · " + ("test split" if split == "test" else f"epoch {trainer.current_epoch + 1}")
        picture = labelled_grid(grid.images, grid.row_labels, grid.column_labels, title)
        png = write_picture(self.run_dir / IMAGES / self.kind / f"{name}.png", picture)
        tag = f"images/{self.kind}" if split == "val" else f"test_images/{self.kind}"
        show_picture(trainer.loggers, tag, png, picture.shape[:2], trainer.global_step)


class InterpolationGrid(ImageGrid):
    """One row per pair: the first face, decoded (1 - a) z1 + a z2 for a from 0 to 1, the second face.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        num_pairs: number of rows.
        num_steps: number of values of a, both ends counted.
    """

    kind = "interpolation"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_pairs: int = 4, num_steps: int = 9) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_pairs < 1 or num_steps < 2:
            raise ValueError(
                f"callbacks.{self.kind}: num_pairs={num_pairs}, num_steps={num_steps}: "
                "at least 1 pair and 2 steps are needed"
            )
        self.num_faces = 2 * num_pairs
        self.num_steps = num_steps

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return interpolation_grid(model, faces, self.num_steps)


class ReconstructionGrid(ImageGrid):
    """Originals in the upper row, the decoder's mean at the posterior mean in the lower one.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        num_faces: number of faces.
    """

    kind = "reconstruction"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_faces: int = 10) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_faces < 1:
            raise ValueError(f"callbacks.{self.kind}.num_faces={num_faces}: must be at least 1")
        self.num_faces = num_faces

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return reconstruction_grid(model, faces)


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
                f"callbacks.{self.kind}: temperatures={list(temperatures)}, num_samples={num_samples}: "
                "at least one temperature, none below 0, and 1 sample are needed"
            )
        self.temperatures = list(temperatures)
        self.num_samples = num_samples

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return temperature_grid(model, self.temperatures, self.num_samples, faces.device)


class TraversalGrid(ImageGrid):
    """What `face_grids.traversal_grid` draws.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        dimensions: which latents; None takes those with the largest KL (an autoencoder's: largest variance).
        num_dimensions: how many, where `dimensions` is None.
        limit: the largest value.
        num_steps: number of values.
    """

    kind = "traversal"
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
                f"callbacks.{self.kind}: dimensions={dimensions}, num_dimensions={num_dimensions}, limit={limit}, "
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
                f"callbacks.{self.kind}.dimensions={self.dimensions}: {wrong} are not among the latents "
                f"0 to {model.latent_dim - 1} (model.latent_dim={model.latent_dim})"
            )

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        statistics = latent_statistics([model.encode(to_pixel_range(faces, model.pixel_range))])
        chosen = self.dimensions or statistics.most_active(self.num_dimensions)
        grid = traversal_grid(model, faces[0], chosen, statistics, self.limit, self.num_steps)
        return grid if self.dimensions else replace(grid, title=f"{grid.title}, most active first")
