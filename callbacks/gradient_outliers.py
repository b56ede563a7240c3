"""Skips steps whose gradient is far larger than those of recent steps."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import lightning as L
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from callbacks.non_finite_loss import TO_TRY, NonFiniteLossError
from vae_lightning.training.run_module import RunModule

WEIGHT = 0.01  # of one norm in the running mean and spread: they remember about a hundred
LEAST_SPREAD = 0.1  # of log norms: norms that hardly differ, as of one batch again and again, make no narrow limit
STATE = ("num_seen", "mean", "variance", "num_skipped", "non_finite_in_a_row")  # in checkpoints
log = logging.getLogger("vae_lightning")


class GradientOutliers(L.Callback):
    """Leaves weights and moments as they are in a step whose gradient norm is far out.

    All gradients become None then, because Adamax and momentum would move on zeros. The step counts: learning-rate
    schedule, mean of the weights and logging go on. The norm is that before clipping, with accumulated gradients that
    of their sum, with several processes that of the whole batch. Looking at it means waiting for a GPU in every step.

    A norm is far out where its logarithm exceeds the running mean of logarithms by more than `spreads` times their
    running standard deviation, or where it is not finite although the loss is. A skipped norm counts as one at the
    limit, so that the limit follows where gradients have become larger for good.
    Source of the idea, with a fixed limit: Child 2021, arXiv:2011.10650.

    Args:
        spreads: how many standard deviations above the mean are far out.
        warmup_steps: at the beginning, in which only norms that are not finite are skipped.
        most_non_finite: such norms in a row that are skipped; one more stops training.
    """

    def __init__(self, spreads: float = 5.0, warmup_steps: int = 100, most_non_finite: int = 10) -> None:
        for name, value, least in (("warmup_steps", warmup_steps, 2), ("most_non_finite", most_non_finite, 0)):
            if value < least:
                raise ValueError(f"callbacks.gradient_outliers.{name}={value}: must be at least {least}")
        if not math.isfinite(spreads) or spreads <= 0:
            raise ValueError(f"callbacks.gradient_outliers.spreads={spreads}: must be a number above 0, for example 5")
        self.spreads = spreads
        self.warmup_steps = warmup_steps
        self.most_non_finite = most_non_finite
        self.num_seen = 0  # finite norms
        self.mean, self.variance = 0.0, 0.0  # of their logarithms
        self.num_skipped = 0
        self.non_finite_in_a_row = 0

    def check_trainer(self, settings: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: gradients are scaled, in float16.
        """
        if str(settings.get("precision")) in ("16", "16-mixed"):
            raise ValueError(
                "callbacks=[gradient_outliers] with trainer.precision=16-mixed: gradients are scaled there, and the "
                "scaler skips steps itself; take bf16-mixed or 32-true, or leave gradient_outliers out"
            )

    @property
    def limit(self) -> float:
        """The largest logarithm of a norm that is not far out."""
        if self.num_seen < self.warmup_steps:
            return math.inf
        return self.mean + self.spreads * max(math.sqrt(self.variance), LEAST_SPREAD)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        parameters = [parameter for parameter in pl_module.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]).item()
        if not self.is_far_out(norm):
            return
        for parameter in parameters:
            parameter.grad = None
        self.num_skipped += 1
        if self.non_finite_in_a_row > self.most_non_finite:
            raise NonFiniteLossError(
                f"The norm of the gradient is {norm} in epoch {trainer.current_epoch + 1}, at step "
                f"{trainer.global_step}, as in the {self.most_non_finite} steps before it, which were skipped. {TO_TRY}"
            )

    def is_far_out(self, norm: float) -> bool:
        """Whether the norm of a step is to be skipped; the next ones are compared with it too."""
        if not math.isfinite(norm):
            self.non_finite_in_a_row += 1
            return True
        self.non_finite_in_a_row = 0
        value, limit = math.log(max(norm, 1e-30)), self.limit  # a gradient of zeros has no logarithm
        self._count(min(value, limit))
        return value > limit

    def _count(self, value: float) -> None:
        """The first norms have equal weights, later ones an exponentially falling one."""
        self.num_seen += 1
        weight = max(1 / self.num_seen, WEIGHT)
        change = value - self.mean
        self.mean += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change**2)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, RunModule)
        if pl_module.logs_after_this_batch:
            pl_module.log_now({"train/skipped_steps": float(self.num_skipped)})

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.num_skipped and trainer.is_global_zero:
            log.warning(
                f"{self.num_skipped:,} of {trainer.global_step:,} steps were skipped, because their gradients were far "
                "larger than those before, or not finite (callbacks.gradient_outliers.spreads="
                f"{self.spreads:g})"
            )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, name, state_dict[name])
