"""Reads a sweep folder: what each of its jobs was, how far it came and what it measured."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vae_lightning.runs.layout import (
    CONFIG_YAML,
    DATA_JSON,
    METRICS_CSV,
    METRICS_JSON,
    OVERRIDES_YAML,
    SIGNS_OF_A_RUN,
    STATUS_JSON,
    RunError,
    checkpoint_path,
)
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.status import State, read_plan, read_status, state_of
from vae_lightning.system.names import reason_of
from vae_lightning.system.plain_files import LARGEST_MEASURED, read_plain
from vae_lightning.system.terminal import command

SIGNS_OF_A_JOB = (*SIGNS_OF_A_RUN, STATUS_JSON, CONFIG_YAML)
OF_THE_COMMAND = (
    "ckpt_path",
    "run_dir",
    "sweep",
    "hparams_search",
)  # where a run resumes or is written, not what it is
MOST_LINES = 5  # of a label, beside an image of 128 pixels
LONGEST_VALUE = 28  # characters of an override's value in a picture's label
LONGEST_NUMBER = 7  # characters; a search draws numbers of sixteen digits
OF_LEVELS = "kl_nats_"  # begins the names of the KL of a hierarchical model's levels
COLLAPSED_KL_NATS = 1.0  # as callbacks.PosteriorCollapse has it
COLLAPSED = "its posterior has collapsed: no latent is active, every face has the same latents"


@dataclass(frozen=True)
class Job:
    """One run of the sweep, as far as it can be read."""

    name: str  # of its folder: the overrides that tell it from the others
    folder: Path
    status: State
    overrides: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # resolved; empty where it cannot be read
    metrics: dict[str, float] = field(default_factory=dict)  # final, or those of the best epoch so far
    history: list[dict[str, float]] = field(default_factory=list)  # rows of metrics.csv
    data: dict[str, Any] = field(default_factory=dict)  # the data really used; empty until a run has finished
    problems: tuple[str, ...] = ()

    def setting(self, key: str) -> Any:
        """The resolved value at a dotted key; None where there is none."""
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def override(self, key: str) -> str:
        """The override's value; of a job that was started without it the resolved one, where that is plain."""
        if key in self.overrides:
            return self.overrides[key]
        value = self.setting(key)
        return _spelt_alike(str(value)) if isinstance(value, str | int | float) else ""

    @property
    def reads(self) -> str | None:
        """What the job's network predicts from faces, "attributes" or "factors"; None for an autoencoder."""
        if self.setting("recognizer") is None:
            return None
        return str(self.setting("recognizer.target") or "attributes")  # as Recognizer has it where no target is set

    @property
    def beta(self) -> float | None:
        """None where it is not known, and for a network that predicts attributes or factors, which has none."""
        if self.reads:
            return None
        value = as_number(self.overrides["beta"]) if "beta" in self.overrides else self.setting("beta")
        return float(value) if isinstance(value, int | float) else None

    @property
    def has_prior(self) -> bool:
        """False for a plain autoencoder."""
        return self.setting("model.posterior") != "deterministic"

    @property
    def has_checkpoint(self) -> bool:
        return any(checkpoint_path(self.folder, name).is_file() for name in ("best", "last"))

    @property
    def is_collapsed(self) -> bool:
        """Whether no latent says anything about a face, in the newest split that was measured."""
        measured = [split for split in ("test", "val") if f"{split}/kl_nats" in self.metrics]
        if not measured or not self.has_prior:
            return False
        kl_nats, active = (self.metrics.get(f"{measured[0]}/{name}") for name in ("kl_nats", "active_units"))
        return active == 0 and kl_nats is not None and kl_nats < COLLAPSED_KL_NATS

    @property
    def architecture(self) -> str:
        """The model's class and number of latents, of a hierarchical one the number of levels, in words."""
        name = str(self.setting("model._target_") or "model").rpartition(".")[2]
        latents = self.setting("model.latent_dim")
        levels = {key.partition(f"/{OF_LEVELS}")[2] for key in self.metrics} - {""}
        size = f", {latents} latents" if latents is not None else f", {len(levels)} levels" if levels else ""
        words = name + size
        return words if self.has_prior else f"{words}, plain autoencoder"


@dataclass(frozen=True)
class Sweep:
    """All jobs of one sweep folder, by beta first, then by the other overrides; plain autoencoders last."""

    folder: Path
    jobs: list[Job]

    @property
    def vaes(self) -> list[Job]:
        """The jobs that train autoencoders; jobs of unknown kind, without a config, count among known ones only."""
        others = [job for job in self.jobs if job.reads is None]
        return others if len(others) == len(self.jobs) or any(job.config for job in others) else []

    @cached_property
    def varied(self) -> list[str]:
        """Keys of the overrides that differ between jobs, in the order of the command line."""
        keys = list(dict.fromkeys(key for job in self.jobs for key in job.overrides))
        return [key for key in keys if len({job.override(key) for job in self.jobs}) > 1]

    @property
    def shared(self) -> dict[str, str]:
        """Overrides that all jobs have in common."""
        varied = self.varied
        keys = dict.fromkeys(key for job in self.jobs for key in job.overrides)
        return {key: self.jobs[0].override(key) for key in keys if key not in varied}

    def label(self, job: Job, separator: str = "\n") -> str:
        """The job's own overrides in few words, for rows and lines of pictures; on a few lines at most."""
        last_parts = [key.rpartition(".")[2] for key in self.varied]
        words = []
        for key, last in zip(self.varied, last_parts, strict=True):
            value = job.override(key)
            if not value:
                continue
            shown = short_number(value)
            shown = shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 1]}…"
            words.append(f"{last if last_parts.count(last) == 1 else key}={shown}")
        if separator == "\n":
            per_line = -(-len(words) // MOST_LINES) or 1
            words = [", ".join(words[start : start + per_line]) for start in range(0, len(words), per_line)]
        return separator.join(words) or job.name


def read_sweep(folder: Path) -> Sweep:
    """Reads a sweep folder; nothing in it is changed.

    Raises:
        RunError: no folder there, one run instead of a sweep, or no run in it.
    """
    expected = f"expected is a sweep's folder, multirun/<time>, as {command('python train.py -m beta=1,4,10')} makes it"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise RunError(f"{folder}: {what}; {expected}")
    if any((folder / sign).exists() for sign in SIGNS_OF_A_RUN):
        raise RunError(f"{folder} is one run; {expected}. Its sweep would be {folder.resolve().parent}")
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    jobs = [read_job(child) for child in children if any((child / sign).exists() for sign in SIGNS_OF_A_JOB)]
    if not jobs:
        raise RunError(f"{folder} holds no run; {expected}, one run folder per job in it")
    jobs += not_started(folder, jobs)
    return Sweep(folder, sorted(jobs, key=_beta_then_name))


def read_job(folder: Path) -> Job:
    """What one job left on disk; a file that cannot be read is among its problems."""
    problems: list[str] = []
    lines = _read(folder / OVERRIDES_YAML, problems)
    overrides = split_overrides(lines if isinstance(lines, list) else folder.name.split(","))
    history = _read_history(folder / METRICS_CSV, problems)
    metrics = _numbers(_read(folder / METRICS_JSON, problems))
    status = state_of(folder)
    if not metrics:
        metrics = best_epoch(history)
    config, data = (_read(folder / name, problems) for name in (CONFIG_YAML, DATA_JSON))
    if not all(map(math.isfinite, metrics.values())):
        problems.append("some of its numbers are nan or inf, or beyond all that can be measured")
    if status == "failed":
        problems.append(str(read_status(folder).get("reason")))
    problems += [f"would not come out the same now: {change}" for change in _words(read_status(folder).get("changed"))]
    job = Job(
        name=folder.name,
        folder=folder,
        status=status,
        overrides=overrides,
        config=config if isinstance(config, dict) else {},
        metrics=metrics,
        history=history,
        data=data if isinstance(data, dict) else {},
        problems=tuple(problems),
    )
    return replace(job, problems=(*problems, COLLAPSED)) if job.is_collapsed else job


def best_epoch(history: Iterable[dict[str, float]]) -> dict[str, float]:
    """The validation numbers of the epoch with the lowest val/loss; empty where no epoch was validated."""
    rows = [row for row in history if math.isfinite(row.get("val/loss", math.nan))]
    best = min(rows, key=lambda row: row["val/loss"], default={})
    return {name: value for name, value in best.items() if name.startswith("val/")}


def not_started(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """Jobs that are planned and have no folder yet."""
    there = {job.name for job in jobs}
    planned = [job for job in read_plan(folder).get("jobs", []) if job["name"] not in there]
    return [Job(job["name"], folder / job["name"], "not started", split_overrides(job["overrides"])) for job in planned]


def origins(jobs: Sequence[Job]) -> list[str]:
    """Sentences about jobs that were not made with the same code and libraries, or from the same images."""
    finished = [job for job in jobs if job.status == "done"]
    codes = {json.dumps(read_status(job.folder).get("made_with"), sort_keys=True) for job in finished}
    contents = {str(job.data.get("content")) for job in finished}  # the fingerprint of a mere copy is another
    sentences = []
    if len(codes) > 1:
        sentences.append("Not all jobs were made with the same code and libraries (status.json in their folders).")
    if len(contents) > 1 and len({describing(job.data) for job in finished}) == 1:
        sentences.append("The images changed between jobs: their content differs (data.json in their folders).")
    return sentences


def describing(data: Mapping[str, Any]) -> str:
    """What a data record says, but for the hashes."""
    hashes = ("fingerprint", "content", "annotation")
    return json.dumps({name: value for name, value in data.items() if name not in hashes}, sort_keys=True)


def split_overrides(lines: Iterable[Any]) -> dict[str, str]:
    """`+model.width=3` -> {"model.width": "3"}, spelt alike however it was typed."""
    pairs = (str(line).lstrip("+~").partition("=") for line in lines)
    return {
        key: _spelt_alike(value)
        for key, _, value in pairs
        if key not in OF_THE_COMMAND or (key == "ckpt_path" and value != "last")
    }


def _spelt_alike(value: str) -> str:
    """Hydra rewrites what was typed: true to True, 1e-3 to 0.001, quotes away; None and null are one."""
    value = value.strip("'\"")
    words = {"true": "true", "false": "false", "null": "null", "none": "null"}
    number = as_number(value)
    return words.get(value.lower(), value if number is None else f"{number:.12g}")


def short_number(value: str) -> str:
    """`0.734283748237` -> `0.7343`; other words, and numbers that a person typed, stay."""
    number = as_number(value)
    return value if number is None or len(value) <= LONGEST_NUMBER else f"{number:.4g}"


def as_number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def natural_order(value: str) -> tuple[int, float, str]:
    """Numbers by size before words by letters: 4 before 10."""
    number = as_number(value)
    return (1, 0.0, value) if number is None or math.isnan(number) else (0, number, "")


def _beta_then_name(job: Job) -> tuple[Any, ...]:
    beta = job.beta
    others = sorted((key, natural_order(value)) for key, value in job.overrides.items() if key != "beta")
    # autoencoders last: their beta does nothing
    return (not job.has_prior, math.inf if beta is None else beta, others, job.name)


def _read(path: Path, problems: list[str]) -> Any:
    """The content of a JSON or YAML file; None where there is none, or none that can be read."""
    if not path.is_file():
        return None
    try:
        return read_plain(path)
    except (ValueError, OSError) as error:
        problems.append(f"{path.name} is damaged: {reason_of(error)}")
        return None


def _read_history(path: Path, problems: list[str]) -> list[dict[str, float]]:
    try:
        rows = read_metrics(path, lambda column: column.startswith("val/"))
        return [_numbers(row) for row in rows if "step" in row]
    except (ValueError, OSError) as error:
        problems.append(f"{path.name} is damaged: {reason_of(error)}")
        return []


def _words(content: Any) -> list[str]:
    return [str(word) for word in content] if isinstance(content, list) else []


def _numbers(content: Any) -> dict[str, float]:
    if not isinstance(content, dict):
        return {}
    numbers = {str(name): float(value) for name, value in content.items() if isinstance(value, int | float)}
    return {name: value if abs(value) <= LARGEST_MEASURED else math.nan for name, value in numbers.items()}
