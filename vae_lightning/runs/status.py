"""The state of a run: `status.json` in its folder, and a lock that a living process holds."""

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
from vae_lightning.system.whole_files import has_moved, staying, write_json

State = Literal["done", "running", "interrupted", "failed", "not started"]
LOCK = ".lock"
FORMAT = 1  # of status.json and sweep.json
MOST_CRASHES = 3  # of one session, without a newer checkpoint in between
LATEST = 1e11  # seconds since 1970; no plan has a later time
PATIENCE_SECONDS = 2.0  # `state_of` in another process holds the lock for an instant


class RunIsTakenError(RunError):
    """Another process is using the run folder."""


class KeepsCrashingError(RunError):
    """The run's process was killed several times without a newer checkpoint in between."""


def read_status(folder: Path) -> dict[str, Any]:
    """The content of a run's `status.json`; empty where it is missing or damaged.

    Raises:
        RunError: a newer version wrote it.
    """
    status = _read(folder / STATUS_JSON)
    return status if status.get("state", "done") in get_args(State) else {}


def read_plan(sweep_dir: Path) -> dict[str, Any]:
    """The content of a sweep's `sweep.json`, which lists its jobs; empty where it is missing or damaged.

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
    """The state of a run. The status file of a killed process still says `running`, but nobody holds its lock."""
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
    except OSError:  # no permission, so that it is not known whether the lock is held
        return False
    lock.release()
    return False


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder during the block; a killed process releases the folder.

    Raises:
        RunIsTakenError: another process is using the folder.
        RunError: the block failed, and the folder was renamed, moved or deleted in the meantime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        status = read_status(folder)
        who = f"process {status.get('process')} on {status.get('host')}" if status else "another process"
        raise RunIsTakenError(f"{folder} is in use by {who}") from None
    try:
        with staying(folder):
            try:
                yield
            except Exception as error:
                if has_moved(folder):
                    raise RunError(
                        f"{folder} was renamed, moved or deleted while its run was training, so the training ended and "
                        "nothing was written to the old place. Resume the run where its folder is now: "
                        "ckpt_path=last hydra.run.dir=…"
                    ) from error
                raise
    finally:
        lock.release()


@contextmanager
def recorded(folder: Path, identity: str, session: str, made_with: dict[str, Any]) -> Iterator[None]:
    """Writes `running` before the block and `done`, `interrupted` or `failed` with its reason after it.

    Args:
        folder: of the run, claimed.
        identity: of its resolved configuration.
        session: names the command that starts the run; an engine that starts it again keeps the name.
        made_with: versions of libraries and code.

    Raises:
        KeepsCrashingError: the process was killed several times in this session without a newer checkpoint.
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
    """The status of a run that starts; it counts the attempts of one session that were killed at one checkpoint."""
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
    """An error in one line: the message of one of the package's own errors, or type and message of any other."""
    words = " ".join(str(error).split())
    is_ours = type(error).__module__.split(".")[0] in ("vae_lightning", "callbacks")
    return words if is_ours and words else f"{type(error).__name__}: {words}"
