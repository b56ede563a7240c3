"""The cards of `vae evaluate` side by side: a row per number, a column per setting, and charts over beta."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from vae_lightning.evaluation.card import ARROWS, Card, read_card
from vae_lightning.pictures.charts import Chart, figure_pixels, verbatim
from vae_lightning.report.line_styles import line_styles
from vae_lightning.report.summary import name as name_of
from vae_lightning.report.summary import spread
from vae_lightning.report.sweep import Job
from vae_lightning.report.table import Estimate, Setting, Table, mean_and_standard_error, series
from vae_lightning.runs.layout import CARD_JSON, EVALUATION
from vae_lightning.scores.result import Value
from vae_lightning.system.whole_files import replacing

# the numbers that are drawn over beta
DRAWN = (
    *("bits_per_dim", "iwae_bits_per_dim", "reconstruction_ssim", "reconstruction_lpips", "fid_reconstructions"),
    *("fid_normal", "fid_gmm", "active_units", "total_correlation_gaussian_nats", "mig", "sap", "dci_disentanglement"),
    *("dci_completeness", "dci_informativeness", "factorvae_score", "modularity", "attribute_mig", "probe_mean_auc"),
)
PANELS_PER_ROW = 4
MOST_COLUMNS = 8  # of a table that fits the page
MOST_TICKS = 6  # of beta below a panel
OF_THE_PROTOCOL = ("split", "count", "seed")


@dataclass(frozen=True)
class Row:
    """One number of all settings; None where a setting has none."""

    section: str
    value: Value  # of one run: its name, what it is, which end is better
    estimates: list[Estimate | None]

    @property
    def label(self) -> str:
        """The name, with an arrow to its better end."""
        return f"{self.value.name} {ARROWS[self.value.better]}".strip()

    @property
    def texts(self) -> list[str]:
        return ["" if each is None else spread(each, 4) for each in self.estimates]


@dataclass(frozen=True)
class Evaluations:
    """What the cards of a sweep's runs say."""

    settings: list[Setting]
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of the settings."""
        return [name_of(setting) or "run" for setting in self.settings]

    @property
    def columns(self) -> list[int]:
        """The settings that have a column on the page: of many some, from the best to the worst."""
        last = len(self.settings) - 1
        if last < MOST_COLUMNS:
            return list(range(last + 1))
        return [round(number * last / (MOST_COLUMNS - 1)) for number in range(MOST_COLUMNS)]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.value.name == name), None)


def read_evaluations(table: Table) -> Evaluations:
    """Joins the cards of the runs; damaged cards and different protocols are named among the problems."""
    problems: list[str] = []
    settings = [setting for setting in table.settings if setting.reads is None]
    cards = {job.name: _card(job, problems) for setting in settings for job in setting.jobs}
    found = [card for card in cards.values() if card is not None]
    protocols = {tuple(card.about[key] for key in OF_THE_PROTOCOL) for card in found}
    if len(protocols) > 1:
        problems.append(
            f"The cards do not compare: they differ in {', '.join(OF_THE_PROTOCOL)}. Evaluate the whole sweep at once."
        )
    rows: dict[str, Row] = {}
    for card in found:
        for section in card.sections:
            for value in section.values:
                if value.value is not None and value.name not in rows:
                    estimates = [_estimate(setting, value.name, cards) for setting in settings]
                    rows[value.name] = Row(section.title, value, estimates)
    return Evaluations(settings, list(rows.values()), problems)


def _card(job: Job, problems: list[str]) -> Card | None:
    file = job.folder / EVALUATION / CARD_JSON
    if not file.is_file():
        return None
    try:
        return read_card(file)
    except ValueError as error:
        problems.append(str(error))
        return None


def _estimate(setting: Setting, name: str, cards: dict[str, Card | None]) -> Estimate | None:
    measured = [card.values[name] for job in setting.jobs if (card := cards[job.name]) and name in card.values]
    return mean_and_standard_error(measured) if measured else None


def write_evaluations_csv(path: Path, evaluations: Evaluations) -> None:
    """A line per number, a column per setting; with several seeds a column of standard errors beside it."""
    has_seeds = any(each and each.standard_error is not None for row in evaluations.rows for each in row.estimates)
    header = [
        column for name in evaluations.names for column in ([name, f"{name} standard_error"] if has_seeds else [name])
    ]
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *header, "what it is"])
        for row in evaluations.rows:
            cells: list[float | str] = []
            for each in row.estimates:
                cells.append("" if each is None else each.mean)
                if has_seeds:
                    cells.append("" if each is None or each.standard_error is None else each.standard_error)
            writer.writerow([row.value.name, *cells, row.value.note])


def draw_against_beta(table: Table, evaluations: Evaluations) -> Chart | None:
    """A panel per number, a line over beta per architecture and latent size; None where beta does not vary."""
    lines = {name: settings for name, settings in series(table).items() if len({_beta(each) for each in settings}) > 1}
    rows = [row for name in DRAWN if (row := evaluations.row(name)) is not None]
    if not lines or not rows:
        return None
    columns = min(PANELS_PER_ROW, len(rows))
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * height + 0.5), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    keys = [key for key in table.varied if key != "beta"]
    styles = line_styles([settings[0].overrides for settings in lines.values()], keys)
    for axis, row in zip(axes, rows, strict=False):
        for number, (name, settings) in enumerate(lines.items()):
            color, dash = styles.colors[number], styles.dashes[number]
            points = _points(row, settings, evaluations.settings)
            across, up = [beta for beta, _ in points], [each.mean for _, each in points]
            errors = [each.standard_error or 0.0 for _, each in points]
            axis.errorbar(
                across, up, yerr=errors, marker="o", markersize=4, capsize=3, color=color, linestyle=dash, label=name
            )
        betas = sorted({_beta(each) for settings in lines.values() for each in settings})
        if betas[0] > 0:
            axis.set_xscale("log")
            if len(betas) <= MOST_TICKS:  # else the powers of ten
                axis.set_xticks(betas, [f"{beta:g}" for beta in betas])
                axis.minorticks_off()
        axis.set_title(verbatim(row.label), fontsize=9)
        axis.set_xlabel("β", fontsize=9, labelpad=0)
        axis.grid(alpha=0.3)
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    if styles.key:
        styles.explain(figure, list(axes))
        return figure_pixels(figure)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, map(verbatim, labels), loc="outside lower center", ncols=2, fontsize=9)
    return figure_pixels(figure)


def _beta(setting: Setting) -> float:
    return setting.jobs[0].beta or 0.0


def _points(row: Row, settings: Sequence[Setting], order: Sequence[Setting]) -> list[tuple[float, Estimate]]:
    by_setting = dict(zip(map(id, order), row.estimates, strict=True))
    known = [(_beta(setting), by_setting[id(setting)]) for setting in settings]
    return [(beta, estimate) for beta, estimate in known if estimate is not None]
