"""Progress bars for long work, on stderr."""

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
    """Functions that long work calls to report how far it is."""

    track: Track = untracked
    metric: Callable[[str], None] = lambda title: None  # called with the title of what is measured next


@contextmanager
def progress() -> Iterator[Observer]:
    """A bar for the work that is under way; it disappears with the end of that work."""
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
    """A bar that stays; the function that it gives is called with how many steps were done."""
    with _bars(transient=False) as bars:
        task = bars.add_task(description, total=total)
        yield lambda count: bars.advance(task, count)


def _bars(*, transient: bool) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=transient)
