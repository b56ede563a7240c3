"""How fast training really goes."""

import time
from typing import Any

import lightning as L

from vae_lightning.module import VAEModule


class Throughput(L.Callback):
    """Logs `train/images_per_second`: all processes together, waiting for data included, validation left out."""

    def __init__(self) -> None:
        self._started_at = 0.0
        self._num_images = 0
        self.images_seen = 0
        self.seconds_spent = 0.0

    def _restart(self) -> None:
        self._started_at = time.perf_counter()
        self._num_images = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, VAEModule)
        self._num_images += len(batch["images"]) * trainer.world_size
        if not pl_module.logs_after_this_batch:
            return
        seconds = time.perf_counter() - self._started_at
        self.images_seen += self._num_images
        self.seconds_spent += seconds
        pl_module.log_now({"train/images_per_second": self._num_images / seconds})
        self._restart()


def mean_throughput(trainer: L.Trainer) -> dict[str, float]:
    """Images per second over the whole training, validation left out."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    if not timers or not timers[0].seconds_spent:
        return {}
    return {"train/images_per_second": timers[0].images_seen / timers[0].seconds_spent}
