"""Learning-rate schedules: a factor on `optimizer.lr` over the run."""

import math
from abc import ABC, abstractmethod

from vae_lightning.system.names import not_allowed


class LRSchedule(ABC):
    """A function of the part of the run that is done, in optimizer steps or time: a longer run stretches it."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """The factor at `progress`, from 0 at the start of the run to 1 at its end."""


class Constant(LRSchedule):
    def factor(self, progress: float) -> float:
        return 1.0


class WarmupDecay(LRSchedule):
    """A linear rise from 0, then a decay to 0.

    Args:
        warmup: part of the run in which the rate rises.
        shape: "linear" or "cosine" decay (Loshchilov & Hutter 2017, equation 5, arXiv:1608.03983).
    """

    def __init__(self, warmup: float = 0.05, shape: str = "linear") -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"lr_schedule.warmup={warmup}: must be 0 or more and below 1, a part of the run")
        if shape not in ("linear", "cosine"):
            raise ValueError(not_allowed("lr_schedule.shape", shape, ("linear", "cosine")))
        self.warmup = warmup
        self.shape = shape

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        decayed = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return 1 - decayed if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * decayed))
