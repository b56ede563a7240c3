"""What a run folder says before a run starts in it: done, interrupted, failed, or that it belongs to another run."""

import gc
import json
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae_lightning.data import DataError
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.runs.layout import DATA_JSON, METRICS_JSON, STATUS_JSON, RunError, checkpoint_path
from vae_lightning.runs.status import read_plan, read_status
from vae_lightning.runs.versions import changes_since
from vae_lightning.system.whole_files import write_json

log = logging.getLogger("vae_lightning")


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the run can be resumed."""
    return checkpoint_path(run_dir).is_file()


def say_where_it_starts(run_dir: Path, in_sweep: bool) -> None:
    """One line about a job's place in its sweep, and one about a run that was started before."""
    if in_sweep:
        from vae_lightning.launch.sweep.progress import announce_job

        announce_job(run_dir)
    state = read_status(run_dir).get("state")
    ended = "failed" if state == "failed" else "was interrupted"
    if has_checkpoint(run_dir):
        log.info(f"{run_dir.name} {ended}: it is resumed from its last checkpoint")
    elif state is not None:
        log.info(f"{run_dir.name} {ended} before its first checkpoint: it starts again from the beginning")


def finished_metrics(run_dir: Path, identity: str) -> dict[str, Any] | None:
    """The final metrics of this very run if it is done, else None.

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


def release_memory() -> None:
    """Leaves the next job of this process the whole device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def session_of(run_dir: Path) -> str:
    """Names the command that started a run; outside of a sweep that starts a run once."""
    return str(read_plan(run_dir.parent).get("session") or uuid.uuid4().hex[:12])


def warn_of_changes(run_dir: Path, data_marks: Callable[[], dict[str, Any]]) -> None:
    """Says what has changed since a run was finished, so that the same numbers may not come out again.

    Args:
        run_dir: of the finished run.
        data_marks: gives what tells the data as they are now from other data.
    """
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
