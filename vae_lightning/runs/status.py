"""How far a run has come, in its own folder: `status.json`, and a lock that only a living process holds."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from vae_lightning.runs.layout import STATUS_JSON, SWEEP_JSON, RunError, checkpoint_path
from vae_lightning.system.names import is_a_name
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.whole_files import write_json

State = Literal["done", "running", "interrupted", "failed", "not started"]
LOCK = ".lock"
FORMAT = 1  # of status.json and sweep.json
MOST_CRASHES = 3  # starts in one session that got no further than the one before
LATEST = 1e11  # seconds since 1970, in a plan
PATIENCE_SECONDS = 2.0  # somebody who only looks holds the lock for an instant


class RunIsTakenError(RunError):
    """Another process works in the folder."""


class KeepsCrashingError(RunError):
    """The run's process was killed again and again at the same place."""


def read_status(folder: Path) -> dict[str, Any]:
    """What `status.json` of a run says; empty where there is none, or a damaged one.

    Raises:
        RunError: a newer version wrote it, so that nobody knows here whether the run is done.
    """
    status = _read(folder / STATUS_JSON)
    return status if status.get("state", "done") in get_args(State) else {}


def read_plan(sweep_dir: Path) -> dict[str, Any]:
    """What the command that started a sweep wrote down about its jobs; empty where there is nothing to be read.

    Raises:
        RunError: a newer version wrote it.
    """
    plan = _read(sweep_dir / SWEEP_JSON)
    jobs = plan.get("jobs", [])
    return plan if isinstance(jobs, list) and all(map(_is_a_job, jobs)) and _is_a_plan(plan) else {}


def _is_a_job(job: Any) -> bool:
    if not isinstance(job, dict) or not isinstance(job.get("overrides"), list):
        return False
    return is_a_name(job.get("name")) and {type(word) for word in (job.get("identity", ""), *job["overrides"])} == {str}


def _is_a_plan(plan: dict[str, Any]) -> bool:
    names, trials = plan.get("in_session", []), plan.get("trials")
    numbers = (plan.get("started", 0.0), plan.get("work_at_start", 0.0))
    return (
        isinstance(names, list)
        and all(map(is_a_name, names))
        and (trials is None or isinstance(trials, int))
        and all(isinstance(number, int | float) and 0 <= number <= LATEST for number in numbers)
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_plain(path)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    written_in = content.get("format")
    if isinstance(written_in, int) and written_in > FORMAT:
        raise RunError(f"{path} has format {written_in}, this version reads up to {FORMAT}: update vae-lightning")
    return content


def state_of(folder: Path) -> State:
    """What can be said now. A run whose process was killed still says `running`, but nobody holds its lock."""
    state: State = read_status(folder).get("state", "not started")
    if state == "running" and not _is_held(folder / LOCK):
        return "interrupted"
    return state


def _is_held(path: Path) -> bool:
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # somebody else's folder: a lock that cannot be tried is not known to be held
        return False
    lock.release()
    return False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a run folder; a killed process lets go by itself.

    Raises:
        RunIsTakenError: somebody is in there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        status = read_status(folder)
        who = f"process {status.get('process')} on {status.get('host')}" if status else "another process"
        raise RunIsTakenError(f"{folder} is being worked on by {who}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def recorded(folder: Path, identity: str, session: str, made_with: dict[str, Any]) -> Iterator[None]:
    """Writes `running` before the block and `done`, `interrupted` or `failed` with its reason after it.

    Args:
        folder: of the run, claimed.
        identity: of its resolved configuration.
        session: names the command that starts it, the same in all attempts that an engine makes by itself.
        made_with: versions of what computes.

    Raises:
        KeepsCrashingError: this session's attempts end without a trace and without a new checkpoint.
    """
    status = _begin(folder, identity, session, made_with)

    def end(state: State, reason: str | None = None) -> None:
        write_json(folder / STATUS_JSON, {**status, "state": state, "reason": reason, "ended": time.time()})

    if status["attempt"] > MOST_CRASHES:
        reason = f"its process was killed {MOST_CRASHES} times without getting any further (out of memory?)"
        end("failed", reason)
        raise KeepsCrashingError(reason)
    write_json(folder / STATUS_JSON, status)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        end("interrupted")
        raise
    except Exception as error:
        end("failed", describe_error(error))
        raise
    end("done")


def _begin(folder: Path, identity: str, session: str, made_with: dict[str, Any]) -> dict[str, Any]:
    """The status of a run that starts; attempts of one session that ended without a trace or progress are counted."""
    earlier = read_status(folder)
    checkpoint = checkpoint_path(folder)
    position = {"session": session, "saved_at": checkpoint.stat().st_mtime if checkpoint.is_file() else None}
    crashed_here = earlier.get("state") == "running" and all(earlier.get(key) == position[key] for key in position)
    return {
        "format": FORMAT,
        "state": "running",
        "reason": None,
        "identity": identity,
        **position,
        "attempt": earlier.get("attempt", 1) + 1 if crashed_here else 1,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "started": time.time(),
        "ended": None,
        "made_with": made_with,
    }


def describe_error(error: BaseException) -> str:
    """An error in one line: the words of a message that we have written for people, else with its type."""
    words = " ".join(str(error).split())
    is_ours = type(error).__module__.split(".")[0] in ("vae_lightning", "callbacks")
    return words if is_ours and words else f"{type(error).__name__}: {words}"
