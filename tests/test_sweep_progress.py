"""What a sweep says on its way, to a log file and to a terminal; no job runs."""

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from vae_lightning.launch.sweep import progress
from vae_lightning.launch.sweep.progress import SweepProgress, duration, progress_shown, time_left
from vae_lightning.runs.status import State

MOMENTS: list[dict[str, State]] = [
    {"beta=1": "running", "beta=4": "not started"},
    {"beta=1": "running", "beta=4": "not started"},
    {"beta=1": "done", "beta=4": "running"},
    {"beta=1": "done", "beta=4": "failed"},
]


class Looks:
    """One moment after the other; the sweep stops before the last look, as it does when its jobs have ended."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop, self.left = stop, list(MOMENTS)

    def __call__(self, folder: Path) -> SweepProgress:
        states = self.left.pop(0)
        if len(self.left) == 1:
            self.stop.set()
        return SweepProgress(states, dict.fromkeys(states, 0.5), len(states))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    stop = threading.Event()
    monkeypatch.setattr(progress, "read_progress", Looks(stop))
    monkeypatch.setattr(progress, "LOOK_EVERY_SECONDS", 0.0)
    return stop


def test_a_log_file_gets_a_line_whenever_a_job_starts_or_ends(stop: threading.Event, tmp_path: Path) -> None:
    file = io.StringIO()
    progress._show_lines(Console(file=file), tmp_path, stop)
    assert file.getvalue().splitlines() == [
        "beta=1 running   (0 done · 1 running · 0 failed · 1 to go)",
        "beta=1 done, beta=4 running   (1 done · 1 running · 0 failed · 0 to go)",
        "beta=4 failed   (1 done · 0 running · 1 failed · 0 to go)",
    ]


def test_a_terminal_gets_a_bar_for_the_sweep_and_for_each_running_job(stop: threading.Event, tmp_path: Path) -> None:
    file = io.StringIO()
    progress._show_bars(Console(file=file, force_terminal=True, width=120), tmp_path, stop)
    text = file.getvalue()
    assert "1 done · 0 running · 1 failed · 0 to go" in text


def test_jobs_in_this_process_say_themselves_where_they_are(tmp_path: Path) -> None:
    before = threading.active_count()
    with progress_shown(tmp_path, "basic"):
        assert threading.active_count() == before


def test_time_left_is_said_once_there_is_something_to_go_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = SweepProgress({"a": "done", "b": "running"}, {"a": 1.0, "b": 0.5}, 3)
    monkeypatch.setattr(progress.time, "time", lambda: 1_000.0)
    for plan, text in (
        ({"work_at_start": 3.0, "started": 100.0}, " · about 15 min left"),
        ({"work_at_start": 1.5, "started": 100.0}, ""),  # nothing done yet
        ({"work_at_start": 3.0, "started": 2_000.0}, ""),  # the clock was set back
    ):
        monkeypatch.setattr(progress, "read_plan", lambda folder, plan=plan: plan)
        assert time_left(tmp_path, now) == text
    assert [duration(seconds) for seconds in (45, 720, 12_000)] == ["45 s", "12 min", "3 h 20 min"]
