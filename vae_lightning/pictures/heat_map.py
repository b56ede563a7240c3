"""Heat maps: shares in 0 to 1, such as of factors by latents, and signed values in -1 to 1."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.colors import FuncNorm, PowerNorm
from matplotlib.figure import Figure

from vae_lightning.pictures.charts import Chart, figure_pixels

MOST_LATENTS = 40  # columns; more could not be labelled readably
LEAST_WRITTEN = 0.1  # smaller values have a colour, but no number
DARK = 0.45  # above it numbers are white


def draw_heat_map(
    shares: Float[np.ndarray, "factors latents"],
    factors: Sequence[str],
    latents: Int64[np.ndarray, " latents"],
    title: str,
) -> UInt8[np.ndarray, "height width 3"]:
    """Factors by the most informative latents; latents of the same factor stand together.

    Shares lie in 0 to 1; colours follow their square root, so that weak ones show. A disentangled
    code has one dark cell in each row and in each column.
    """
    most = np.sort(np.argsort(-shares.max(0), kind="stable")[:MOST_LATENTS])
    columns = most[np.lexsort((-shares[:, most].max(0), shares[:, most].argmax(0)))]
    size = (2.6 + 0.24 * len(columns), 1.6 + 0.24 * len(factors))
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    image = axis.imshow(shares[:, columns], cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), aspect="auto")
    axis.set_xticks(range(len(columns)), [str(latents[column]) for column in columns], rotation=90, fontsize=8)
    axis.set_yticks(range(len(factors)), list(factors), fontsize=8)
    axis.set_xlabel("latent")
    axis.set_title(title, fontsize=10, loc="left")
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02)
    return figure_pixels(figure)


def draw_signed(
    values: Float[np.ndarray, "rows columns"], rows: Sequence[str], columns: Sequence[str], title: str, across: str
) -> Chart:
    """A heat map of values in -1 to 1, always with these colours: red above 0, blue below.

    Colours follow the root of the absolute value, so that weak ones show. Numbers are hundredths.
    """
    size = (3.0 + 0.27 * len(columns), 1.9 + 0.24 * len(rows))
    figure = Figure(figsize=size, dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    norm = FuncNorm((_signed_root, _signed_square), vmin=-1.0, vmax=1.0)
    image = axis.imshow(values, cmap="RdBu_r", norm=norm, aspect="auto")
    for row, column in np.argwhere(np.abs(values) >= LEAST_WRITTEN):
        value = values[row, column]
        color = "white" if abs(value) > DARK else "black"
        axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=color)
    axis.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=8)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axis.set_xlabel(across)
    axis.set_title(title, fontsize=10, loc="left")
    ticks = [-1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0]
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02, ticks=ticks)
    return figure_pixels(figure)


def _signed_root(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.sign(values) * np.square(values)
