"""How well an attribute classifier or a factor regressor reads each attribute or factor: a table and a picture."""

import csv
from pathlib import Path

import lightning as L

from callbacks.base import EveryNEpochs
from callbacks.dashboard import save_picture
from vae_lightning.data.sources.source import Split
from vae_lightning.recognition.module import RecognizerModule
from vae_lightning.recognition.readings import draw_r_squared
from vae_lightning.runs.layout import IMAGES
from vae_lightning.scores.attribute_scores import draw_bars
from vae_lightning.system.whole_files import replacing


class RecognitionScores(EveryNEpochs):
    """After validation and after the test: `recognition_val.csv`, `recognition_test.csv`, and a picture of each.

    Attributes: accuracy beside that of always saying the more frequent class, balanced accuracy, AUC with its 95 %
    interval. Factors: R^2.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often in training, also after the last epoch.
    """

    name = "recognition_scores"
    fits = RecognizerModule

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        self.run_dir = Path(run_dir)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_due(trainer):
            self._write(trainer, pl_module, "val", f"epoch={trainer.current_epoch + 1:04d}")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, pl_module, "test", "test")

    def _write(self, trainer: L.Trainer, module: L.LightningModule, split: Split, stem: str) -> None:
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
        tag = "images/recognition" if split == "val" else "test_images/recognition"
        save_picture(trainer, self.run_dir / IMAGES / "recognition" / f"{stem}.png", tag, draw(rows))
