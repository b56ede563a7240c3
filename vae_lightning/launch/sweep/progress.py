"""Reads from a sweep's folder how many jobs are done, running, failed and to go, and shows it."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from vae_lightning.runs.layout import CONFIG_YAML, METRICS_CSV, STATUS_JSON
from vae_lightning.runs.metrics_csv import read_last_metrics
from vae_lightning.runs.status import State, read_plan, read_status, state_of
from vae_lightning.system.plain_files import read_plain

LOOK_EVERY_SECONDS = 1.0
log = logging.getLogger("vae_lightning")


@dataclass(frozen=True)
class SweepProgress:
    """The jobs that one command runs, at one moment."""

    states: dict[str, State]  # of each job, by folder
    shares: dict[str, float]  # of its epochs that each job has trained, 0 to 1
    total: int

    def count(self, state: State) -> int:
        return Counter(self.states.values())[state]

    @property
    def to_go(self) -> int:
        """Jobs that have not ended and do not run."""
        return self.total - sum(self.count(state) for state in ("done", "failed", "running"))

    @property
    def work_left(self) -> float:
        """In whole jobs; a failed job has none left."""
        left = [1 - self.shares[name] for name, state in self.states.items() if state not in ("done", "failed")]
        return sum(left) + self.total - len(self.states)

    def __str__(self) -> str:
        return (
            f"{self.count('done')} done · {self.count('running')} running · {self.count('failed')} failed · "
            f"{self.to_go} to go"
        )


def read_progress(folder: Path) -> SweepProgress:
    """Reads the states of the jobs that the newest command has planned, or its search has started."""
    plan = read_plan(folder)
    if plan.get("trials") is None:
        names = list(plan.get("in_session", []))
        total = len(names)
    else:
        session = plan.get("session")
        started = [status.parent for status in folder.glob(f"*/{STATUS_JSON}")]
        names = [run.name for run in started if read_status(run).get("session") == session]
        total = max(plan["trials"], len(names))
    states = {name: state_of(folder / name) for name in names}
    shares = {name: 1.0 if state == "done" else share_done(folder / name) for name, state in states.items()}
    return SweepProgress(states, shares, total)


def share_done(run: Path) -> float:
    """The part of its epochs (or steps) that a run has trained, between 0 and 1."""
    try:
        trainer = read_plain(run / CONFIG_YAML)["trainer"]
        max_epochs, max_steps = (trainer.get(name) or -1 for name in ("max_epochs", "max_steps"))
        rows = read_last_metrics(run / METRICS_CSV)
        if max_epochs > 0:  # epochs count from 1; one is done when it was validated
            epochs = (row["epoch"] - ("val/loss" not in row) for row in rows)
            return min(1.0, max(epochs, default=0.0) / max_epochs)
        steps = max((row.get("step", 0.0) for row in rows), default=0.0)
        return min(1.0, steps / max_steps) if max_steps > 0 else 0.0
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0.0


def time_left(folder: Path, now: SweepProgress) -> str:
    """` · about 12 min left`, judged by the work done since the command started; empty before there is any."""
    plan = read_plan(folder)
    done = plan.get("work_at_start", 0.0) - now.work_left
    seconds = time.time() - plan.get("started", 0.0)
    if done <= 0 or now.work_left <= 0 or seconds <= 0:  # or the clock was set back
        return ""
    return f" · about {duration(now.work_left * seconds / done)} left"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def announce_job(run_dir: Path) -> None:
    """Logs the start of a job that runs in the sweep's own process."""
    plan = read_plan(run_dir.parent)
    if plan.get("engine") != "basic":
        return
    now = read_progress(run_dir.parent)
    others = {name: state for name, state in now.states.items() if name != run_dir.name}
    before = SweepProgress(others, now.shares, now.total)
    number = before.count("done") + before.count("failed") + 1
    log.info(
        f"\nJob {number} of {now.total} · {run_dir.name} · {before.count('done')} done, {before.count('failed')} failed"
        f"{time_left(run_dir.parent, now)}"
    )


@contextmanager
def progress_shown(folder: Path, engine: str) -> Iterator[None]:
    """Shows progress while the block runs; jobs of this process show their own."""
    if engine == "basic":
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(folder, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show(folder: Path, stop: threading.Event) -> None:
    console = Console(stderr=True)
    if console.is_terminal:
        _show_bars(console, folder, stop)
    else:
        _show_lines(console, folder, stop)


def _show_bars(console: Console, folder: Path, stop: threading.Event) -> None:
    """Shows a bar for the sweep and one for each running job."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
        overall = bars.add_task("sweep", total=1.0)
        stopped = False
        while not stopped:
            stopped = stop.wait(LOOK_EVERY_SECONDS)
            now = read_progress(folder)
            done = 1 - now.work_left / max(1, now.total)
            bars.update(overall, description=f"{now}{time_left(folder, now)}", completed=done)
            running = {name for name, state in now.states.items() if state == "running"}
            for name in tasks.keys() - running:
                bars.remove_task(tasks.pop(name))
            for name in sorted(running):
                if name not in tasks:
                    tasks[name] = bars.add_task(f"  {name}", total=1.0)
                bars.update(tasks[name], completed=now.shares[name])


def _show_lines(console: Console, folder: Path, stop: threading.Event) -> None:
    """Prints a line whenever a job starts or ends, for log files."""
    shown_states: dict[str, Any] = {}
    stopped = False
    while not stopped:
        stopped = stop.wait(LOOK_EVERY_SECONDS)
        now = read_progress(folder)
        changed = [name for name, state in now.states.items() if shown_states.get(name, "not started") != state]
        if changed:
            what = ", ".join(f"{name} {now.states[name]}" for name in changed)
            console.print(f"{what}   ({now}{time_left(folder, now)})", markup=False, highlight=False, soft_wrap=True)
        shown_states = dict(now.states)
