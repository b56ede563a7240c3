"""The goals of a search, and the runs that no other run beats in all of them: the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lightning.report.sweep import Job, Sweep
from vae_lightning.runs.status import read_plan

MOST_LISTED = 12


@dataclass(frozen=True)
class Front:
    """What a search looked for and found."""

    goals: dict[str, str]  # minimize or maximize, by metric
    jobs: list[Job]  # by the first goal, best first
    num_measured: int

    def values(self, job: Job) -> str:
        """`val/kl_nats 41.3, val/reconstruction_nats 262`."""
        return ", ".join(f"{name} {job.metrics[name]:.4g}" for name in self.goals)

    def sentences(self, sweep: Sweep) -> list[str]:
        """The best trial, or a sentence about the front and one for each of its trials."""
        goals = " and ".join(f"{name} ({direction}d)" for name, direction in self.goals.items())
        if len(self.goals) == 1:
            return [f"The search for {goals}: best of {self.num_measured} runs is {self._named(sweep, self.jobs[0])}."]
        listed = [f"On the front: {self._named(sweep, job)}." for job in self.jobs[:MOST_LISTED]]
        more = len(self.jobs) - MOST_LISTED
        return [
            f"The Pareto front of {goals}: {len(self.jobs)} of {self.num_measured} runs, which no other run beats in "
            "both or equals in one and beats in the other.",
            *listed,
            *([f"And {more} more on the front."] if more > 0 else []),
        ]

    def _named(self, sweep: Sweep, job: Job) -> str:
        return f"{sweep.label(job, ', ')} with {self.values(job)}"


def find_front(sweep: Sweep) -> Front | None:
    """The front of a search; None of a sweep that did not search, or has measured nothing yet."""
    goals = _goals(sweep.folder)
    measured = [job for job in sweep.jobs if job.status == "done" and _are_finite(job, goals)]
    if not goals or not measured:
        return None
    costs = {job.name: _costs(job, goals) for job in measured}
    front = [job for job in measured if not any(_beats(other, costs[job.name]) for other in costs.values())]
    return Front(goals, sorted(front, key=lambda job: costs[job.name]), len(measured))


def _goals(folder: Path) -> dict[str, str]:
    goals = read_plan(folder).get("goals")
    if not isinstance(goals, dict) or not {str(value) for value in goals.values()} <= {"minimize", "maximize"}:
        return {}
    return {str(name): str(direction) for name, direction in goals.items()}


def _are_finite(job: Job, goals: dict[str, str]) -> bool:
    return all(math.isfinite(job.metrics.get(name, math.nan)) for name in goals)


def _costs(job: Job, goals: dict[str, str]) -> tuple[float, ...]:
    """The values, smaller is better."""
    return tuple(job.metrics[name] * (1 if how == "minimize" else -1) for name, how in goals.items())


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
