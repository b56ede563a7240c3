"""Jobs -> one row per setting, best first; several seeds of one setting give a mean and its standard error."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from vae_lightning.files import replacing
from vae_lightning.report.sweep import Job, Sweep

MEASURED = ("elbo_nats", "reconstruction_nats", "kl_nats", "bits_per_dim", "active_units", "mse")
OF_THE_RUN = {"images_per_second": "train/images_per_second", "seconds": "seconds"}
COLUMNS = (*MEASURED, *OF_THE_RUN)
Split = Literal["val", "test"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds. Its standard error is None for a single run."""

    mean: float
    standard_error: float | None = None


@dataclass(frozen=True)
class Setting:
    """Jobs that differ in nothing but their seed."""

    overrides: dict[str, str]  # those that differ between settings
    jobs: list[Job]
    values: dict[str, Estimate]

    @property
    def status(self) -> str:
        """The jobs' own, counted where they differ: `2 done, 1 failed`."""
        states = [job.status for job in self.jobs]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        return states[0] if len(counts) == 1 else ", ".join(f"{count} {state}" for state, count in counts.items())

    @property
    def is_measured(self) -> bool:
        """Whether the values are those of finished runs."""
        return bool(self.values) and any(job.status == "done" for job in self.jobs)

    @property
    def problems(self) -> list[str]:
        several = len(self.jobs) > 1
        return [f"{job.name}: {text}" if several else text for job in self.jobs for text in job.problems]

    def mean(self, name: str) -> float | None:
        """The value of a column; None where it was not measured or is no number."""
        value = self.values.get(name)
        return None if value is None or not math.isfinite(value.mean) else value.mean


@dataclass(frozen=True)
class Table:
    """All settings of a sweep, best first.

    `ranked_by` is elbo_nats, or bits_per_dim where runs differ in their pixel term or in their images: an ELBO in
    nats means something else in each of those.
    """

    settings: list[Setting]
    varied: list[str]
    split: Split
    ranked_by: Literal["elbo_nats", "bits_per_dim"]

    @property
    def has_seeds(self) -> bool:
        return any(len(setting.jobs) > 1 for setting in self.settings)

    @property
    def best(self) -> Setting | None:
        """The first finished setting that can be ranked at all."""
        ranked = (entry for entry in self.settings if entry.is_measured and entry.mean(self.ranked_by) is not None)
        return next(ranked, None)


def make_table(sweep: Sweep, join_seeds: bool = True) -> Table:
    """Groups the jobs by their overrides, measures and ranks them.

    Args:
        sweep: the jobs.
        join_seeds: False gives every job a row of its own.
    """
    keys = [key for key in sweep.varied if not (join_seeds and key == "seed")]
    split = split_to_compare(sweep.jobs)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in sweep.jobs:
        groups.setdefault(tuple(job.override(key) for key in keys), []).append(job)
    settings = [
        Setting(dict(zip(keys, values, strict=True)), jobs, estimate(jobs, split)) for values, jobs in groups.items()
    ]
    ranked_by: Literal["elbo_nats", "bits_per_dim"] = "elbo_nats" if elbos_compare(sweep.jobs) else "bits_per_dim"
    return Table(sorted(settings, key=lambda entry: rank(entry, ranked_by)), keys, split, ranked_by)


def split_to_compare(jobs: Sequence[Job]) -> Split:
    """test where every measured job has it, else val for all: numbers of two splits do not compare."""
    measured = [job for job in jobs if job.metrics]
    return "test" if measured and all(f"test/{MEASURED[-1]}" in job.metrics for job in measured) else "val"


def elbos_compare(jobs: Sequence[Job]) -> bool:
    """Whether all VAEs of the sweep measure the same kind of pixels with the same pixel term."""
    vaes = [job for job in jobs if job.config and job.has_prior]
    keys = ("reconstruction", "data.image_size", "data.color", "data.crop")
    return len({json.dumps([job.setting(key) for key in keys], sort_keys=True, default=str) for job in vaes}) <= 1


def estimate(jobs: Sequence[Job], split: Split) -> dict[str, Estimate]:
    """Means over the finished jobs; over the others only where none has finished."""
    measured = [job for job in jobs if job.status == "done" and job.metrics] or [job for job in jobs if job.metrics]
    names = {**{name: f"{split}/{name}" for name in MEASURED}, **OF_THE_RUN}
    samples = {name: [job.metrics[key] for job in measured if key in job.metrics] for name, key in names.items()}
    return {name: mean_and_standard_error(values) for name, values in samples.items() if values}


def mean_and_standard_error(values: Sequence[float]) -> Estimate:
    """The standard error is the sample's standard deviation (n - 1) over the root of n."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Estimate(fmean(values))
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)))


def rank(setting: Setting, ranked_by: str) -> tuple[int, float]:
    """VAEs by ELBO (highest first) or bits (lowest first), then autoencoders by mse, then what was not measured."""
    value, mse = setting.mean(ranked_by), setting.mean("mse")
    if value is not None:
        return 0, -value if ranked_by == "elbo_nats" else value
    return (2, 0.0) if mse is None else (1, mse)


def series(table: Table) -> dict[str, list[Setting]]:
    """Settings that differ in beta alone, ascending: one line each in a picture, named by architecture and latents."""
    named = {"beta", "model", "model.latent_dim", "posterior"}
    lines: dict[str, list[Setting]] = {}
    for setting in table.settings:
        job = setting.jobs[0]
        if job.beta is None or not job.config:
            continue
        others = [f"{key}={value}" for key, value in setting.overrides.items() if value and key not in named]
        lines.setdefault(", ".join([job.architecture, *others]), []).append(setting)
    return {name: sorted(lines[name], key=lambda entry: entry.jobs[0].beta or 0.0) for name in sorted(lines)}


def write_csv(path: Path, table: Table) -> None:
    """One line per setting, in the order of the table; empty cells where nothing was measured."""
    errors = [f"{name}_standard_error" for name in COLUMNS] if table.has_seeds else []
    header = [*table.varied, "runs", "split", *COLUMNS, *errors, "status", "problems"]
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for setting in table.settings:
            values = [setting.values.get(name) for name in COLUMNS]
            means = ["" if value is None else value.mean for value in values]
            spreads = ["" if value is None else value.standard_error for value in values] if errors else []
            overrides = [setting.overrides[key] for key in table.varied]
            known = [len(setting.jobs), table.split if setting.values else ""]
            writer.writerow([*overrides, *known, *means, *spreads, setting.status, " · ".join(setting.problems)])
