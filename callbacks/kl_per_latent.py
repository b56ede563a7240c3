"""Which latents, or levels of latents, carry information."""

import logging
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import numpy as np

from callbacks.base import EveryNEpochs, is_validation_of_training
from callbacks.dashboard import save_picture, tensorboard_loggers
from callbacks.loggers import MetricsCsv
from vae_lightning.pictures.charts import Curve, draw_kl_per_latent, draw_kl_per_level
from vae_lightning.runs.layout import IMAGES, METRICS_CSV
from vae_lightning.runs.metrics_csv import Row, read_metrics
from vae_lightning.training.vae_module import VAEModule

log = logging.getLogger("vae_lightning")


class KLPerLatent(EveryNEpochs):
    """A histogram in TensorBoard after each validation, and a picture: the KL of each latent, largest first.

    The picture of a hierarchical model, which has thousands of latents, is another one: the KL of each level over the
    training, from `metrics.csv`. They are `images/kl_per_latent/epoch=0005.png` and `images/kl_per_level/…`.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often the picture is drawn, also after the last epoch.
    """

    name = "kl_per_latent"
    fits = VAEModule
    needs_prior = True

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        self.run_dir = Path(run_dir)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, VAEModule)
        has_csv = any(isinstance(logger, MetricsCsv) for logger in trainer.loggers)
        if stage == "fit" and trainer.is_global_zero and not (pl_module.model.is_flat or has_csv):
            log.warning("callbacks=[kl_per_latent] draws levels from metrics.csv, and logger=[…] has no csv")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        if not is_validation_of_training(trainer) or not trainer.is_global_zero:
            return
        kl_nats_per_latent = pl_module.kl_nats_per_latent.cpu().numpy()
        for logger in tensorboard_loggers(trainer.loggers):
            logger.experiment.add_histogram("val/kl_nats_per_latent", kl_nats_per_latent, trainer.global_step)
        if not self.is_due(trainer):
            return
        title = f"epoch {trainer.current_epoch + 1}"
        if pl_module.model.is_flat:
            kind, picture = self.name, draw_kl_per_latent(kl_nats_per_latent, title)
        else:
            rows = read_metrics(self.run_dir / METRICS_CSV, lambda column: "/kl_nats_" in column)
            levels = [level.name for level in pl_module.model.latent_levels]
            kind, picture = "kl_per_level", draw_kl_per_level(curves_of(levels, rows), title)
        file = self.run_dir / IMAGES / kind / f"epoch={trainer.current_epoch + 1:04d}.png"
        save_picture(trainer, file, f"latents/{kind}", picture)


def curves_of(levels: Iterable[str], rows: Iterable[Row]) -> dict[str, dict[str, Curve]]:
    """The KL of each level over optimizer steps, in training and validation."""

    def curve(column: str) -> Curve:
        return np.array([(row["step"], row[column]) for row in rows if column in row]).reshape(-1, 2)

    return {level: {split: curve(f"{split}/kl_nats_{level}") for split in ("train", "val")} for level in levels}
