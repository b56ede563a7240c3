"""Pictures, hyperparameters and the order of the charts on their way to TensorBoard."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from vae_lightning.pictures.grids import write_picture
from vae_lightning.recognition.module import RecognizerModule
from vae_lightning.system.terminal import command
from vae_lightning.training.run_module import RunModule
from vae_lightning.training.statistics import METRICS_OF_KL, READ_METRICS, SHOWN_METRICS
from vae_lightning.training.vae_module import VAEModule

SPEED = "images_per_second"
# a chart per metric, with its curves of training and validation
CHARTS_OF_VAES = {
    "Rate and distortion": ("kl_nats", "reconstruction_nats"),
    "Objective": ("loss", "elbo_nats", "bits_per_dim"),
    "Latents, pixels, speed": ("active_units", "beta", "capacity_nats", "mse", "sigma", "perceptual", SPEED),
}
CHARTS_OF_RECOGNIZERS = {"Reading": READ_METRICS[1:], "Objective and speed": ("loss", SPEED)}


def tensorboard_loggers(loggers: Iterable[Logger]) -> list[TensorBoardLogger]:
    return [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]


def event_folders(loggers: Iterable[Logger]) -> list[Path]:
    """The folders of TensorBoard's events; empty without its logger."""
    return [Path(logger.log_dir) for logger in tensorboard_loggers(loggers)]


def tensorboard_command(run_dir: Path) -> str:
    """The command that shows a run beside the other jobs of its sweep, or beside earlier runs."""
    folder, here = run_dir.absolute().parent, Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return command(shlex.join(["tensorboard", "--logdir", str(shown)]))


def begin_session(logger: TensorBoardLogger, step: int) -> None:
    """Makes TensorBoard drop what an earlier process logged after this step, because those steps are trained again."""
    start = SessionLog(status=SessionLog.START)
    logger.experiment._get_file_writer().add_event(Event(step=step + 1, session_log=start))


def order_charts(loggers: Iterable[Logger], module: RunModule) -> None:
    """Lays out TensorBoard's custom scalars, rate and distortion first; to be called once per run."""
    if isinstance(module, VAEModule):
        levels = [] if module.model.is_flat else [f"kl_nats_{level.name}" for level in module.model.latent_levels]
        charts = CHARTS_OF_VAES | ({"KL of each level": tuple(levels)} if levels else {})
        measured = _measured_by_vae(module) | {*levels}
    else:
        assert isinstance(module, RecognizerModule)
        reads_factors = module.network.target == "factors"
        charts = CHARTS_OF_RECOGNIZERS
        measured = {name for name in READ_METRICS if name == "loss" or (name == "r_squared") == reads_factors} | {SPEED}
    layout = {
        category: {name: ["Multiline", [f"train/{name}$", f"val/{name}$"]] for name in names if name in measured}
        for category, names in charts.items()
    }
    for logger in tensorboard_loggers(loggers):
        logger.experiment.add_custom_scalars(layout)


def _measured_by_vae(module: VAEModule) -> set[str]:
    """The metrics that this objective has; charts of the others would stay empty."""
    is_there = {
        **dict.fromkeys((*METRICS_OF_KL, "beta"), module.model.has_prior),
        "capacity_nats": module.model.has_prior and module.objective.has_capacity,
        "sigma": module.objective.reconstruction.sigma(module.model.pixel_range) is not None,
        "perceptual": module.objective.perceptual is not None,
    }
    return {name for names in CHARTS_OF_VAES.values() for name in names if is_there.get(name, True)}


def save_picture(trainer: L.Trainer, path: Path, tag: str, picture: UInt8[np.ndarray, "height width 3"]) -> None:
    """Writes a PNG and shows the same bytes in TensorBoard; `add_image` would encode the picture once more.

    Args:
        trainer: gives the loggers, and the number of optimizer steps done.
        path: of the PNG.
        tag: name of TensorBoard's card; what stands before the slash groups cards.
        picture: RGB.
    """
    png = write_picture(path, picture)
    height, width = picture.shape[:2]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    for logger in tensorboard_loggers(trainer.loggers):
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        logger.experiment._get_file_writer().add_summary(summary, trainer.global_step)


def log_hyperparameters(
    plain: Mapping[str, Any], swept: Mapping[str, str], trainer: L.Trainer, metrics: Mapping[str, Any]
) -> None:
    """TensorBoard's HParams page: what a person varies against what came out.

    Args:
        plain: the run's resolved configuration.
        swept: overrides that tell a sweep's jobs apart, shown beside the usual ones.
        trainer: with the run's loggers.
        metrics: the final ones.
    """

    def class_name(group: str) -> str:
        return str(plain[group]["_target_"]).rpartition(".")[2]

    # TensorBoard sorts them and shows the first five: those that a sweep is about
    usual = {"lr": plain["optimizer"]["lr"], "seed": plain["seed"], "size": plain["data"]["image_size"]}
    if plain["recognizer"]:
        usual |= {"recognizer": class_name("recognizer"), "target": plain["recognizer"]["target"]}
    else:
        usual |= {
            "beta": plain["beta"],
            "latent_dim": plain["model"]["latent_dim"],
            "model": class_name("model"),
            "reconstruction": class_name("reconstruction"),
            "schedule": class_name("beta_schedule"),
        }
    shown_already = {"beta", "model", "model.latent_dim", "optimizer.lr", "reconstruction", "beta_schedule", "seed"}
    others = {key: value for key, value in swept.items() if key not in {*shown_already, "data.image_size"}}
    split = "test" if "test/loss" in metrics else "val"
    shown = READ_METRICS if plain["recognizer"] else SHOWN_METRICS
    final = {f"{split}/{name}": metrics[f"{split}/{name}"] for name in shown if f"{split}/{name}" in metrics}
    for logger in tensorboard_loggers(trainer.loggers):
        known = {
            name: value for name, value in {**usual, **others}.items() if value is not None
        }  # a ladder's latent_dim
        for summary in hparams(known, final):  # the metrics themselves have been logged already
            logger.experiment._get_file_writer().add_summary(summary)
        logger.finalize("success")
