"""The largest batch that fits, and how to ask for it next time."""

import logging
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder as LightningsFinder

from vae_lightning.data import FaceDataModule

logger = logging.getLogger("vae_lightning")


class BatchSizeFinder(LightningsFinder):
    """Lightning's own, before training only, and it says what it found.

    Before a test Lightning's would try sizes again, and set the number of steps back to 0. The run's configuration
    keeps the size that was asked for.
    """

    def scale_batch_size(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Doubles the data module's `batch_size` until memory is full, and leaves the largest that fits."""
        super().scale_batch_size(trainer, pl_module)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, FaceDataModule)
        found = datamodule.batch_size
        logger.info(f"Training with batches of {found}, the largest that were tried and fit: data.batch_size={found}")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: tests use the size that was found."""
