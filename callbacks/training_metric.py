"""Base of a further number that is logged in training, validation and test."""

from abc import abstractmethod
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.training.vae_module import Evaluated, VAEModule


class TrainingMetric(L.Callback):
    """Logs `train/<name>`, `val/<name>` and `test/<name>`, means over images, beside the loss and as often.

    A subclass sets `name` and defines `measure`. Training logs the mean over a logging window, validation and test
    log that over the split; several processes share one mean. The number goes to metrics.csv, TensorBoard and
    metrics.json, and other callbacks can monitor it.
    """

    name: ClassVar[str]
    fits = VAEModule

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # per split: of the values that are not logged yet, and their number

    @abstractmethod
    def measure(self, evaluated: Evaluated) -> Float[Tensor, " batch"]:
        """One value per image of a batch; gradients are off."""

    def state_dict(self) -> dict[str, Any]:
        """The window under way, where training stopped within one."""
        return {split: sums for split, sums in self._sums.items() if split == "train"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums = dict(state_dict)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, VAEModule)
        self._add("train", pl_module)
        if pl_module.logs_after_this_batch:
            self._log("train", trainer, pl_module)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sums.pop("val", None)  # of a validation that was interrupted

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        self._add("val", pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log("val", trainer, pl_module)

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        self._add("test", pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log("test", trainer, pl_module)

    def _add(self, split: str, module: L.LightningModule) -> None:
        assert isinstance(module, VAEModule)
        assert module.evaluated is not None
        with torch.no_grad():
            values = self.measure(module.evaluated).float()
            sums = torch.stack([values.sum(), values.new_full((), len(values))])
        self._sums[split] = self._sums[split].to(sums.device) + sums if split in self._sums else sums

    def _log(self, split: str, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, VAEModule)
        total, count = trainer.strategy.reduce(self._sums.pop(split), reduce_op="sum")
        module.log_now({f"{split}/{self.name}": total / count})
