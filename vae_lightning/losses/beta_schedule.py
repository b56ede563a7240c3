"""The weight of the KL term during training: a factor on the top-level `beta`, and a capacity."""

import math
from abc import ABC, abstractmethod

from vae_lightning.system.names import not_allowed

UNITS = ("epoch", "step")


class BetaSchedule(ABC):
    """Ends at factor 1, which validation and test always use, so that the epochs of a run are comparable.

    Epochs and optimizer steps count from 0; `epoch` changes the weight between epochs only.
    """

    final_capacity_nats = 0.0  # the target of the KL; 0 is the plain KL term

    @abstractmethod
    def factor(self, epoch: int, step: int) -> float:
        """The factor on beta in `epoch` at optimizer step `step`."""

    def capacity_nats(self, epoch: int, step: int) -> float:
        """The target of the KL in `epoch` at optimizer step `step`."""
        return self.final_capacity_nats


class Constant(BetaSchedule):
    def factor(self, epoch: int, step: int) -> float:
        return 1.0


class TimedSchedule(BetaSchedule):
    """A schedule that ends after `duration` epochs or optimizer steps.

    Args:
        duration: how long until the end.
        unit: "epoch" or "step".
    """

    def __init__(self, duration: int = 10, unit: str = "epoch") -> None:
        if duration < 1:
            raise ValueError(f"beta_schedule.duration={duration}: must be at least 1")
        if unit not in UNITS:
            raise ValueError(not_allowed("beta_schedule.unit", unit, UNITS))
        self.duration = duration
        self.unit = unit

    def done(self, epoch: int, step: int) -> int:
        """Epochs or steps since the start; at the end `duration`, and then no more."""
        return min(epoch if self.unit == "epoch" else step, self.duration)

    def progress(self, epoch: int, step: int) -> float:
        """From 0 at the start to 1 at the end, then 1."""
        return self.done(epoch, step) / self.duration


class LinearWarmup(TimedSchedule):
    """beta(t) = beta * min(1, t / duration).

    Source: Bowman et al. 2016, section 3.1, arXiv:1511.06349 (there with a sigmoid curve).
    """

    def factor(self, epoch: int, step: int) -> float:
        return self.progress(epoch, step)


class Cyclical(TimedSchedule):
    """`num_cycles` times: a linear rise from 0 over the first `ramp_fraction` of the cycle, then the full beta.

    Source: Fu et al. 2019, equations 6 and 7, arXiv:1903.10145 (M = num_cycles, R = ramp_fraction, T = duration).

    Args:
        duration: length of all cycles together; then the full beta.
        unit: "epoch" or "step".
        num_cycles: number of cycles.
        ramp_fraction: part of each cycle in which beta rises.
    """

    def __init__(self, duration: int = 8, unit: str = "epoch", num_cycles: int = 4, ramp_fraction: float = 0.5) -> None:
        super().__init__(duration, unit)
        if not 1 <= num_cycles <= duration:
            raise ValueError(
                f"beta_schedule.num_cycles={num_cycles}: must lie between 1 and duration ({duration} {unit}s)"
            )
        if not 0 < ramp_fraction <= 1:
            raise ValueError(f"beta_schedule.ramp_fraction={ramp_fraction}: must be above 0 and at most 1")
        self.num_cycles = num_cycles
        self.ramp_fraction = ramp_fraction

    def factor(self, epoch: int, step: int) -> float:
        done = self.done(epoch, step)
        if done == self.duration:
            return 1.0
        # in whole numbers: a rounded fraction that ends just below 1 would give the full beta where a cycle starts
        in_this_cycle = done * self.num_cycles % self.duration
        return min(1.0, in_this_cycle / self.duration / self.ramp_fraction)


class Capacity(TimedSchedule):
    """beta * |KL - C|, with C rising linearly from 0 to `capacity_nats`.

    Source: Burgess et al. 2018, equation 8, arXiv:1804.03599 (gamma = beta, there 1000; C up to 25 or 50).

    Args:
        capacity_nats: the last C, which validation and test always use.
        duration: until C reaches it.
        unit: "epoch" or "step".
    """

    def __init__(self, capacity_nats: float = 25.0, duration: int = 10, unit: str = "epoch") -> None:
        super().__init__(duration, unit)
        if not math.isfinite(capacity_nats) or capacity_nats <= 0:
            raise ValueError(f"beta_schedule.capacity_nats={capacity_nats}: must be a number above 0")
        self.final_capacity_nats = capacity_nats

    def factor(self, epoch: int, step: int) -> float:
        return 1.0

    def capacity_nats(self, epoch: int, step: int) -> float:
        return self.final_capacity_nats * self.progress(epoch, step)
