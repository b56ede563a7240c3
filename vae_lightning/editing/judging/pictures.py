"""Charts of the side effects of edits against their change of the target."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from vae_lightning.editing.judging.scores import EditScore
from vae_lightning.pictures.charts import COLORS, Chart, figure_pixels

LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>"
MOST_OUTPUTS = 40  # columns, so that their numbers can be read
LEAK_RANGE = 1.0  # sd; the same in all pictures, so that they compare


def draw_trade_off(scores: Mapping[str, Sequence[EditScore]], asked: str, judged: str, count: int) -> Chart:
    """Change of the target against leakage, and against identity distance; dotted where methods are compared."""
    figure = Figure(figsize=(13, 5 + 0.12 * len(scores)), dpi=100, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    _draw_panel(left, scores, "leakage", "mean |change| of the other outputs (sd)", "Leakage")
    _draw_panel(right, scores, "identity_distance", "1 = two different people", "Identity distance")
    figure.suptitle(
        f"{asked}: what else changes with the target ({count} images; numbers at the marks are strengths, "
        f"bars 95 % intervals)\n{judged}",
        fontsize=12,
    )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure_pixels(figure)


def _draw_panel(axis: Axes, scores: Mapping[str, Sequence[EditScore]], name: str, up: str, title: str) -> None:
    axis.axvline(1.0, color="0.6", linewidth=1, linestyle=(0, (1, 3)))
    for number, (method, each) in enumerate(scores.items()):
        color = COLORS[number % len(COLORS)]
        style = LINE_STYLES[number // len(COLORS) % len(LINE_STYLES)]
        changes = [score.target_change for score in each]
        values = [getattr(score, name) for score in each]
        axis.plot([0, *changes], [0, *values], color=color, linestyle=style, linewidth=1.6)
        ends = np.array([np.quantile(score.resampled[name], [0.025, 0.975]) for score in each])
        axis.vlines(changes, ends[:, 0], ends[:, 1], color=color, alpha=0.4, linewidth=3)
        marker = MARKERS[number % len(MARKERS)]
        axis.plot(changes, values, color=color, linestyle=style, marker=marker, markersize=6, label=method)
        for score, change, value in zip(each, changes, values, strict=True):
            # above the upper lines, below the lower ones: fewer numbers lie on one another
            offset = (0, 7) if number % 2 == 0 else (0, -14)
            axis.annotate(
                f"{score.strength:g}",
                (change, value),
                xytext=offset,
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=color,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],  # where lines cross the numbers
            )
    axis.set(title=title, xlabel="change of the target (sd of the judge's readings)", ylabel=up)
    axis.grid(alpha=0.3)


def draw_leaks(scores: Mapping[str, EditScore], asked: str) -> Chart:
    """Methods by the outputs that change most, signed, at one strength of each method."""
    names = np.array(list(next(iter(scores.values())).mean_changes))
    changes = np.array([[score.mean_changes[name] for name in names] for score in scores.values()])
    most = np.argsort(-np.abs(changes).max(0), kind="stable")[:MOST_OUTPUTS]
    shown = changes[:, most]
    size = (4.2 + 0.36 * len(most), 2.6 + 0.36 * len(scores))
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    image = axis.imshow(shown, cmap="RdBu_r", vmin=-LEAK_RANGE, vmax=LEAK_RANGE, aspect="auto")
    axis.set_xticks(range(len(most)), [str(name) for name in names[most]], rotation=90, fontsize=8)
    labels = [f"{name} (strength {score.strength:g}: {score.target_change:+.2f} sd)" for name, score in scores.items()]
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    for (row, column), value in np.ndenumerate(shown):
        color = "white" if abs(value) > 0.6 * LEAK_RANGE else "black"
        words = f"{value:+.1f}" if abs(value) >= 0.05 else ""
        axis.text(column, row, words, ha="center", va="center", fontsize=7, color=color)
    title = (
        f"{asked}: mean change of the other outputs in sd (none written: below 0.05), "
        f"colours from -{LEAK_RANGE:g} to +{LEAK_RANGE:g}"
    )
    axis.set_title(title, fontsize=10, loc="left")
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01, extend="both")
    return figure_pixels(figure)
