"""How the weight of the KL term moves during training: a factor on the top-level `beta`."""

from abc import ABC, abstractmethod


class BetaSchedule(ABC):
    """Ends at factor 1, which validation and test use all along, so that epochs of one run compare."""

    @abstractmethod
    def factor(self, epoch: int, step: int) -> float:
        """The factor on beta in `epoch` (from 0) at optimizer step `step` (from 0)."""


class Constant(BetaSchedule):
    def factor(self, epoch: int, step: int) -> float:
        return 1.0


class LinearWarmup(BetaSchedule):
    """beta(t) = beta * min(1, t / duration), t counted in epochs (S1, S3) or optimizer steps, from 0.

    Source: Bowman et al. 2016, section 3.1, arXiv:1511.06349 (there with a sigmoid curve).
    """

    def __init__(self, duration: int = 10, unit: str = "epoch") -> None:
        if duration < 1:
            raise ValueError(f"beta_schedule.duration={duration}: must be at least 1")
        if unit not in ("epoch", "step"):
            raise ValueError(f"beta_schedule.unit={unit!r}: allowed are epoch, step")
        self.duration = duration
        self.unit = unit

    def factor(self, epoch: int, step: int) -> float:
        return min(1.0, (epoch if self.unit == "epoch" else step) / self.duration)
