"""Pictures and hyperparameters on their way to TensorBoard."""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams

from vae_lightning.configuration import READ_METRICS, SHOWN_METRICS


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
