"""What of Lightning's Trainer a run can use: the rest is refused before any data is read."""

from collections.abc import Mapping
from typing import Any

from vae_lightning.did_you_mean import did_you_mean
from vae_lightning.signatures import ConfigError

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
SET_ELSEWHERE = {
    "callbacks": "callbacks=[…]",
    "logger": "logger=[…]",
    "default_root_dir": "hydra.run.dir=…",
}
# arguments whose other values a run would ignore, or fail with later
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_distributed_sampler": ((False,), "the data module deals the batches out itself"),
    "reload_dataloaders_every_n_epochs": ((0,), "the batches are a function of seed and epoch already"),
    "overfit_batches": ((0, 0.0), "every epoch is shuffled here; take data.train_size=…"),
    "fast_dev_run": ((False, 0), "it writes no checkpoint and no number; take debug=smoke"),
    "barebones": ((False,), "it measures nothing and keeps nothing; vae bench tells the speed"),
}


def check_trainer_settings(settings: Mapping[str, Any]) -> None:
    """
    Raises:
        ConfigError: with what is allowed, or what to set instead.
    """
    for name, instead in SET_ELSEWHERE.items():
        if name in settings:
            raise ConfigError(f"trainer.{name} would be passed over: set {instead}")
    for name, (allowed, reason) in FIXED.items():
        if name in settings and settings[name] not in allowed:
            raise ConfigError(f"trainer.{name}={settings[name]}: leave it out; {reason}")
    _check_strategy(settings.get("strategy", "auto"))
    _check_numbers(settings)


def _check_strategy(strategy: Any) -> None:
    """Others share out the weights, or train in processes whose metrics never come back."""
    if strategy not in STRATEGIES:
        hint = did_you_mean(str(strategy), STRATEGIES)
        raise ConfigError(f"trainer.strategy={strategy}{hint}: allowed are {', '.join(STRATEGIES)}; see trainer=ddp")


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for name in ("log_every_n_steps", "accumulate_grad_batches", "check_val_every_n_epoch"):
        number = settings.get(name)
        if number is not None and number < 1:
            raise ConfigError(f"trainer.{name}={number}: must be at least 1")
    if settings.get("gradient_clip_algorithm") and settings.get("gradient_clip_val") is None:
        raise ConfigError("trainer.gradient_clip_algorithm does nothing alone: set trainer.gradient_clip_val as well")
    at_least, at_most = settings.get("min_epochs"), settings.get("max_epochs")
    if at_least is not None and at_most is not None and 0 <= at_most < at_least:
        raise ConfigError(f"trainer.min_epochs={at_least} with trainer.max_epochs={at_most}: no run can have both")
