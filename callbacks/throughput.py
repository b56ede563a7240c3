"""Measures the speed of training."""

import time
from typing import Any

import lightning as L

from vae_lightning.training.run_module import RunModule

WARM_UP_BATCHES = 3  # the first compiles the step, the next two record it as a CUDA graph


class Throughput(L.Callback):
    """Logs `train/images_per_second` of all processes together, with the wait for data and without validation.

    The first batches of a compiled run, which compile it, do not count. Checkpoints keep the counts, so that a resumed
    run reports the time of all its parts.
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
        """Seconds of the whole fit until now, validation and pictures included."""
        return self._seconds_before + time.perf_counter() - self._fit_started_at

    def state_dict(self) -> dict[str, Any]:
        """The counts, with the window under way where training stopped within one."""
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
        self._restart()  # a resumed epoch does not start again

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
    """Seconds of a finished fit, and images per second without validation; empty without the callback."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]  # type: ignore[attr-defined]
    if not timers or not timers[0].seconds_spent:
        return {}
    timer = timers[0]
    return {"seconds": timer.fit_seconds, "train/images_per_second": timer.images_seen / timer.seconds_spent}
