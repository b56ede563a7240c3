"""What trains: Lightning modules, logged statistics, learning-rate schedules, resuming."""

from vae_lightning.training.lr_schedule import Constant, LRSchedule, WarmupDecay

__all__ = ["Constant", "LRSchedule", "WarmupDecay"]
