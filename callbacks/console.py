"""What Lightning writes to the console."""

import logging
import threading
import time
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from vae_lightning.run_module import RunModule

REDRAWS_PER_SECOND = 10


def quieten_lightning() -> None:
    """Leaves Lightning's warnings, without its hints and advertisements and without those that mean nothing here."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # its own handler would print everything twice
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 on torch 2.15 and later, nothing that a user can mend
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # a resumed run is meant to go on in its own folder
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # where SLURM is installed; a sweep's jobs go there by hydra/launcher=slurm
    warnings.filterwarnings("ignore", message=r"The `srun` command is available on your system but is not used")
    # the data module goes on with the batch that comes next
    warnings.filterwarnings("ignore", message=r"You're resuming from a checkpoint that ended before the epoch ended")
    # the end of an epoch is logged whatever the interval
    warnings.filterwarnings("ignore", message=r"The number of training batches \(\d+\) is smaller than the logging")


def quieten_event_writer() -> None:
    """Leaves a full disk to the thread that trains: TensorBoard's writer raises the error there once more."""
    before = threading.excepthook

    def pass_over(ended: threading.ExceptHookArgs) -> None:
        is_writer = type(ended.thread).__name__ == "_AsyncWriterThread"
        if not (is_writer and isinstance(ended.exc_value, OSError)):
            before(ended)

    threading.excepthook = pass_over


class ProgressBar(RichProgressBar):
    """Lightning's, redrawn ten times a second with the numbers last logged.

    Its own is redrawn in every step and asks the device for the numbers each time: on a GPU, most of a small step.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=REDRAWS_PER_SECOND)
        self._drawn_at = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if trainer.is_last_batch or now - self._drawn_at > 1 / REDRAWS_PER_SECOND:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._drawn_at = now

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The losses of the last logging window and of the last validation."""
        assert isinstance(pl_module, RunModule)
        return {name: number for name, number in pl_module.last_logged.items() if name.endswith("/loss")}
