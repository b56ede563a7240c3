"""What a run writes to the console: its first and last words, progress, Lightning's warnings."""

import logging
import shlex
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from callbacks.dashboard import event_folders, tensorboard_command
from vae_lightning.data import FaceDataModule
from vae_lightning.runs.layout import IMAGES, LOSS_CURVES_PNG, RATE_DISTORTION_PNG, checkpoint_path
from vae_lightning.system.terminal import command
from vae_lightning.training.run_module import RunModule
from vae_lightning.training.statistics import READ_METRICS, SHOWN_METRICS

REDRAWS_PER_SECOND = 10
PICTURES = (IMAGES, LOSS_CURVES_PNG, RATE_DISTORTION_PNG)
log = logging.getLogger("vae_lightning")


def quieten_lightning() -> None:
    """Keeps Lightning's warnings, but for its hints, its advertisements, and warnings that mean nothing here."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # its own handler would print everything twice
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 on torch 2.15 and later; a user can do nothing about it
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # a resumed run writes into its own folder
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    # wherever SLURM is installed; a sweep uses it by hydra/launcher=slurm
    warnings.filterwarnings("ignore", message=r"The `srun` command is available on your system but is not used")
    # the data module resumes with the next batch
    warnings.filterwarnings("ignore", message=r"You're resuming from a checkpoint that ended before the epoch ended")
    # the end of an epoch is always logged
    warnings.filterwarnings("ignore", message=r"The number of training batches \(\d+\) is smaller than the logging")


def quieten_event_writer() -> None:
    """Silences TensorBoard's writer thread on a full disk: the thread that trains raises the same error."""
    before = threading.excepthook

    def skip_writer(ended: threading.ExceptHookArgs) -> None:
        is_writer = type(ended.thread).__name__ == "_AsyncWriterThread"
        if not (is_writer and isinstance(ended.exc_value, OSError)):
            before(ended)

    threading.excepthook = skip_writer


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, redrawn ten times a second with the numbers last logged.

    Lightning redraws it in every step and fetches the numbers from the device: on a GPU, most of a small step's time.
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
        """The losses of the last logging window and the last validation."""
        assert isinstance(pl_module, RunModule)
        return {name: number for name, number in pl_module.last_logged.items() if name.endswith("/loss")}

    def _get_train_description(self, current_epoch: int) -> str:
        """Counts from 1, as files and pictures do; Lightning counts from 0."""
        return f"{epoch_words(self.trainer, current_epoch).capitalize():{len(self.validation_description)}}"


class EpochLines(L.Callback):
    """One line after each epoch: the losses, and the time that it took."""

    def __init__(self) -> None:
        self._started = 0.0
        self._validated = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._validated = time.perf_counter(), False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, RunModule)
        shown = ("train/loss", *(("val/loss", "val/kl_nats") if self._validated else ()))
        logged = pl_module.last_logged
        numbers = ", ".join(f"{name} {logged[name]:.4g}" for name in shown if name in logged)
        seconds = time.perf_counter() - self._started
        log.info(f"{epoch_words(trainer, trainer.current_epoch)}: {numbers} · {seconds:.3g} s")


def epoch_words(trainer: L.Trainer, epoch: int) -> str:
    """`epoch 3/10`; without an end, where only steps are limited, `epoch 3`."""
    has_end = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"epoch {epoch + 1}" + (f"/{trainer.max_epochs}" if has_end else "")


def shown_progress() -> L.Callback:
    """A progress bar in a terminal; elsewhere, where none can be drawn, a line after each epoch."""
    return ProgressBar() if Console().is_terminal else EpochLines()


def describe(module: RunModule, datamodule: FaceDataModule, trainer: L.Trainer, run_dir: Path) -> None:
    """Logs what is trained on which data, and the command that shows it in TensorBoard."""
    data = datamodule.record()
    log.info(
        f"{module.summary} on {data['train_count']:,} {data['source']} images of "
        f"{data['image_size']}x{data['image_size']} ({data['val_count']:,} for validation) · "
        f"{trainer.strategy.root_device.type} {trainer.precision} · {run_dir}"
    )
    for folder in event_folders(trainer.loggers):
        log.info(f"Watch it with: {tensorboard_command(folder)}")


def say_where_to_look(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Logs the numbers that compare runs, and the commands that show and use the result."""
    kept = [name for name in ("best", "last") if checkpoint_path(run_dir, name).is_file()]
    tested = "test, best epoch" if "best" in kept else "test, last weights"  # without validation there is no best
    for split, name in (("val", "validation, best epoch"), ("test", tested)):
        if f"{split}/loss" in metrics:
            shown = [key for key in dict.fromkeys((*SHOWN_METRICS, *READ_METRICS)) if f"{split}/{key}" in metrics]
            values = (f"{key} {metrics[f'{split}/{key}']:.4g}" for key in shown)
            log.info(f"{name + ':':24}{', '.join(values)}")
    here = Path.cwd()
    run_dir = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    pictures = [str(path) for name in PICTURES if (path := run_dir / name).exists()]
    has_events = any(run_dir.glob("events.out.tfevents.*"))
    log.info(
        f"\nPictures    {'  and  '.join(pictures) or 'none: callbacks=[…] draws none'}\n"
        f"Dashboard   {tensorboard_command(run_dir) if has_events else 'none: logger=[…] is without tensorboard'}\n"
        f"Use it      {_uses(run_dir, metrics, kept)}"
    )


def _uses(run_dir: Path, metrics: dict[str, Any], kept: list[str]) -> str:
    if not kept:
        return "not possible: the run has kept no checkpoint"
    folder = shlex.quote(str(run_dir))
    if not {"val/mse", "test/mse"} & set(metrics):
        guide, score = f"guide RUN ATTRIBUTE --classifier {folder}", f"score RUN ATTRIBUTE --judge {folder}"
        return f"{command(f'vae edit {guide}')}  or  {command(f'vae edit {score}')}"
    draws = "sample" if {"val/kl_nats", "test/kl_nats"} & set(metrics) else "reconstruct"
    which = "" if "best" in kept else " --checkpoint last"
    return "  and  ".join(command(f"vae {verb} {folder}{which}") for verb in (draws, "evaluate", "explore"))
