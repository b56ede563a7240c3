"""A running mean of the weights, which everything but the training steps uses."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class EMA(WeightAveraging):
    """mean = d * mean + (1 - d) * weights after each optimizer step, with d = min(decay, (1 + n) / (10 + n)) after n.

    Source of the warm-up: TensorFlow's ExponentialMovingAverage with `num_updates`. With `decay` alone, the mean of a
    short run is mostly the weights of its first step: 0.999**375 is 69 %.

    Validation, its pictures and every checkpoint's `state_dict` use the mean of the weights. A checkpoint keeps the raw
    weights, which training uses, beside it.

    Lightning's `WeightAveraging` tests raw weights after a fit, because loading a checkpoint restores them whatever it
    is loaded for. A checkpoint that is saved because validation was interrupted has raw weights and mean exchanged. And
    a run that was interrupted after its last step resumes with the raw weights.

    Args:
        decay: weight of the old mean in each step once it is warm; 0.999 remembers some thousand steps, and is
            reached after 9,000.
    """

    is_called_last = True  # it exchanges the weights back in the hook in which pictures are drawn

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay}: must lie between 0 and 1, for example 0.999")

        def update(means: list[Tensor], weights: list[Tensor], num_averaged: Tensor | int) -> None:
            count = int(num_averaged)
            for mean, newest in zip(means, weights, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(newest, 1 - min(decay, (1 + count) / (10 + count)))
                else:
                    mean.copy_(newest)  # a counter, as batch normalisation has

        super().__init__(multi_avg_fn=update)
        self._is_exchanged = False

    def _swap_models(self, pl_module: L.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_exchanged = not self._is_exchanged

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._is_exchanged:
            self._swap_models(pl_module)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            if epochs == trainer.max_epochs or checkpoint["global_step"] == trainer.max_steps:
                self._copy_average_to_current(pl_module)  # no step follows, and so no `on_train_end`
