"""Numbers -> one chart as pixels. Pure: nothing is read, written or kept."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

# After Okabe and Ito, distinguishable for the colour-blind; dark enough for text on white (contrast above 4.5)
COLORS = ("#0072b2", "#b34700", "#007a5a", "#a3427f", "#000000", "#806500", "#2f6d94")

LEAST_NATS = 0.01  # shown on a logarithmic axis; a level with less is silent

Chart = UInt8[np.ndarray, "_height _width 3"]
Curve = Float[np.ndarray, "_points 2"]  # optimizer step, value


def verbatim(text: str) -> str:
    """Text for matplotlib in which a dollar sign stays one, instead of starting a formula."""
    return text.replace("$", r"\$")


def figure_pixels(figure: Figure) -> Chart:
    """A figure of matplotlib, drawn without a window."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def annotate_apart(figure: Figure, axis: Axes, labels: Sequence[tuple[float, float, str, Any]]) -> None:
    """Writes labels beside points, the first and the last first; one that would cover another is left out.

    Args:
        figure: complete but for the labels, because they do not move any more.
        axis: of the figure.
        labels: position in the data, text and colour of each.
    """
    figure.draw_without_rendering()
    to_pixels = axis.transData
    written: list[Bbox] = []
    for x, y, text, color in [*labels[:1], *labels[-1:], *labels[1:-1]]:
        note = axis.annotate(text, (x, y), color=color, xytext=(6, 6), textcoords="offset points", fontsize=9)
        box = note.get_window_extent()
        points = [to_pixels.transform(place[:2]) for place in labels if place[:2] != (x, y)]
        if any(box.overlaps(other) for other in written) or sum(box.contains(*point) for point in points) > 1:
            note.remove()
        else:
            written.append(box)


def draw_lines(
    title: str, across: str, up: str, positions: Sequence[float], lines: Mapping[str, Sequence[float]]
) -> Chart:
    """A line per name over positions that double, such as numbers of samples."""
    figure = Figure(figsize=(7, 3.6), dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    for color, (name, values) in zip(COLORS, lines.items(), strict=False):
        axis.plot(positions, values, marker="o", color=color, label=name)
    axis.set_xscale("log", base=2)
    axis.set_xticks(positions, [f"{position:g}" for position in positions])
    axis.set(title=title, xlabel=across, ylabel=up)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend()
    return figure_pixels(figure)


def draw_kl_per_latent(kl_nats_per_latent: Float[np.ndarray, " latent"], title: str) -> Chart:
    """Bars, largest first, and a histogram beside them; nats, averaged over images."""
    figure = Figure(figsize=(11, 3.2), dpi=100, facecolor="white")
    bars, histogram = figure.add_axes((0.06, 0.17, 0.6, 0.71)), figure.add_axes((0.72, 0.17, 0.27, 0.71))
    bars.stairs(np.sort(kl_nats_per_latent)[::-1], fill=True)
    bars.set(
        title=f"KL per latent, {kl_nats_per_latent.sum():.1f} nats in all · {title}",
        xlabel="latents, largest KL first",
        ylabel="nats",
    )
    bars.margins(x=0)
    histogram.hist(kl_nats_per_latent, bins=20)
    histogram.set(title="histogram", xlabel="nats", ylabel="latents")
    bars.ticklabel_format(
        axis="y", style="sci", scilimits=(-3, 5)
    )  # room for the tiny KL of thousands of inactive latents
    for axis in (bars, histogram):
        axis.grid(axis="y", alpha=0.3)
    return figure_pixels(figure)


def draw_kl_per_level(curves: Mapping[str, Mapping[str, Curve]], title: str) -> Chart:
    """A colour for each level, coarse first: training as a line, validation as dots, over optimizer steps.

    Args:
        curves: nats, averaged over images, by the level's name and by split ("train", "val").
        title: what stands behind the name of the chart.
    """
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.set_yscale("log")
    for number, (name, splits) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        for split, style in (("train", "-"), ("val", "o")):
            steps, nats = splits[split].T
            axis.plot(steps, np.maximum(nats, LEAST_NATS), style, color=color, linewidth=1.2, markersize=5)
        newest = splits["val"][-1, 1] if len(splits["val"]) else math.nan
        axis.plot([], [], "o-", color=color, label=f"{name}: {newest:.4g} nats")
    axis.set(title=f"KL by level, training (lines) and validation (dots) · {title}", xlabel="step", ylabel="nats")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", title="validation")
    return figure_pixels(figure)
