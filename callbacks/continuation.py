"""An interrupted run resumes where it stopped: no epoch and no logged number is repeated or lost."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.dashboard import begin_session, tensorboard_loggers
from callbacks.loggers import MetricsCsv
from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.system.whole_files import write_bytes
from vae_lightning.training.resuming import position_in


class Continuation(L.Callback):
    """Sets loops and loggers to the point at which training resumes, or to its beginning.

    Lightning writes a checkpoint at an epoch's end while it still counts the epoch as unfinished: with `max_steps` it
    would end the epoch a second time, and count one that was never trained. An epoch that `max_steps` cut short counts
    as finished: a longer run would miss the rest of it.

    Numbers that were logged after the checkpoint are dropped, because those steps are trained again. Numbers that were
    logged before it are flushed to disk: TensorBoard's writer holds events back for two minutes, and a killed process
    would lose them. Lightning has to call this before the callbacks that log, or that count epochs.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        batches = position_in(checkpoint["loops"]).batches
        has_steps_left = trainer.max_steps == -1 or checkpoint["global_step"] < trainer.max_steps
        counted = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counter in (counted["current"], counted["total"]):
            if batches is None or not has_steps_left:  # the epoch has ended, even if before its last batch
                counter["completed"] = counter["processed"]
            else:
                counter["processed"] = counter["completed"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.fit_loop.state_dict()["epoch_progress"]["current"]
        if epoch["ready"] == epoch["processed"]:  # between two epochs nothing restarts, which Lightning overlooks
            _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.keep_up_to(trainer.global_step)
        for logger in tensorboard_loggers(trainer.loggers):
            begin_session(logger, trainer.global_step)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            for logger in tensorboard_loggers(trainer.loggers):
                logger.experiment.flush()


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint as a whole, beside its place first, then renamed; reads it as all of the package do.

    Lightning writes into the folder for temporary files. Where that is another file system, the move is a copy, and a
    killed process or a full disk leaves half a checkpoint in the place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        content = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        torch.save(checkpoint, content)
        with content.getbuffer() as encoded:  # released at once: a view that is collected late keeps `content` open
            write_bytes(Path(path), encoded)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """
        Raises:
            RunError: the file is damaged; Lightning would pass on PyTorch's advice to read it unsafely.
        """
        return read_checkpoint(Path(path))


class LastValidation(L.Callback):
    """Validates after step `trainer.max_steps` too, where `trainer.check_val_every_n_epoch` asks for this epoch.

    Lightning validates after the epoch's last batch only: later steps would count neither for best.ckpt nor for a
    search, and a run of less than an epoch would have no validation at all.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops for this reason
