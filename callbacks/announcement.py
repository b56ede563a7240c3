"""What a run says before it trains and after it: what it is, how to watch it, where its results are."""

import logging
import shlex
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.dashboard import event_folders, tensorboard_command
from vae_lightning.configuration import READ_METRICS, SHOWN_METRICS
from vae_lightning.data import FaceDataModule
from vae_lightning.run_module import RunModule

PICTURES = ("images", "loss_curves.png", "rate_distortion.png")  # in a run folder
log = logging.getLogger("vae_lightning")


def describe(module: RunModule, datamodule: FaceDataModule, trainer: L.Trainer, run_dir: Path) -> None:
    """What is about to happen, and how to watch it."""
    data = datamodule.record()
    log.info(
        f"{module.summary} on {data['train_count']:,} {data['source']} images of "
        f"{data['image_size']}x{data['image_size']} ({data['val_count']:,} for validation) · "
        f"{trainer.strategy.root_device.type} {trainer.precision} · {run_dir}"
    )
    for folder in event_folders(trainer.loggers):
        log.info(f"Watch it with: {tensorboard_command(folder)}")


def say_where_to_look(run_dir: Path, metrics: dict[str, Any]) -> None:
    """The last words of a run: the numbers that compare runs, and the commands that show the pictures."""
    kept = [name for name in ("best", "last") if (run_dir / "checkpoints" / f"{name}.ckpt").is_file()]
    tested = "test, best epoch" if "best" in kept else "test, last weights"  # without validation none is the best
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
        return f"vae edit guide RUN ATTRIBUTE --classifier {folder}  or  vae edit score RUN ATTRIBUTE --judge {folder}"
    draws = "sample" if {"val/kl_nats", "test/kl_nats"} & set(metrics) else "reconstruct"
    which = "" if "best" in kept else " --checkpoint last"
    return "  and  ".join(f"vae {verb} {folder}{which}" for verb in (draws, "evaluate", "explore"))
