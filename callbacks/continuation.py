"""Logs of a run that was interrupted: nothing twice, nothing lost."""

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.dashboard import begin_session
from callbacks.metrics_csv import MetricsCsv


class Continuation(L.Callback):
    """Keeps the loggers in step with the checkpoint that training goes on from, or with its beginning.

    What was logged after that moment is dropped, since those steps are trained again. What was logged before is on
    disk by then: TensorBoard's writer keeps events back for two minutes, which a killed process would take with it.
    To be called before all that log.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
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
