"""How a run ended, who works on it, what has changed since: read from its folder. How far a sweep is."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import yaml
from written_sweeps import write_status

from callbacks import requeue
from vae_lightning.launch.job import finished_metrics, warn_of_changes
from vae_lightning.launch.sweep.progress import duration, read_progress, share_done, time_left
from vae_lightning.runs import versions as made_with_module
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.status import (
    MOST_CRASHES,
    KeepsCrashingError,
    RunIsTakenError,
    claimed,
    read_status,
    recorded,
    state_of,
)
from vae_lightning.runs.versions import changes_since, made_with
from vae_lightning.system.whole_files import storage_error, write_json


def hold(folder: Path, held: Event, release: Event) -> None:
    with claimed(folder):
        write_status(folder, "running", process=4711, host="elsewhere")
        held.set()
        release.wait(30)


@pytest.mark.slow
def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    assert state_of(tmp_path) == "running"
    with pytest.raises(RunIsTakenError, match="process 4711 on elsewhere"), claimed(tmp_path):
        pass
    other.kill()
    other.join()
    assert state_of(tmp_path) == "interrupted"  # it still says running
    with claimed(tmp_path):
        pass


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RunError("words for people"), "failed", "words for people"),
        (RuntimeError("CUDA out of memory.\nTried"), "failed", "RuntimeError: CUDA out of memory. Tried"),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(143), "interrupted", None),
    ],
)
def test_how_a_run_ended_is_on_disk(error: BaseException, state: str, reason: str | None, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(tmp_path, "identity", "session", made_with()):
        fail(error)
    assert state_of(tmp_path) == state
    assert read_status(tmp_path)["reason"] == reason


def test_a_job_that_only_crashes_is_given_up(tmp_path: Path) -> None:
    """Ray starts a killed job again, for ever: out of memory would be for ever too."""

    def crash(session: str = "session") -> int:
        context = recorded(tmp_path, "identity", session, made_with())
        context.__enter__()  # and never left
        return int(read_status(tmp_path)["attempt"])

    (tmp_path / "checkpoints").mkdir()
    assert crash() == 1
    assert crash() == 2
    time.sleep(0.01)
    (tmp_path / "checkpoints" / "last.ckpt").touch()  # it got further
    assert [crash() for _ in range(MOST_CRASHES)] == [1, 2, 3]
    with pytest.raises(KeepsCrashingError, match="killed 3 times"):
        crash()
    assert state_of(tmp_path) == "failed"
    assert crash("another command") == 1


def test_what_has_changed_since_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    then = json.loads(json.dumps(made_with()))
    assert changes_since(then) == []
    then["libraries"]["torch"] = "2.0"
    then["code"]["vae_lightning/losses/kl.py"] = "0"
    assert changes_since(then)[0].startswith("torch 2.0 then, ")
    assert changes_since(then)[1] == "code changed in vae_lightning/losses/kl.py"
    assert not any(
        name.startswith(("vae_lightning/report", "vae_lightning/launch"))
        for name in made_with_module.made_with()["code"]
    )
    write_status(tmp_path, "done", identity="i", made_with=then)
    (tmp_path / "metrics.json").write_text('{"val/loss": 3.0}')
    (tmp_path / "data.json").write_text('{"source": "celeba", "root": "/faces", "content": {"val": "then"}}')
    assert finished_metrics(tmp_path, "i", {}) == {"val/loss": 3.0}
    warn_of_changes(tmp_path, lambda: {"content": {"val": "now"}})
    assert len(read_status(tmp_path)["changed"]) == 3
    for words in ("torch 2.0 then", "losses/kl.py", "images of /faces have changed"):
        assert words in caplog.text


def test_another_run_in_a_jobs_folder_is_left_alone(tmp_path: Path) -> None:
    write_status(tmp_path, "done", identity="another")
    with pytest.raises(RunError, match="other settings"):
        finished_metrics(tmp_path, "i", {})


# ---- progress


def test_progress_counts_jobs_and_epochs(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    started = time.time() - 90
    plan_file = {"in_session": names, "trials": None, "jobs": [], "work_at_start": 4.0, "started": started}
    (tmp_path / "sweep.json").write_text(json.dumps(plan_file))
    for name, state in (("a", "done"), ("b", "interrupted"), ("c", "failed")):
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, state)
    (tmp_path / "b" / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 4}}))
    (tmp_path / "b" / "metrics.csv").write_text("epoch,step,val/loss\n1,5,3\n2,10,2\n")
    now = read_progress(tmp_path)
    assert str(now) == "1 done · 0 running · 1 failed · 2 to go"
    assert share_done(tmp_path / "b") == 0.5
    assert now.work_left == 1.5  # half of b, all of d; nobody waits for c
    assert time_left(tmp_path, now) == " · about 54 s left"  # 2.5 jobs in 90 s
    assert [duration(seconds) for seconds in (45, 720, 12_000)] == ["45 s", "12 min", "3 h 20 min"]


def test_a_run_by_steps_has_a_share_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": -1, "max_steps": 40}}))
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,10,3\n")
    assert share_done(tmp_path) == 0.25
    assert share_done(tmp_path / "nowhere") == 0.0


# ---- SLURM


@pytest.mark.parametrize(
    ("answer", "is_cancelled"),
    [
        ("JobId=4 JobState=COMPLETING Reason=None PreemptTime=None", True),
        ("JobId=4 JobState=RUNNING Reason=None PreemptTime=None", False),
        ("JobId=4 JobState=COMPLETING Reason=None PreemptTime=2026-11-21T10:00:00", False),
        ("", False),
    ],
)
def test_only_a_person_keeps_a_stopped_job_out_of_the_queue(
    answer: str, is_cancelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{answer}'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    queued_again: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: queued_again.append(signum))
    requeue()
    signal.signal(signal.SIGUSR2, before)
    assert queued_again == ([] if is_cancelled else [signal.SIGUSR2])


@pytest.mark.parametrize("how", ["renamed", "deleted", "below another name"])
def test_a_folder_that_moves_while_its_run_trains_ends_it_and_is_not_made_anew(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run"
    new = tmp_path / ("kept" if how == "below another name" else "outputs/renamed")

    def train() -> None:
        with claimed(folder), recorded(folder, "identity", "session", {}):
            write_json(folder / "images" / "a.json", {})
            if how == "deleted":
                shutil.rmtree(folder)
            else:
                (folder.parent if how == "below another name" else folder).rename(new)
            write_json(folder / "checkpoints" / "b.json", {})

    with pytest.raises(RunError, match=rf"{folder} was renamed, moved or deleted .*ckpt_path=last hydra\.run\.dir="):
        train()
    assert not folder.exists()
    with claimed(folder), recorded(folder, "identity", "session", {}):  # the next run there
        write_json(folder / "metrics.json", {})
    assert read_status(folder)["state"] == "done"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), claimed(tmp_path / "run"):
        (tmp_path / "other").read_text()


@pytest.mark.parametrize("locked", ["run", "run/checkpoints", "run/checkpoints/last.ckpt"])
def test_what_may_not_be_read_is_named(locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, how: allowed(path, how) and (how == os.F_OK or Path(path) != tmp_path / locked)
    )
    error = storage_error(PermissionError(errno.EACCES, "Permission denied", str(file)), Path())
    assert str(error).startswith(f"{tmp_path / locked} cannot be read: no permission. Its owner can give it")
    assert "written" not in str(error)
