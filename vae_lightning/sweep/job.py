"""One job of a sweep: skipped where it is done, gone on with where it was interrupted."""

import gc
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vae_lightning.data import DataError
from vae_lightning.files import write_json
from vae_lightning.made_with import changes_since, made_with
from vae_lightning.run_folders import RunError
from vae_lightning.run_status import STATUS, claimed, read_plan, read_status, recorded
from vae_lightning.sweep.progress import Progression, look, time_left

log = logging.getLogger("vae_lightning")


def run_recorded(run_dir: Path, identity: str, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Trains with the folder to itself and its state on record.

    Raises:
        RunIsTakenError: another process works in the folder.
    """
    with claimed(run_dir), recorded(run_dir, identity, _session(run_dir), made_with()):
        return train()


def run_job(
    run_dir: Path,
    identity: str,
    fingerprint: Callable[[], str],
    train: Callable[[], dict[str, Any]],
    go_on: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """One job of a sweep: skipped where it is done, gone on with where it was interrupted.

    Args:
        run_dir: its folder.
        identity: of its resolved configuration.
        fingerprint: of the data as they are now.
        train: runs it from its beginning.
        go_on: runs it from its last checkpoint.

    Returns:
        The final metrics.

    Raises:
        RunError: another process, or another run, is in the folder.
    """
    with claimed(run_dir):
        metrics = _finished_metrics(run_dir, identity)
        if metrics is not None:
            log.info(f"{run_dir.name} is done already")
            _warn_if_untrue(run_dir, fingerprint)
            return metrics
        _say_where_the_sweep_is(run_dir)
        starts_late = (run_dir / "checkpoints" / "last.ckpt").is_file()
        if starts_late:
            log.info(f"{run_dir.name} was interrupted: going on from its last checkpoint")
        with recorded(run_dir, identity, _session(run_dir), made_with()):
            return go_on() if starts_late else train()


def release_memory() -> None:
    """Leaves the next job of this process the whole device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _finished_metrics(run_dir: Path, identity: str) -> dict[str, Any] | None:
    """The final metrics of this very run, where it is done already; None where there is something left to do.

    Raises:
        RunError: another run lies in the folder.
    """
    status = read_status(run_dir)
    if status.get("identity", identity) != identity:
        raise RunError(f"{run_dir} holds a run with other settings; give the sweep another sweep=NAME")
    if status.get("state") != "done":
        return None
    try:
        metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        log.warning(f"{run_dir} says that it is done and its metrics.json cannot be read: its end is run again")
        return None
    return metrics if isinstance(metrics, dict) else None


def _session(run_dir: Path) -> str:
    """Names the command that started a run; a run outside of a sweep is its own."""
    return str(read_plan(run_dir.parent).get("session", os.getpid()))


def _warn_if_untrue(run_dir: Path, fingerprint: Callable[[], str]) -> None:
    """Says what has changed since a finished run: its numbers may not come out again."""
    status = read_status(run_dir)
    changed = changes_since(status.get("made_with", {}))
    try:
        record = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
        # rendered faces are a function of the code, which is compared above
        if record["source"] in ("celeba", "folder") and record["fingerprint"] != fingerprint():
            changed.append(f"the images of {record['root']} are not those that it was trained on")
    except (OSError, ValueError, KeyError, DataError) as error:
        changed.append(f"its data cannot be compared ({error})")
    write_json(run_dir / STATUS, {**status, "changed": changed})  # for the sweep's last words and its report
    if changed:
        log.warning(
            f"{run_dir.name} is kept as it is, but would not come out the same: {'; '.join(changed)}. "
            f"To train it again, delete {run_dir}"
        )


def _say_where_the_sweep_is(run_dir: Path) -> None:
    """One line at the start of a job that runs in the sweep's own process."""
    plan = read_plan(run_dir.parent)
    if plan.get("engine") != "basic":
        return
    now = look(run_dir.parent)
    others = {name: state for name, state in now.states.items() if name != run_dir.name}
    before = Progression(others, now.shares, now.total)
    number = before.count("done") + before.count("failed") + 1
    log.info(
        f"\nJob {number} of {now.total} · {run_dir.name} · {before.count('done')} done, {before.count('failed')} failed"
        f"{time_left(run_dir.parent, now)}"
    )
