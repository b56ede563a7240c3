"""Jobs -> one row per setting, best first; several seeds of one setting give a mean and its standard error."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from vae_lightning.report.sweep import OF_LEVELS, Job, Sweep
from vae_lightning.system.whole_files import replacing

OF_VAES = ("elbo_nats", "reconstruction_nats", "kl_nats", "bits_per_dim", "active_units", "mse")
OF_RECOGNIZERS = ("loss", "accuracy", "balanced_accuracy", "auc", "r_squared")
OF_THE_RUN = {"images_per_second": "train/images_per_second", "seconds": "seconds"}
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
    def reads(self) -> str | None:
        """What its jobs predict from faces; None for autoencoders."""
        return next((job.reads for job in self.jobs if job.reads), None)

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
        """The value of a column; None where it was not measured or is not finite."""
        value = self.values.get(name)
        return None if value is None or not math.isfinite(value.mean) else value.mean


@dataclass(frozen=True)
class Table:
    """All settings of a sweep, best first; classifiers and regressors, ranked by loss, stand below autoencoders.

    `ranked_by` is of VAEs: elbo_nats, or bits_per_dim where runs differ in their pixel term or in their images: an
    ELBO in nats means something else in each of those.
    """

    settings: list[Setting]
    varied: list[str]
    split: Split
    ranked_by: Literal["elbo_nats", "bits_per_dim"]
    kinds: list[str | None]  # what its runs predict from faces, "attributes", "factors"; None first, for autoencoders

    @property
    def columns(self) -> list[str]:
        """All of VAEs where there are any, else those that were measured."""
        known = dict.fromkeys(name for setting in self.settings for name in setting.values)
        if None in self.kinds:
            known |= dict.fromkeys((*OF_VAES, *OF_THE_RUN))
        levels = [name for name in known if name.startswith(OF_LEVELS)]
        return [name for name in (*OF_VAES, *levels, *OF_RECOGNIZERS, *OF_THE_RUN) if name in known]

    @property
    def has_seeds(self) -> bool:
        return any(len(setting.jobs) > 1 for setting in self.settings)

    def ranked(self, reads: str | None) -> list[Setting]:
        """The finished settings of one kind that can be ranked at all, best first."""
        name = "loss" if reads else self.ranked_by
        finished = [entry for entry in self.settings if entry.reads == reads and entry.is_measured]
        return [entry for entry in finished if entry.mean(name) is not None]

    def best(self, reads: str | None) -> Setting | None:
        return next(iter(self.ranked(reads)), None)


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
    ranked_by: Literal["elbo_nats", "bits_per_dim"] = "elbo_nats" if elbos_compare(sweep.vaes) else "bits_per_dim"
    of_faces: list[str | None] = [None] if sweep.vaes else []
    kinds = of_faces + sorted({job.reads for job in sweep.jobs if job.reads})
    return Table(sorted(settings, key=lambda entry: rank(entry, ranked_by)), keys, split, ranked_by, kinds)


def split_to_compare(jobs: Sequence[Job]) -> Split:
    """test where every measured job has it, else val for all: numbers of two splits do not compare."""
    measured = [job for job in jobs if job.metrics]
    return "test" if measured and all({"test/mse", "test/loss"} & job.metrics.keys() for job in measured) else "val"


def elbos_compare(jobs: Sequence[Job]) -> bool:
    """Whether all VAEs among the jobs measure the same kind of pixels with the same pixel term."""
    vaes = [job for job in jobs if job.config and job.has_prior]
    keys = ("reconstruction", "data.image_size", "data.color", "data.crop")
    return len({json.dumps([job.setting(key) for key in keys], sort_keys=True, default=str) for job in vaes}) <= 1


def estimate(jobs: Sequence[Job], split: Split) -> dict[str, Estimate]:
    """Means over the finished jobs; over the others only where none has finished."""
    measured = [job for job in jobs if job.status == "done" and job.metrics] or [job for job in jobs if job.metrics]
    columns = OF_RECOGNIZERS if any(job.reads for job in jobs) else OF_VAES  # a VAE's loss is no column
    every = (key for job in measured for key in job.metrics)
    levels = [key.removeprefix(f"{split}/") for key in every if key.startswith(f"{split}/{OF_LEVELS}")]
    names = {**{name: f"{split}/{name}" for name in (*columns, *levels)}, **OF_THE_RUN}
    samples = {name: [job.metrics[key] for job in measured if key in job.metrics] for name, key in names.items()}
    return {name: mean_and_standard_error(values) for name, values in samples.items() if values}


def mean_and_standard_error(values: Sequence[float]) -> Estimate:
    """The standard error is the sample's standard deviation (n - 1) over the root of n."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Estimate(fmean(values))
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)))


def rank(setting: Setting, ranked_by: str) -> tuple[int, str, float]:
    """VAEs by ELBO (highest first) or bits (lowest first), autoencoders by mse, then by loss, then the unmeasured.

    Attribute classifiers come before factor regressors, because their losses are sums over different things.
    """
    value, mse, loss = (setting.mean(name) for name in (ranked_by, "mse", "loss"))
    if value is not None:
        return 0, "", -value if ranked_by == "elbo_nats" else value
    if mse is not None:
        return 1, "", mse
    return (3, "", 0.0) if loss is None else (2, setting.reads or "", loss)


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
    errors = [f"{name}_standard_error" for name in table.columns] if table.has_seeds else []
    header = [*table.varied, "runs", "split", *table.columns, *errors, "status", "problems"]
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for setting in table.settings:
            values = [setting.values.get(name) for name in table.columns]
            means = ["" if value is None else value.mean for value in values]
            spreads = ["" if value is None else value.standard_error for value in values] if errors else []
            overrides = [setting.overrides[key] for key in table.varied]
            known = [len(setting.jobs), table.split if setting.values else ""]
            writer.writerow([*overrides, *known, *means, *spreads, setting.status, " · ".join(setting.problems)])
