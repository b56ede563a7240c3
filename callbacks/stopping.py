"""Stops training after Ctrl-C or SIGTERM at a moment from which it can resume exactly."""

import logging
import os
import re
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vae_lightning.system.interruption import is_repeated

log = logging.getLogger("vae_lightning")


class StopAfterBatch(L.Callback):
    """The first Ctrl-C or SIGTERM stops training after the step under way; an epoch's last step also validates.

    Lightning would stop anywhere in a batch or in a validation, and training could not resume exactly from there. The
    second signal stops at once, without a checkpoint; a key that is held down counts as one signal. With several
    processes, which have to stop at the same batch, Lightning's own handling stays.

    `asked_by` is the signal's number, None before any signal.
    """

    def __init__(self) -> None:
        self.asked_by: int | None = None
        self._earlier: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.asked_by = None
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if under_submitit():
            signals.append(requeue_signal())
        self._earlier = {signum: signal.signal(signum, self._ask) for signum in signals}

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if is_repeated():
            return
        if self.asked_by is None:
            self.asked_by = signum
            log.warning(f"{signal.Signals(signum).name}: stopping after this step; once more stops at once")
            return
        earlier = self._earlier[signum]
        self._restore()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        if signum == signal.SIGTERM:
            raise SystemExit(128 + signum)
        if callable(earlier):
            earlier(signum, frame)

    def _restore(self) -> None:
        for signum, handler in self._earlier.items():
            signal.signal(signum, handler)
        self._earlier = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        has_stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        validates_now = trainer.is_last_batch or (batch_idx + 1) % (trainer.val_check_batch or 1) == 0
        if self.asked_by is not None and has_stepped and not validates_now:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.asked_by is not None:
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        """Makes Lightning raise SIGTERMException once all hooks of the batch have run."""
        trainer._signal_connector.received_sigterm = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the end of the newest epoch, or where a signal stopped training.

    It is written at no other moment, because training could not resume exactly from a batch that failed half-way.
    """

    def _should_save_on_train_epoch_end(self, trainer: L.Trainer) -> bool:
        return True  # also after an epoch without validation (trainer.check_val_every_n_epoch)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and not trainer.validating:
            super().on_exception(trainer, pl_module, exception)


def under_submitit() -> bool:
    """Whether SLURM runs this process, by submitit."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def requeue_signal() -> signal.Signals:
    """The signal that makes submitit requeue the job."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def requeue() -> None:
    """Makes submitit requeue the job and ends the process, unless a person has cancelled the job.

    Without this, SLURM counts a job that ends after SIGTERM as completed.
    """
    if not _was_cancelled(os.environ.get("SLURM_JOB_ID", "")):
        signal.raise_signal(requeue_signal())


def _was_cancelled(job: str) -> bool:
    """A preempted job still runs or has a preemption time; a cancelled job has neither."""
    try:
        asked = subprocess.run(["scontrol", "show", "job", job, "-o"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # unknown: losing a place in the queue would be the worse mistake
        return False
    fields = dict(re.findall(r"(JobState|PreemptTime)=(\S+)", asked.stdout))
    return fields.get("JobState", "RUNNING") != "RUNNING" and fields.get("PreemptTime", "None") == "None"
