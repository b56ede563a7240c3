"""How well each attribute or factor is read, as a table and a picture."""

import csv
from pathlib import Path

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.dashboard import show_picture
from vae_lightning.data.sources.source import Split
from vae_lightning.pictures.grids import write_picture
from vae_lightning.recognition.module import RecognizerModule
from vae_lightning.recognition.readings import draw_r_squared
from vae_lightning.runs.layout import IMAGES
from vae_lightning.scores.attribute_scores import draw_bars
from vae_lightning.system.whole_files import replacing


class RecognitionScores(L.Callback):
    """After validation and after the test: `recognition_val.csv`, `recognition_test.csv`, and a picture of each.

    Attributes: accuracy beside that of always saying the more frequent class, balanced accuracy, AUC with its 95 %
    interval. Factors: R^2.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often during training; the last epoch is always measured.
    """

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.recognition_scores.every_n_epochs={every_n_epochs}: must be at least 1")
        self.run_dir = Path(run_dir)
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        epoch = trainer.current_epoch + 1
        if epoch == trainer.max_epochs or epoch % self.every_n_epochs == 0:
            self._write(trainer, pl_module, "val", f"epoch={epoch:04d}")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, pl_module, "test", "test")

    def _write(self, trainer: L.Trainer, module: L.LightningModule, split: Split, name: str) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, RecognizerModule)
        rows = module.table(split)
        if not rows:  # no attribute has both classes
            return
        path = self.run_dir / f"recognition_{split}.csv"
        with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        draw = draw_bars if module.network.target == "attributes" else draw_r_squared
        picture = draw(rows)
        png = write_picture(self.run_dir / IMAGES / "recognition" / f"{name}.png", picture)
        tag = "images/recognition" if split == "val" else "test_images/recognition"
        show_picture(trainer.loggers, tag, png, picture.shape[:2], trainer.global_step)
