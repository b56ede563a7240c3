"""The largest batch that fits, and how to ask for it next time."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder as LightningsFinder
from lightning.pytorch.trainer.states import TrainerFn

from vae_lightning.data import FaceDataModule

logger = logging.getLogger("vae_lightning")

SNAPSHOTS = ".scale_batch_size_*.ckpt"  # Lightning's, in the run folder


class BatchSizeFinder(LightningsFinder):
    """Lightning's own, before training only. It says what it found, and checkpoints keep it: a run that goes on does
    not search again.

    Before a test Lightning's would try sizes again, and set the number of steps back to 0. Where it searches before a
    run goes on, it loses the optimizer, the steps done and the epoch. The run's configuration keeps the size that was
    asked for.

    `found` is the size, None as long as there was no search.
    """

    found: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str | None = None) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            for left_over in Path(trainer.default_root_dir).glob(SNAPSHOTS):  # of a search that was killed
                left_over.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self.found} if self.found else {}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before the optimizer is made: a learning rate schedule counts the batches then."""
        found = checkpoint["callbacks"].get(self.state_key, {}).get("batch_size")
        if isinstance(found, int) and found > 0 and trainer.state.fn == TrainerFn.FITTING:
            self.found = found
            _data_of(trainer).batch_size = found
            logger.info(f"Training goes on with batches of {found}, as they were found before: nothing is searched")

    def scale_batch_size(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Doubles the data module's `batch_size` until memory is full, and leaves the largest that fits."""
        if self.found:
            return
        goes_on_from = trainer.ckpt_path
        super().scale_batch_size(trainer, pl_module)
        self.found = _data_of(trainer).batch_size
        logger.info(
            f"Training with batches of {self.found}, the largest that were tried and fit: data.batch_size={self.found}"
        )
        if goes_on_from is not None:  # Lightning takes its own snapshot for what training goes on from
            trainer._checkpoint_connector._restore_modules_and_callbacks(goes_on_from, weights_only=True)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: tests use the size that was found."""


def _data_of(trainer: L.Trainer) -> FaceDataModule:
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, FaceDataModule)
    return datamodule
