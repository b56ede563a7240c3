"""The identity of a run, a hash of its configuration, and the folder of a sweep that the run goes into."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vae_lightning.runs.layout import CHECKPOINTS, STATUS_JSON
from vae_lightning.runs.status import read_plan, read_status

# keys that do not change the result of a run
NOT_OF_THE_RESULT = ("run_dir", "sweep", "logger", "optimized_metric", "hydra")
WITHOUT_EFFECT = (
    *(("trainer", "enable_progress_bar"), ("trainer", "enable_model_summary")),
    *(("data", "data_dir"), ("data", "residence")),
)
# settings of Lightning in which 1 is one batch and 1.0 all batches
COUNT_OR_SHARE = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "overfit_batches",
    "val_check_interval",
)
SHOWN_DIGITS = 6
LONG_NUMBER = re.compile(r"(?<==)-?\d+\.\d{5,}(e-?\d+)?(?=,|$)")  # as a search draws them
LONGEST_NAME = 150  # bytes of a folder's name; file systems take 255


def identity_of(config: Any) -> str:
    """A hash of everything in the resolved configuration that the result may depend on; `beta=1` is `beta=1.0`."""
    settings = OmegaConf.to_container(config, resolve=False)
    assert isinstance(settings, dict)
    own = {name: value for name, value in settings.items() if name not in NOT_OF_THE_RESULT}
    resolved = OmegaConf.to_container(OmegaConf.create({**own, "run_dir": ""}), resolve=True)
    assert isinstance(resolved, dict)
    return identity_of_settings({str(name): value for name, value in resolved.items()})


def identity_of_settings(resolved: Mapping[str, Any]) -> str:
    """The same of settings that are resolved with an empty `run_dir`."""
    settings = {name: value for name, value in resolved.items() if name not in NOT_OF_THE_RESULT} | {"run_dir": ""}
    for group, name in WITHOUT_EFFECT:
        settings[group] = {key: value for key, value in (settings.get(group) or {}).items() if key != name}
    start = settings.pop("ckpt_path", None)
    if start not in (None, "last"):  # `last` is a checkpoint of this run
        settings["starts_from"] = str(Path(start).expanduser().absolute())
    text = json.dumps({**_alike(settings), "trainer": _trainer(settings)}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _alike(value: Any) -> Any:
    """Writes 1.0 as 1, at every level."""
    if isinstance(value, dict):
        return {str(name): _alike(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_alike(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _trainer(resolved: dict[Any, Any]) -> dict[str, Any]:
    trainer = resolved.get("trainer", {})
    counts = {name: f"{trainer[name]} batches" for name in COUNT_OR_SHARE if isinstance(trainer.get(name), int)}
    return {**_alike(trainer), **counts}


def folder_name(overrides: str, identity: str) -> str:
    """`beta=4,data.root=/faces` -> `beta=4,data.root=-faces`: one path component, whatever was swept.

    Numbers have five digits: `beta=0.7342837482374823` -> `beta=0.73428`.
    """
    short = LONG_NUMBER.sub(lambda number: f"{float(number[0]):.5g}", overrides)
    name = short.replace(os.sep, "-").strip(". ") or "job"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}… {identity[:SHOWN_DIGITS]}"


def job_folder(overrides: str, _root_: Any) -> str:
    """The name of a job's folder in its sweep; a resolver of Hydra, `${job_folder:…}`.

    It is the folder that already holds this run or is planned for it, else one named by the overrides. Where another
    run has that name (the same command with other settings), the start of the identity is added.
    """
    sweep_dir, identity = Path(_root_.hydra.sweep.dir), identity_of(_root_)
    folders = _planned(sweep_dir)
    if identity not in folders:
        folders = folders_by_identity(sweep_dir)
    return folders.get(identity) or new_job_folder(sweep_dir, overrides, identity, folders.values())


def folders_by_identity(sweep_dir: Path) -> dict[str, str]:
    """The folders of a sweep's jobs, planned or begun, by the jobs' identities."""
    begun = {
        str(identity): status.parent.name
        for status in sorted(sweep_dir.glob(f"*/{STATUS_JSON}"), reverse=True)  # the first of several counts
        if (identity := read_status(status.parent).get("identity"))
    }
    return begun | _planned(sweep_dir)


def _planned(sweep_dir: Path) -> dict[str, str]:
    jobs = read_plan(sweep_dir).get("jobs", [])
    return {str(job["identity"]): str(job["name"]) for job in jobs if job.get("identity")}


def new_job_folder(sweep_dir: Path, overrides: str, identity: str, others: Collection[str]) -> str:
    """The folder of a job that has none yet; `others` are those of the sweep's other jobs."""
    name = folder_name(overrides, identity)
    taken = (sweep_dir / name / STATUS_JSON).exists() or (sweep_dir / name / CHECKPOINTS).exists()
    return f"{name} {identity[:SHOWN_DIGITS]}" if taken or name in others else name
