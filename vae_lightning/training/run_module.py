"""Base of the LightningModules: optimizer and learning rate, logging windows, and what checkpoints hold."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vae_lightning.runs.layout import BEST_KEY, RECORD_KEY, RunError
from vae_lightning.training.lr_schedule import Constant as ConstantLR
from vae_lightning.training.lr_schedule import LRSchedule
from vae_lightning.training.resuming import changes_of_the_loss, moved

NEED_MORE_STATE = ("amsgrad", "centered")  # settings of torch.optim that need state which other steps do not keep
log = logging.getLogger("vae_lightning")


class RunModule(L.LightningModule):
    """Base of what a run trains. `evaluate`, the work on one batch, is a function of tensors that can be compiled.

    Args:
        optimizer: takes the parameters, returns the optimizer (a Hydra partial).
        record: plain data about the run, kept in every checkpoint; enough to build the network again.
        compile: how training steps are compiled, a mode of `torch.compile` or "off"; evaluation is not compiled.
        lr_schedule: how the learning rate changes; None keeps it.
    """

    def __init__(
        self,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
        record: dict[str, Any] | None = None,
        compile: str = "off",
        lr_schedule: LRSchedule | None = None,
    ) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.record = record or {}
        self.compile_mode = compile
        self.lr_schedule = lr_schedule or ConstantLR()
        self.best_validation: dict[str, float] = {}
        self.last_logged: dict[str, float] = {}
        self._compiled_evaluate: Callable[..., Any] | None = None
        self._settings: list[dict[str, Any]] = []  # of the optimizer, per group of parameters
        self._num_steps: float = math.inf

    @property
    @abstractmethod
    def summary(self) -> str:
        """The network in a few words."""

    @abstractmethod
    def evaluate(self, *tensors: Any) -> Any:
        """Network and objective on one batch."""

    @abstractmethod
    def forget_window(self) -> None:
        """Drops what is summed over training batches and not logged yet."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.parameters())
        self._settings = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        optimizer.register_load_state_dict_pre_hook(self._keep_settings)
        if isinstance(self.lr_schedule, ConstantLR):
            return optimizer
        self._settings = [{**settings, "initial_lr": settings["lr"]} for settings in self._settings]
        self._num_steps = self.trainer.estimated_stepping_batches
        scheduler = LambdaLR(optimizer, lambda step: self.lr_schedule.factor(self._part_done(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _part_done(self, step: int) -> float:
        """The part of the run before `step`: of its steps, or of `trainer.max_time` where more of that is over.

        Checkpoints hold the time, so that a resumed run goes on. The clock is that of the first process: with clocks
        of their own, the weights of several would drift apart.
        """
        of_steps = (step + 0.5) / self._num_steps
        timers = [each for each in self.trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
        if not timers:
            return of_steps
        elapsed, remaining = timers[0].time_elapsed(), timers[0].time_remaining()
        assert remaining is not None  # Lightning makes a timer of max_time alone
        of_time = elapsed / (elapsed + remaining) if remaining > 0 else 1.0
        return max(of_steps, self.trainer.strategy.broadcast(of_time))

    def _keep_settings(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Takes moments and counts from a checkpoint, and the settings from this run."""
        groups = []
        for loaded, settings in zip(state["param_groups"], self._settings, strict=True):
            for name in NEED_MORE_STATE:
                if settings.get(name) and not loaded.get(name):
                    raise RunError(
                        f"optimizer.{name}=true: the checkpoint does not hold the state that this needs; leave it out"
                    )
            groups.append({**settings, "params": loaded["params"]})
        return {**state, "param_groups": groups}

    def on_train_start(self) -> None:
        """Sets the schedule to the step reached; the checkpoint's may be another schedule, or none."""
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, LambdaLR)
            self._num_steps = self.trainer.estimated_stepping_batches  # the number of batches may have changed
            scheduler.base_lrs = [settings["lr"] for settings in self._settings]
            scheduler.last_epoch = self.global_step
            scheduler._last_lr = [
                rate * factor(self.global_step)
                for rate, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
                group["lr"] = rate

    def on_fit_start(self) -> None:
        if self.compile_mode != "off":
            mode = None if self.compile_mode == "default" else self.compile_mode
            # not earlier: the compiled function can be neither copied nor pickled
            self._compiled_evaluate = torch.compile(self.evaluate, mode=mode, dynamic=False)

    def on_fit_end(self) -> None:
        if self.compile_mode != "off":
            self._compiled_evaluate = None
            torch._dynamo.reset()  # it compiles one function eight times at most, and a sweep may have more jobs

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips in bf16-mixed with a fused optimizer too, which Lightning refuses for a reason of 16-mixed alone."""
        if all(parameter.grad is None for parameter in self.parameters()):
            return  # a callback skips this step; clipping by value fails without gradients
        if self.trainer.precision != "bf16-mixed" or not gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        plugin = self.trainer.precision_plugin
        clip = plugin.clip_grad_by_value if gradient_clip_algorithm == "value" else plugin.clip_grad_by_norm
        clip(optimizer, gradient_clip_val)

    def evaluate_training_batch(self, *tensors: Any) -> Any:
        """`evaluate`, compiled unless `compile` is "off"."""
        if self.compile_mode != "off":
            torch.compiler.cudagraph_mark_step_begin()
        return (self._compiled_evaluate or self.evaluate)(*tensors)

    @property
    def logs_after_this_batch(self) -> bool:
        """Whether a logging window of `trainer.log_every_n_steps` steps ends here; an epoch's end ends one too."""
        if self.trainer.is_last_batch:
            return True
        loop, per_step = self.trainer.fit_loop.epoch_loop, self.trainer.accumulate_grad_batches
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        num_steps = (loop.total_batch_idx + 1) // per_step
        return (loop.batch_idx + 1) % per_step == 0 and num_steps % max(interval, 1) == 0

    def log_now(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Passes values to all loggers at once, at the number of optimizer steps done.

        Lightning's `self.log` drops windows that end with an epoch, and counts steps differently in validation.
        """
        tensors = [torch.as_tensor(value, device=self.device).float() for value in values.values()]
        numbers = dict(zip(values, torch.stack(tensors).tolist(), strict=True))  # one synchronisation for all
        for name, number in numbers.items():
            self.log(name, number, logger=False, sync_dist=True, batch_size=1)  # for callbacks that monitor
        self.last_logged |= numbers
        if not self.trainer.sanity_checking:
            for logger in self.trainer.loggers:
                # useful as a column, useless as a curve
                epoch = {} if isinstance(logger, TensorBoardLogger) else {"epoch": float(self.current_epoch + 1)}
                logger.log_metrics({**numbers, **epoch}, step=self.global_step)
        return numbers

    def remember_best(self, values: Mapping[str, float]) -> None:
        """Keeps the numbers of the epoch with the lowest validation loss, those that callbacks have logged included."""
        if not self.trainer.sanity_checking and values["val/loss"] < self.best_validation.get("val/loss", math.inf):
            others = {name: number for name, number in self.last_logged.items() if name.startswith("val/")}
            self.best_validation = {**values, **others, "val/best_epoch": float(self.current_epoch + 1)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[BEST_KEY] = self.best_validation
        checkpoint[RECORD_KEY] = self._record_with_data()

    def _record_with_data(self) -> dict[str, Any]:
        data = getattr(self.trainer, "datamodule", None)
        processes = self.trainer.world_size
        return {**self.record, "data": data.record() if data is not None else None, "processes": processes}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run keeps its best epoch, also after its folder was moved; any other run starts to count anew.

        Lightning forgets the score in a folder that was moved, and keeps the score of another objective.
        """
        keepers = [each for each in self.trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
        try:
            checkpoint["callbacks"] = states = dict(checkpoint.get("callbacks", {}))
            found = [each for each in keepers if each.state_key in states]
            kept = {each: moved(states.pop(each.state_key), str(each.dirpath)) for each in found}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.trainer.ckpt_path} is damaged: its entries about the best checkpoints cannot be read"
            ) from error
        if self.trainer.state.fn != TrainerFn.FITTING:
            return  # a test does not change the best epoch
        reason = self._why_the_best_is_not_kept(checkpoint, kept)
        self.best_validation = {} if reason else dict(checkpoint.get(BEST_KEY) or {})
        if not reason:
            states |= {each.state_key: state for each, state in kept.items()}
        elif checkpoint.get(BEST_KEY):
            rank_zero_only(log.info)(f"The best epoch is searched from here on: {reason}")

    def _why_the_best_is_not_kept(
        self, checkpoint: Mapping[str, Any], kept: Mapping[ModelCheckpoint, Mapping[str, Any]]
    ) -> str:
        """The reason in words; empty where the best epoch is kept."""
        file = Path(str(self.trainer.ckpt_path)).resolve()
        if file.parent.parent != Path(self.trainer.default_root_dir).resolve():
            return f"{file} belongs to another run"
        changes = changes_of_the_loss(checkpoint[RECORD_KEY], self._record_with_data())
        if changes:
            return f"val/loss is not comparable with earlier epochs ({', '.join(changes)})"
        best = [state["best_model_path"] for each, state in kept.items() if each.monitor and state["best_k_models"]]
        return ", ".join(f"{path} is gone" for path in best if not Path(path).is_file())
