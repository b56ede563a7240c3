"""A run that was interrupted goes on where it was: no epoch and no log twice, none lost."""

import io
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.dashboard import begin_session
from callbacks.loggers import MetricsCsv
from vae_lightning.system.whole_files import write_bytes
from vae_lightning.training.resuming import position_in


class Continuation(L.Callback):
    """Keeps loops and loggers in step with the checkpoint that training goes on from, or with its beginning.

    A checkpoint of an epoch's end is written while Lightning takes that epoch for unfinished: with `max_steps` it would
    end it a second time, and count one that was never trained. One that `max_steps` cut short it takes for finished:
    a longer run would miss the rest.

    What was logged after that moment is dropped, since those steps are trained again. What was logged before is on
    disk by then: TensorBoard's writer keeps events back for two minutes, which a killed process would take with it.
    To be called before all that log, or read how many epochs are done.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            return
        batches = position_in(checkpoint["loops"]).batches
        goes_on = trainer.max_steps == -1 or checkpoint["global_step"] < trainer.max_steps
        counted = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counter in (counted["current"], counted["total"]):
            if batches is None or not goes_on:  # the epoch has ended, be it before its last batch
                counter["completed"] = counter["processed"]
            else:
                counter["processed"] = counter["completed"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.fit_loop.state_dict()["epoch_progress"]["current"]
        if epoch["ready"] == epoch["processed"]:  # between two: nothing is begun again, which its own setter overlooks
            _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.keep_up_to(trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                begin_session(logger, trainer.global_step)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.flush()


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and then moves it there.

    Lightning's own way goes through the folder for temporary files. Where that is another file system the move is a
    copy, and a process that is killed, or a disk that is full, leaves half a checkpoint in the place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        content = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        torch.save(checkpoint, content)
        with content.getbuffer() as encoded:  # let go of at once: collected late, it would hold its owner open
            write_bytes(Path(path), encoded)


class LastValidation(L.Callback):
    """Validates after step `trainer.max_steps` too, where `trainer.check_val_every_n_epoch` asks for this epoch.

    Lightning does so at the epoch's last batch only: the steps since would count neither for best.ckpt nor for a
    search, and a run of less than an epoch would have no number at all.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # before this kind of end it validates
