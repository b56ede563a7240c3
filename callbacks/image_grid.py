"""What all picture callbacks share: when to draw, on which faces, and where the picture goes."""

from abc import abstractmethod
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from jaxtyping import UInt8
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.dashboard import show_picture
from vae_lightning.data import FaceDataModule
from vae_lightning.face_grids import Grid
from vae_lightning.grids import labelled_grid
from vae_lightning.models import Autoencoder
from vae_lightning.module import VAEModule
from vae_lightning.pictures import write_picture


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
        png = write_picture(self.run_dir / "images" / self.kind / f"{name}.png", picture)
        tag = f"images/{self.kind}" if split == "val" else f"test_images/{self.kind}"
        show_picture(trainer.loggers, tag, png, picture.shape[:2], trainer.global_step)
