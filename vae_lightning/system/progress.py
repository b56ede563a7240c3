"""Progress bars for long work, written to stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Track = Callable[[Iterable[int], str, int], Iterable[int]]  # steps, description, their number -> the same steps


def untracked(steps: Iterable[int], description: str, total: int) -> Iterable[int]:
    """Returns the steps and shows no progress."""
    return steps


@dataclass(frozen=True)
class Observer:
    """Functions that long work calls to report its progress."""

    track: Track = untracked
    metric: Callable[[str], None] = lambda title: None  # called with the title of the next metric


@contextmanager
def progress() -> Iterator[Observer]:
    """An observer that shows a bar for the current work; the bar disappears when the work ends."""
    with _bars(transient=True) as bars:

        def track(steps: Iterable[int], description: str, total: int) -> Iterator[int]:
            task = bars.add_task(description, total=total)
            try:
                for step in steps:
                    yield step
                    bars.advance(task)
            finally:
                bars.remove_task(task)

        yield Observer(track, lambda title: bars.console.print(title, markup=False, highlight=False))


@contextmanager
def progress_of(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that stays on the screen; call the returned function with the number of steps that were just done."""
    with _bars(transient=False) as bars:
        task = bars.add_task(description, total=total)
        yield lambda count: bars.advance(task, count)


def _bars(*, transient: bool) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=transient)
