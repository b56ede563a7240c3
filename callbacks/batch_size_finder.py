"""Finds the largest batch that fits into memory."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder as LightningsFinder
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.base import datamodule_of

log = logging.getLogger("vae_lightning")

SNAPSHOTS = ".scale_batch_size_*.ckpt"  # Lightning's, in the run folder


class BatchSizeFinder(LightningsFinder):
    """Lightning's finder, before training only. Checkpoints keep the size: a resumed run does not search again.

    Lightning's would also search before a test, and set the number of steps back to 0. Where it searches before a run
    resumes, it loses the optimizer, the steps done and the epoch. The run's configuration keeps the size that was
    asked for.

    `found` is the size, None before any search.
    """

    found: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str | None = None) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            for left_over in Path(trainer.default_root_dir).glob(SNAPSHOTS):  # by a search that was killed
                left_over.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self.found} if self.found else {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called before the optimizer is made, whose learning-rate schedule counts the batches."""
        found = checkpoint["callbacks"].get(self.state_key, {}).get("batch_size")
        if isinstance(found, int) and found > 0 and trainer.state.fn == TrainerFn.FITTING:
            self.found = found
            datamodule_of(trainer).batch_size = found
            log.info(f"Training resumes with batches of {found}, the size that was found before")

    def scale_batch_size(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Doubles the data module's `batch_size` until memory is full, and leaves the largest that fits."""
        if self.found:
            return
        resumed_from = trainer.ckpt_path
        super().scale_batch_size(trainer, pl_module)
        self.found = datamodule_of(trainer).batch_size
        log.info(
            f"Training with batches of {self.found}, the largest that were tried and fit: data.batch_size={self.found}"
        )
        if resumed_from is not None:  # Lightning takes its own snapshot for the checkpoint to resume from
            trainer._checkpoint_connector._restore_modules_and_callbacks(resumed_from, weights_only=True)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tests use the size that was found."""
