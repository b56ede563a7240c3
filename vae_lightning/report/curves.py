"""Charts of a sweep's numbers: rate against distortion over beta, and the validation curves of training."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from vae_lightning.pictures.charts import annotate_apart, figure_pixels, verbatim
from vae_lightning.report.beta_choice import position
from vae_lightning.report.line_styles import LineStyles, line_styles
from vae_lightning.report.sweep import Job, Sweep
from vae_lightning.report.table import Table, series

PANELS = {"elbo_nats": "ELBO at β = 1", "reconstruction_nats": "reconstruction", "kl_nats": "KL", "mse": "mse"}
UNITS = {"mse": "per pixel, [0, 1] scale"}
LONGEST_OF_TWO_COLUMNS, LONGEST_OF_ONE_COLUMN = 48, 95  # characters of a line in a legend
MANY_ROWS = 10  # with fewer, all of a curve is shown


def draw_rate_distortion(table: Table) -> UInt8[np.ndarray, "h w 3"] | None:
    """KL against reconstruction, a line over beta per architecture and latent size; None without a finished VAE.

    Where the runs' pixel terms differ, distortion is the mse: it means the same in all of them.
    """
    distortion = "reconstruction_nats" if table.ranked_by == "elbo_nats" else "mse"
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained", facecolor="white")
    axis = figure.subplots()
    measured = {
        name: [entry for entry in settings if entry.is_measured and None not in position(entry, distortion)]
        for name, settings in series(table).items()
    }
    lines = {name: points for name, points in measured.items() if points}
    if not lines:
        return None
    keys = [key for key in table.varied if key != "beta"]
    styles = line_styles([points[0].overrides for points in lines.values()], keys)
    labels: list[tuple[float, float, str, Any]] = []
    for number, (name, points) in enumerate(lines.items()):
        across, up = ([entry.values[key] for entry in points] for key in ("kl_nats", distortion))
        axis.errorbar(
            [value.mean for value in across],
            [value.mean for value in up],
            xerr=[value.standard_error or 0.0 for value in across],
            yerr=[value.standard_error or 0.0 for value in up],
            marker="o",
            markersize=6 if len(points) <= MANY_ROWS else 3,
            capsize=3,
            label=name,
            color=styles.colors[number],
            linestyle=styles.dashes[number],
        )
        for entry, x, y in zip(points, across, up, strict=True):
            labels.append((x.mean, y.mean, f"β={entry.jobs[0].beta:.4g}", styles.colors[number]))
    unit = UNITS.get(distortion, "nats per image")
    axis.set(xlabel="rate: KL, nats per image", ylabel=f"distortion: {PANELS[distortion]}, {unit}")
    axis.set_title(f"Rate and distortion, {table.split} split (lower left is better)")
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    _explain(figure, styles)
    annotate_apart(figure, axis, labels)
    return figure_pixels(figure)


def draw_training_curves(sweep: Sweep) -> UInt8[np.ndarray, "h w 3"] | None:
    """Validation terms of every run over optimizer steps; None where no run was validated.

    Each of a few runs has its name; of many the colour is the value that was swept, beta where it was.
    """
    jobs = [job for job in sweep.jobs if any(f"val/{'loss' if job.reads else 'mse'}" in row for row in job.history)]
    panels = _panels(jobs)
    if not panels:
        return None
    keys = sorted(sweep.varied, key=lambda key: (key == "seed", key != "beta"))
    styles = line_styles([{key: job.override(key) for key in keys} for job in jobs], keys)
    in_legend = 0 if styles.key else len(jobs)
    figure = Figure(figsize=(9, 2.9 * len(panels) + 0.2 * in_legend), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (reads, name, title) in zip(axes, panels, strict=True):
        visible: list[float] = []
        for number, job in enumerate(jobs):
            rows = _validated(job, reads, name)  # a job of another kind stands in the legend only
            state = "" if job.status == "done" else f" ({job.status})"
            axis.plot(
                [row["step"] for row in rows],
                [row[f"val/{name}"] for row in rows],
                linestyle=styles.dashes[number],
                color=styles.colors[number],
                marker="o" if len(rows) <= MANY_ROWS and not styles.key else None,
                markersize=4,
                linewidth=0.9 if styles.key else 1.5,
                label=sweep.label(job, ", ") + state,
            )
            visible += _settled([row[f"val/{name}"] for row in rows])
        room = 0.06 * (max(visible) - min(visible)) + 1e-6
        axis.set_ylim(min(visible) - room, max(visible) + room)
        axis.set(title=title, ylabel=UNITS.get(name, "nats per image"))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("optimizer step")
    _explain(figure, styles)
    return figure_pixels(figure)


def _panels(jobs: Sequence[Job]) -> list[tuple[str | None, str, str]]:
    """Per panel: what its runs predict from faces (None for VAEs), the logged number, the title."""
    panels: list[tuple[str | None, str, str]] = [(None, name, title) for name, title in PANELS.items()]
    panels += [(reads, "loss", f"loss over {reads}") for reads in sorted({job.reads for job in jobs if job.reads})]
    return [(reads, name, title) for reads, name, title in panels if any(_validated(job, reads, name) for job in jobs)]


def _validated(job: Job, reads: str | None, name: str) -> list[dict[str, float]]:
    """The epochs in which the job logged this number; empty where the job is of another kind."""
    if job.reads != reads:
        return []
    return [row for row in job.history if math.isfinite(row.get(f"val/{name}", math.nan))]


def _explain(figure: Figure, styles: LineStyles) -> None:
    if styles.key:
        styles.explain(figure, figure.axes)
    else:
        _legend_below(figure)


def _legend_below(figure: Figure) -> None:
    """Outside, so that it hides nothing; in two columns where the names are short enough."""
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    num_columns = 1 if max(map(len, labels)) > LONGEST_OF_TWO_COLUMNS else 2
    wrapped = [textwrap.fill(verbatim(label), LONGEST_OF_ONE_COLUMN, subsequent_indent="    ") for label in labels]
    figure.legend(handles, wrapped, loc="outside lower center", ncols=num_columns, fontsize=9)


def _settled(values: Sequence[float]) -> Sequence[float]:
    """A curve without its first tenth, which is so much worse that it would flatten all the rest."""
    return values if len(values) <= MANY_ROWS else values[len(values) // 10 :]
