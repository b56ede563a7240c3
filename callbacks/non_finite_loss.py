"""Stops a run whose loss is not finite, and names the images."""

from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.base import datamodule_of, is_validation_of_training
from vae_lightning.runs.layout import CHECKPOINTS, checkpoint_path
from vae_lightning.system.whole_files import replacing
from vae_lightning.training.run_module import RunModule

NAMES_SHOWN = 8
SAVED_AS = "before_non_finite_loss.ckpt"
TO_TRY = (
    "Things to try: a smaller optimizer.lr, trainer.gradient_clip_val=100, trainer.precision=32-true, "
    "model.logvar_clamp=[-4,4]."
)


class NonFiniteLossError(RuntimeError):
    """The loss or a weight is not finite; the message says where, on which images, and what to try."""


class NonFiniteLoss(L.Callback):
    """Checks each training loss: on a CPU before the optimizer step, on a GPU once per logging window.

    A check waits for the device, so a GPU is asked only when numbers are fetched anyway. `last.ckpt` stays as the last
    whole epoch left it. Where the weights are still finite, they are saved beside it.

    A step with a finite loss can make weights infinite too: they are checked before each validation and at the end of
    each epoch, before a checkpoint is written.

    Args:
        run_dir: the run folder; `non_finite_batch.txt` in it gets the names of all images of the batch.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = Path(run_dir)
        self._window: list[tuple[Tensor, Tensor, int]] = []  # rows of the training split, loss, optimizer step
        self._rows: Tensor | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._window.clear()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._rows = batch["index"]

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        assert self._rows is not None
        if loss.device.type != "cpu":
            self._window.append((self._rows, loss.detach(), trainer.global_step))
        elif not loss.isfinite():
            self._stop(trainer, self._rows, loss, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._window and pl_module.logs_after_this_batch:
            losses = torch.stack([loss for _, loss, _ in self._window])
            if not losses.isfinite().all():
                first = int(losses.isfinite().logical_not().nonzero()[0])
                self._stop(trainer, *self._window[first])
            self._window.clear()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_validation_of_training(trainer):
            self._check_weights(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validation_of_training(trainer):
            return
        loss = trainer.callback_metrics["val/loss"]
        if not loss.isfinite():
            raise NonFiniteLossError(
                f"The validation loss is {loss.item()} in epoch {trainer.current_epoch + 1}. {self._what_is_left()} "
                f"{TO_TRY}"
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not has_finite_weights(module):
            raise NonFiniteLossError(
                f"The weights are not finite in epoch {trainer.current_epoch + 1}, after step "
                f"{trainer.global_step - 1}. {self._last_epoch()}. {TO_TRY}"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        has_good_weights = has_finite_weights(pl_module)
        if has_good_weights and not isinstance(exception, NonFiniteLossError):
            return
        for checkpoint in trainer.checkpoint_callbacks:
            assert isinstance(checkpoint, ModelCheckpoint)
            checkpoint.save_on_exception = False  # it would replace good weights
        if has_good_weights:
            assert isinstance(pl_module, RunModule)
            pl_module.forget_window()  # it contains the bad batch
            trainer.save_checkpoint(self.run_dir / CHECKPOINTS / SAVED_AS)

    def _stop(self, trainer: L.Trainer, rows: Tensor, loss: Tensor, step: int) -> NoReturn:
        names = datamodule_of(trainer).image_names("train", rows.cpu())
        with replacing(self.run_dir / "non_finite_batch.txt") as unfinished:
            unfinished.write_text("\n".join(names) + "\n", encoding="utf-8")
        more = f" and {len(names) - NAMES_SHOWN} more (all in non_finite_batch.txt)" if len(names) > NAMES_SHOWN else ""
        raise NonFiniteLossError(
            f"The loss is {loss.item()} in epoch {trainer.current_epoch + 1}, at step {step}, on the images "
            f"{', '.join(names[:NAMES_SHOWN])}{more}. {self._what_is_left()} {TO_TRY}"
        )

    def _what_is_left(self) -> str:
        return f"{self._last_epoch()}; the weights of this moment, if they are finite, are in {SAVED_AS}."

    def _last_epoch(self) -> str:
        last = checkpoint_path(self.run_dir)
        return f"{last} holds the last whole epoch" if last.is_file() else "No epoch was finished yet"


def has_finite_weights(module: L.LightningModule) -> bool:
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all())
