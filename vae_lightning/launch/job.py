"""Reads, before a run starts, what its folder holds: nothing, a finished or interrupted run, or another run."""

import gc
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vae_lightning.data import DataError
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.launch.command_line import resume_command
from vae_lightning.launch.kept_settings import resolved
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.runs.layout import (
    CONFIG_YAML,
    DATA_JSON,
    METRICS_JSON,
    STATUS_JSON,
    TRAIN_LOG,
    RunError,
    checkpoint_path,
)
from vae_lightning.runs.settings import differences, named, read_settings
from vae_lightning.runs.status import LOCK, read_plan, read_status
from vae_lightning.runs.versions import changes_since
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.whole_files import write_json

log = logging.getLogger("vae_lightning")


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the run can be resumed."""
    return checkpoint_path(run_dir).is_file()


def say_where_it_starts(run_dir: Path, in_sweep: bool) -> None:
    """Logs a job's place in its sweep, and how a run that was started before has ended."""
    if in_sweep:
        from vae_lightning.launch.sweep.progress import announce_job

        announce_job(run_dir)
    state = read_status(run_dir).get("state")
    ended = "failed" if state == "failed" else "was interrupted"
    if has_checkpoint(run_dir):
        log.info(f"{run_dir.name} {ended}: it is resumed from its last checkpoint")
    elif state is not None:
        log.info(f"{run_dir.name} {ended} before its first checkpoint: it starts again from the beginning")


def finished_metrics(run_dir: Path, identity: str, config: Any) -> dict[str, Any] | None:
    """The final metrics of this very run if it is done, else None.

    Raises:
        RunError: the folder holds another run; the message names the settings that differ.
    """
    status = read_status(run_dir)
    if status.get("identity", identity) != identity:
        other = "sweep another sweep=NAME" if read_plan(run_dir.parent) else "run another hydra.run.dir=…"
        raise RunError(
            f"{run_dir} holds a run with other settings{_what_differs(run_dir, config)}. Give the {other}, or resume "
            f"that run with its own settings: {resume_command(run_dir)}"
        )
    if status.get("state") != "done":
        return None
    try:
        metrics = read_plain(run_dir / METRICS_JSON)
    except (OSError, ValueError):
        log.warning(f"{run_dir} is done, but its metrics.json cannot be read: the end of the run is repeated")
        return None
    return metrics if isinstance(metrics, dict) else None


def _what_differs(run_dir: Path, config: Any) -> str:
    """`: KEY is … there and … here`; of a run that was stopped before it wrote config.yaml nothing is known."""
    if not (run_dir / CONFIG_YAML).is_file():
        return ""
    found = list(differences(read_settings(run_dir), resolved(config)))
    return f": {named(found)}" if found else f": it does not start from ckpt_path={config.ckpt_path}"


@contextmanager
def nothing_left_if_refused(run_dir: Path, in_sweep: bool) -> Iterator[None]:
    """Empties a new run folder if the run is refused in the block; a sweep keeps the reasons of its jobs.

    Args:
        run_dir: claimed by this process.
        in_sweep: whether the run is a job of a sweep.
    """
    is_new = not any(path.name not in (LOCK, TRAIN_LOG) for path in run_dir.iterdir())
    try:
        yield
    except (ConfigError, DataError, RunError):
        if is_new and not in_sweep and not has_checkpoint(run_dir):
            for path in run_dir.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def release_memory() -> None:
    """Frees the device's memory for the next job of this process."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def session_of(run_dir: Path) -> str:
    """The sweep command that started a run; outside of a sweep a new name for each start."""
    return str(read_plan(run_dir.parent).get("session") or uuid.uuid4().hex[:12])


def warn_of_changes(run_dir: Path, data_marks: Callable[[], dict[str, Any]]) -> None:
    """Warns if code, libraries or data have changed since a run was finished, so that its numbers might differ now.

    Args:
        run_dir: of the finished run.
        data_marks: returns the marks of the data as they are now.
    """
    status = read_status(run_dir)
    changed = changes_since(status.get("made_with", {}))
    try:
        record = read_plain(run_dir / DATA_JSON)
        # rendered faces are a function of the code, which is compared above
        marks = data_marks() if data_sources()[record["source"]].has_root else {}
        if "content" in marks and record["content"] != marks["content"]:
            changed.append(f"the images of {record['root']} have changed")
        if "annotation" in record and "annotation" in marks and record["annotation"] != marks["annotation"]:
            changed.append(f"the attributes or identities of {record['root']} have changed")
    except (OSError, ValueError, KeyError, DataError) as error:
        changed.append(f"its data cannot be compared ({error})")
    write_json(run_dir / STATUS_JSON, {**status, "changed": changed})  # for the end of the sweep and its report
    if changed:
        log.warning(
            f"{run_dir.name} is kept as it is, but would not come out the same: {'; '.join(changed)}. "
            f"To train it again, delete {run_dir}"
        )
