"""The LightningModule of attribute classifiers and factor regressors: same trainer, data and callbacks as for a VAE."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from vae_lightning.data import FaceDataModule
from vae_lightning.data.sources.source import Split
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.recognition.network import Recognizer, check_outputs
from vae_lightning.recognition.readings import (
    Readings,
    ReadSplit,
    attribute_means,
    attribute_table,
    factor_r_squared,
    factor_table,
)
from vae_lightning.scores.result import Row
from vae_lightning.training.lr_schedule import LRSchedule
from vae_lightning.training.run_module import RunModule

Batch = Mapping[str, Tensor]
NAMES_KEY = "recognizer_names"
NETWORK_PREFIX = "network."  # of its weights in a checkpoint's state_dict


@dataclass(frozen=True)
class Read:
    """Outputs and loss of one batch; only the loss has a gradient."""

    loss: Float[Tensor, ""]
    outputs: Float[Tensor, "batch outputs"]


class RecognizerModule(RunModule):
    """Trains an attribute classifier or factor regressor.

    `loss` is in nats, summed over attributes or factors, averaged over images.

    Attributes: cross-entropy. Factors: half the squared error in standard deviations, the negative log-likelihood of
    a unit normal without its constant.

    Args:
        network: what is trained.
        optimizer, record, compile, lr_schedule: as in `RunModule`.
    """

    def __init__(
        self,
        network: Recognizer,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
        record: dict[str, Any] | None = None,
        compile: str = "off",
        lr_schedule: LRSchedule | None = None,
    ) -> None:
        super().__init__(optimizer, record, compile, lr_schedule)
        self.network = network.to(memory_format=torch.channels_last)
        self.readings = torch.nn.ModuleDict({"val": Readings(), "test": Readings()})
        self.last_read: ReadSplit | None = None  # of the split last validated or tested
        self.window_loss = MeanMetric()
        self.window_loss.persistent(True)  # a checkpoint within an epoch is whole
        self._targets: dict[Split, Float[Tensor, "images outputs"]] = {}
        self.register_buffer("factor_mean", torch.zeros(network.num_outputs))
        self.register_buffer("factor_spread", torch.ones(network.num_outputs))

    factor_mean: Tensor
    factor_spread: Tensor

    @property
    def summary(self) -> str:
        num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"{type(self.network).__name__} ({num_parameters:,} parameters, "
            f"{self.network.num_outputs} {self.network.target})"
        )

    def setup(self, stage: str) -> None:
        """Takes names and targets from the data, which are open by now.

        Raises:
            ValueError: the data do not have the target.
        """
        datamodule: FaceDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        splits: tuple[Split, ...] = ("train", "val", "test")
        if self.network.target == "attributes":
            self.network.names = tuple(datamodule.attribute_names)
        else:
            known = datamodule.factors("train")
            self.network.names = () if known is None else known[0]
        if not self.network.names:
            source = datamodule.record()["source"]
            raise ValueError(f"recognizer.target={self.network.target}: {source} images have no {self.network.target}")
        check_outputs(self.network.names, self.network.target)
        if self.network.target == "factors":
            self._standardise_factors(datamodule)
            self._targets = {split: self._factors(datamodule, split) for split in splits}

    def _standardise_factors(self, datamodule: FaceDataModule) -> None:
        known = datamodule.factors("train")
        assert known is not None
        factors = torch.from_numpy(known[1])
        self.factor_mean.copy_(factors.mean(0))
        self.factor_spread.copy_(factors.std(0).clamp_min(1e-6))

    def _factors(self, datamodule: FaceDataModule, split: Split) -> Float[Tensor, "images outputs"]:
        known = datamodule.factors(split)
        assert known is not None
        return (torch.from_numpy(known[1]).float() - self.factor_mean.cpu()) / self.factor_spread.cpu()

    def targets(self, batch: Batch, split: Split) -> Float[Tensor, "batch outputs"]:
        if self.network.target == "attributes":
            return batch["attributes"].float()
        return self._targets[split][batch["index"].cpu()].to(self.device)

    def evaluate(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        targets: Float[Tensor, "batch outputs"],
    ) -> Read:
        """The network and its objective on one batch: a function of tensors, so that it can be compiled."""
        outputs = self.network(to_pixel_range(images, (0.0, 1.0))).float()
        if self.network.target == "attributes":
            per_output = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        else:
            per_output = (outputs - targets).square() / 2
        return Read(per_output.sum(1).mean(), outputs.detach())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        read: Read = self.evaluate_training_batch(batch["images"], self.targets(batch, "train"))
        self.window_loss.update(read.loss.detach(), len(batch["images"]))
        return read.loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.logs_after_this_batch:
            self.log_now({"train/loss": self.window_loss.compute()})
            self.forget_window()

    def forget_window(self) -> None:
        self.window_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._read(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._read(batch, "test")

    def _read(self, batch: Batch, split: Split) -> None:
        targets = self.targets(batch, split)
        self._readings(split).update(self.evaluate(batch["images"], targets).outputs, targets, batch["index"])

    def on_validation_epoch_end(self) -> None:
        self.remember_best(self._log_readings("val"))

    def on_test_epoch_end(self) -> None:
        self._log_readings("test")

    def _readings(self, split: Split) -> Readings:
        readings = self.readings[split]
        assert isinstance(readings, Readings)
        return readings

    def _log_readings(self, split: Split) -> dict[str, float]:
        outputs, targets, rows = self._readings(split).compute()
        read = ReadSplit(outputs.double().numpy(), targets.double().numpy(), rows.numpy())
        self._readings(split).reset()
        self.last_read = read
        if self.network.target == "attributes":
            means = {"loss": float(read.attribute_nats().mean()), **attribute_means(read)}
        else:
            means = {"loss": float(read.factor_nats().mean()), "r_squared": float(np.mean(factor_r_squared(read)))}
        return self.log_now({f"{split}/{name}": value for name, value in means.items()})

    def table(self, split: Split) -> list[Row]:
        """A row per attribute or factor of the split that was last validated or tested, best first."""
        assert self.last_read is not None
        if self.network.target == "factors":
            return factor_table(self.last_read, self.network.names)
        datamodule: FaceDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        identities, rows = datamodule.identities(split), self.last_read.rows
        people = rows if identities is None else identities[rows]
        return attribute_table(self.last_read, self.network.names, people)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[NAMES_KEY] = list(self.network.names)
