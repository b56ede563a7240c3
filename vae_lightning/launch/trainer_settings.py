"""Refuses settings of Lightning's Trainer that a run cannot use, before any data is read."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.system.names import not_allowed

if TYPE_CHECKING:  # torch is imported inside the function: --help answers at once
    import lightning as L

    from vae_lightning.training.run_module import RunModule

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")  # others split weights, or lose the metrics
SET_ELSEWHERE = {
    "callbacks": "callbacks=[…]",
    "logger": "logger=[…]",
    "default_root_dir": "hydra.run.dir=…",
}
# allowed values, and why: with others the run would ignore the setting, or fail later
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_distributed_sampler": ((False,), "the data module shares the batches out itself"),
    "reload_dataloaders_every_n_epochs": ((0,), "the batches are a function of seed and epoch already"),
    "overfit_batches": ((0, 0.0), "every epoch is shuffled here; take data.train_size=…"),
    "fast_dev_run": ((False, 0), "it writes no checkpoint and no number; take debug=smoke"),
    "barebones": ((False,), "it measures nothing and keeps nothing; vae bench measures the speed"),
}
AT_LEAST = {
    **{"max_epochs": -1, "max_steps": -1, "num_sanity_val_steps": -1},  # -1: without a limit, or all
    **{"min_epochs": 0, "min_steps": 0},
    **{"log_every_n_steps": 1, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "num_nodes": 1},
}
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval")


def check_trainer_settings(settings: Mapping[str, Any]) -> None:
    """Checks what can be checked without building a trainer.

    Raises:
        ConfigError: with the allowed values, or what to set instead.
    """
    for name, instead in SET_ELSEWHERE.items():
        if name in settings:
            raise ConfigError(f"trainer.{name} has no effect: set {instead}")
    for name, (allowed, reason) in FIXED.items():
        if name in settings and settings[name] not in allowed:
            raise ConfigError(f"trainer.{name}={settings[name]}: leave it out; {reason}")
    for name, allowed in (("accelerator", ACCELERATORS), ("strategy", STRATEGIES)):
        if settings.get(name, "auto") not in allowed:
            raise ConfigError(not_allowed(f"trainer.{name}", settings[name], allowed))
    check_devices(settings)
    _check_numbers(settings)


def check_devices(settings: Mapping[str, Any]) -> None:
    """Checks `trainer.devices` without asking what this machine has.

    Raises:
        ConfigError: neither a number of devices nor their indices.
    """
    devices = settings.get("devices", "auto")
    named = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    if isinstance(named, str | int):
        is_number = str(named).removeprefix("-").isdecimal()
        fits = named == "auto" or (is_number and (int(named) == -1 or int(named) > 0))
    else:
        indices = [str(index).strip() for index in named if str(index).strip()] if isinstance(named, Sequence) else []
        fits = bool(indices) and all(map(str.isdecimal, indices)) and len(set(indices)) == len(indices)
    if not fits:
        raise ConfigError(
            f"trainer.devices={devices}: must be how many (1 or more, -1 or auto for all), or their indices ([0,1])"
        )


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for name, least in AT_LEAST.items():
        number = settings.get(name)
        if number is not None and number < least:
            raise ConfigError(f"trainer.{name}={number}: must be at least {least}")
    for name in LIMITS:
        number = settings.get(name)
        if isinstance(number, int | float) and not _is_limit(number):
            raise ConfigError(f"trainer.{name}={number}: must be a number of batches, or a part of them, 0.0 to 1.0")
    if settings.get("val_check_interval") == 0:
        raise ConfigError("trainer.val_check_interval=0: must be above 0; trainer.limit_val_batches=0 validates never")
    if settings.get("gradient_clip_algorithm") and settings.get("gradient_clip_val") is None:
        raise ConfigError("trainer.gradient_clip_algorithm has no effect alone: set trainer.gradient_clip_val as well")
    _check_length(settings)


def _is_limit(number: int | float) -> bool:
    return number >= 0 and (isinstance(number, int) or number <= 1)


def _check_length(settings: Mapping[str, Any]) -> None:
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if settings.get(name) == 0:
            raise ConfigError(f"trainer.{name}={settings[name]}: nothing would be trained; it must be above 0")
    at_least, at_most = settings.get("min_epochs"), settings.get("max_epochs")
    if at_least is not None and at_most is not None and 0 <= at_most < at_least:
        raise ConfigError(f"trainer.min_epochs={at_least} with trainer.max_epochs={at_most}: the first is larger")
    if at_most is None and settings.get("max_steps", -1) == -1 and settings.get("max_time") is None:
        raise ConfigError(
            "trainer.max_epochs=null: Lightning would train for 1,000 epochs. Give their number, -1 for a run without "
            "end, or trainer.max_steps"
        )


def check_trainer(module: "RunModule", trainer: "L.Trainer", sync_batchnorm: bool) -> None:
    """Checks settings that would fail only after the data have been read.

    Raises:
        ValueError: gradients cannot be clipped like this, these processes cannot share batch normalisation, or a
            schedule has no end.
    """
    from lightning.pytorch.callbacks import Timer
    from torch.nn.modules.batchnorm import _BatchNorm

    from vae_lightning.training.lr_schedule import Constant as ConstantLR

    clip = trainer.gradient_clip_val
    if clip is not None and not (math.isfinite(clip) and clip >= 0):
        raise ValueError(f"trainer.gradient_clip_val={clip}: must be a number above 0, or null for no clipping")
    if clip and trainer.precision == "16-mixed" and getattr(module.make_optimizer, "keywords", {}).get("fused"):
        raise ValueError(
            f"trainer.gradient_clip_val={clip} with trainer.precision=16-mixed: a fused optimizer takes the scale off "
            "gradients too late to clip them. Set optimizer.fused=false, or take bf16-mixed"
        )
    is_timed = any(isinstance(each, Timer) for each in trainer.callbacks)  # type: ignore[attr-defined]
    has_end = trainer.max_epochs != -1 or trainer.max_steps != -1 or is_timed
    if not has_end and not isinstance(module.lr_schedule, ConstantLR):
        raise ValueError(
            "lr_schedule=decay ends with the run, and trainer.max_epochs=-1 never does: give it a number, or "
            "trainer.max_steps or max_time, or take lr_schedule=constant"
        )
    has_batch_norm = any(isinstance(part, _BatchNorm) for part in module.modules())
    if sync_batchnorm and has_batch_norm and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        raise ValueError(
            f"batch normalisation over {trainer.world_size} CPU processes: PyTorch shares its statistics on GPUs only. "
            "Take trainer.sync_batchnorm=false, one process with trainer=cpu, or for a VAE model.norm=group or none"
        )
