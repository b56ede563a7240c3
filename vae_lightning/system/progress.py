"""How long work is watched, by whoever started it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Track = Callable[[Iterable[int], str, int], Iterable[int]]  # steps, what is done, how many -> the same steps


def untracked(steps: Iterable[int], description: str, total: int) -> Iterable[int]:
    """Shows no progress."""
    return steps


@dataclass(frozen=True)
class Observer:
    """Who watches."""

    track: Track = untracked
    metric: Callable[[str], None] = lambda title: None  # is told what is measured next


@contextmanager
def progress() -> Iterator[Observer]:
    """A bar for what is under way, on stderr."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:

        def track(steps: Iterable[int], description: str, total: int) -> Iterator[int]:
            task = bars.add_task(description, total=total)
            try:
                for step in steps:
                    yield step
                    bars.advance(task)
            finally:
                bars.remove_task(task)

        yield Observer(track, lambda title: bars.console.print(title, markup=False, highlight=False))
