"""Pictures, hyperparameters and the order of the charts on their way to TensorBoard."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

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


def event_folders(loggers: Iterable[Logger]) -> list[Path]:
    """Where TensorBoard's events lie; empty without its logger."""
    return [Path(logger.log_dir) for logger in loggers if isinstance(logger, TensorBoardLogger)]


def tensorboard_command(run_dir: Path) -> str:
    """What to type to see a run beside its neighbours: the other jobs of a sweep, or the runs before it."""
    folder, here = run_dir.absolute().parent, Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return command(shlex.join(["tensorboard", "--logdir", str(shown)]))


def begin_session(logger: TensorBoardLogger, step: int) -> None:
    """Makes TensorBoard drop what an earlier process has logged of later steps than this: they come again."""
    start = SessionLog(status=SessionLog.START)
    logger.experiment._get_file_writer().add_event(Event(step=step + 1, session_log=start))


def order_charts(loggers: Iterable[Logger], module: RunModule) -> None:
    """Lays out TensorBoard's custom scalars: rate and distortion first. To be written once into each run's events."""
    if isinstance(module, VAEModule):
        charts, measured = CHARTS_OF_VAES, _measured_by_vae(module)
    else:
        assert isinstance(module, RecognizerModule)
        reads_factors = module.network.target == "factors"
        charts = CHARTS_OF_RECOGNIZERS
        measured = {name for name in READ_METRICS if name == "loss" or (name == "r_squared") == reads_factors} | {SPEED}
    layout = {
        category: {name: ["Multiline", [f"train/{name}$", f"val/{name}$"]] for name in names if name in measured}
        for category, names in charts.items()
    }
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars(layout)


def _measured_by_vae(module: VAEModule) -> set[str]:
    """Without those that this objective does not have: their charts would stay empty."""
    is_there = {
        **dict.fromkeys((*METRICS_OF_KL, "beta"), module.model.has_prior),
        "capacity_nats": module.model.has_prior and module.objective.has_capacity,
        "sigma": module.objective.reconstruction.sigma(module.model.pixel_range) is not None,
        "perceptual": module.objective.perceptual is not None,
    }
    return {name for names in CHARTS_OF_VAES.values() for name in names if is_there.get(name, True)}


def show_picture(loggers: Iterable[Logger], tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
    """Hands a PNG that is already encoded to every TensorBoard logger; `add_image` would encode it once more.

    Args:
        loggers: of the trainer; others than TensorBoard's are passed over.
        tag: the card's name; what stands before the slash groups cards.
        png: the encoded picture.
        size: (height, width) in pixels.
        step: number of optimizer steps done.
    """
    image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=png)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment._get_file_writer()
            writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


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
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for summary in hparams({**usual, **others}, final):  # the metrics themselves have been logged already
                logger.experiment._get_file_writer().add_summary(summary)
            logger.finalize("success")
