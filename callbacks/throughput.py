"""How fast training really goes."""

import time
from typing import Any

import lightning as L

from vae_lightning.training.run_module import RunModule

WARM_UP_BATCHES = 3  # of a compiled step: it is compiled in the first, and recorded as a CUDA graph in the next two


class Throughput(L.Callback):
    """Logs `train/images_per_second`: all processes together, waiting for data included, validation left out.

    The first batches of a compiled run, in which it is compiled, are left out too.

    What it counts is in the checkpoints: a run that was interrupted tells the time of all its parts.
    """

    def __init__(self) -> None:
        self._started_at = 0.0
        self._num_images = 0
        self._batches_to_warm_up = 0
        self.images_seen = 0
        self.seconds_spent = 0.0
        self._fit_started_at = time.perf_counter()
        self._seconds_before = 0.0

    @property
    def fit_seconds(self) -> float:
        """The whole fit up to now, validation and pictures included."""
        return self._seconds_before + time.perf_counter() - self._fit_started_at

    def state_dict(self) -> dict[str, Any]:
        """With the window under way, where training was stopped within one."""
        seconds = time.perf_counter() - self._started_at if self._num_images else 0.0
        return {
            "images_seen": self.images_seen + self._num_images,
            "seconds_spent": self.seconds_spent + seconds,
            "fit_seconds": self.fit_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images_seen, self.seconds_spent = state_dict["images_seen"], state_dict["seconds_spent"]
        self._seconds_before = state_dict["fit_seconds"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, RunModule)
        self._fit_started_at = time.perf_counter()
        self._batches_to_warm_up = 0 if pl_module.compile_mode == "off" else WARM_UP_BATCHES

    def _restart(self) -> None:
        self._started_at = time.perf_counter()
        self._num_images = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()  # an epoch that goes on has no start

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, RunModule)
        if self._batches_to_warm_up:
            self._batches_to_warm_up -= 1
            self._restart()
            return
        self._num_images += len(batch["images"]) * trainer.world_size
        if not pl_module.logs_after_this_batch:
            return
        seconds = time.perf_counter() - self._started_at
        self.images_seen += self._num_images
        self.seconds_spent += seconds
        pl_module.log_now({"train/images_per_second": self._num_images / seconds})
        self._restart()


def times_of_fit(trainer: L.Trainer) -> dict[str, float]:
    """After a fit: its seconds, and images per second with validation left out; empty without the callback."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    if not timers or not timers[0].seconds_spent:
        return {}
    timer = timers[0]
    return {"seconds": timer.fit_seconds, "train/images_per_second": timer.images_seen / timer.seconds_spent}
