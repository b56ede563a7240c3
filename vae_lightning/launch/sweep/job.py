"""One run: skipped where it is done, gone on with where it was interrupted."""

import gc
import json
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vae_lightning.data import DataError
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.launch.sweep.progress import Progression, look, time_left
from vae_lightning.runs.layout import DATA_JSON, METRICS_JSON, STATUS_JSON, RunError, checkpoint_path
from vae_lightning.runs.status import claimed, read_plan, read_status, recorded
from vae_lightning.runs.versions import changes_since, made_with
from vae_lightning.system.whole_files import write_json

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
    data_marks: Callable[[], dict[str, Any]],
    train: Callable[[], dict[str, Any]],
    go_on: Callable[[], dict[str, Any]],
    say_done: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """A job of a sweep, or a run of its own: skipped where it is done, gone on with where it was interrupted.

    Args:
        run_dir: its folder.
        identity: of its resolved configuration.
        data_marks: what tells the data as they are now from others.
        train: runs it from its beginning.
        go_on: runs it from its last checkpoint.
        say_done: called with the metrics of a run that is skipped.

    Returns:
        The final metrics.

    Raises:
        RunError: another process, or another run, is in the folder.
    """
    with claimed(run_dir):
        metrics = finished_metrics(run_dir, identity)
        if metrics is not None:
            log.info(f"{run_dir.name} is done already")
            _warn_if_untrue(run_dir, data_marks)
            if say_done is not None:
                say_done(metrics)
            return metrics
        _say_where_the_sweep_is(run_dir)
        starts_late = has_checkpoint(run_dir)
        _say_where_it_starts(run_dir, starts_late)
        with recorded(run_dir, identity, _session(run_dir), made_with()):
            return go_on() if starts_late else train()


def has_checkpoint(run_dir: Path) -> bool:
    """Whether training can go on from where it stopped."""
    return checkpoint_path(run_dir).is_file()


def _say_where_it_starts(run_dir: Path, starts_late: bool) -> None:
    state = read_status(run_dir).get("state")
    ended = "failed" if state == "failed" else "was interrupted"
    if starts_late:
        log.info(f"{run_dir.name} {ended}: going on from its last checkpoint")
    elif state is not None:
        log.info(f"{run_dir.name} {ended} before its first checkpoint: starting again from the beginning")


def release_memory() -> None:
    """Leaves the next job of this process the whole device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finished_metrics(run_dir: Path, identity: str) -> dict[str, Any] | None:
    """The final metrics of this very run, where it is done already; None where there is something left to do.

    Raises:
        RunError: another run lies in the folder.
    """
    status = read_status(run_dir)
    if status.get("identity", identity) != identity:
        other = "sweep another sweep=NAME" if read_plan(run_dir.parent) else "run another hydra.run.dir=…"
        raise RunError(
            f"{run_dir} holds a run with other settings, which stand in its config.yaml: give the {other}, "
            f"or delete {run_dir}"
        )
    if status.get("state") != "done":
        return None
    try:
        metrics = json.loads((run_dir / METRICS_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        log.warning(f"{run_dir} says that it is done and its metrics.json cannot be read: its end is run again")
        return None
    return metrics if isinstance(metrics, dict) else None


def _session(run_dir: Path) -> str:
    """Names the command that started a run; outside of a sweep that starts a run once."""
    return str(read_plan(run_dir.parent).get("session") or uuid.uuid4().hex[:12])


def _warn_if_untrue(run_dir: Path, data_marks: Callable[[], dict[str, Any]]) -> None:
    """Says what has changed since a finished run: its numbers may not come out again."""
    status = read_status(run_dir)
    changed = changes_since(status.get("made_with", {}))
    try:
        record = json.loads((run_dir / DATA_JSON).read_text(encoding="utf-8"))
        # rendered faces are a function of the code, which is compared above
        marks = data_marks() if data_sources()[record["source"]].has_root else {}
        if "fingerprint" in marks and record["fingerprint"] != marks["fingerprint"]:
            changed.append(f"the images of {record['root']} are not those that it was trained on, or copies of them")
        if "annotation" in record and "annotation" in marks and record["annotation"] != marks["annotation"]:
            changed.append(f"the attributes or identities of {record['root']} are others")
    except (OSError, ValueError, KeyError, DataError) as error:
        changed.append(f"its data cannot be compared ({error})")
    write_json(run_dir / STATUS_JSON, {**status, "changed": changed})  # for the sweep's last words and its report
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
