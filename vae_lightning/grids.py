"""Tensors -> one labelled picture. Pure: nothing is read, written or kept."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

GAP = 3  # pixels between images, in the picture
CELL = 128  # images smaller than this are enlarged by a whole factor, so that every pixel stays sharp
DPI = 100
POINTS_PER_PIXEL = 72 / DPI
FONT_PIXELS = 15
CHARACTER_PIXELS = 9


def tile(images: UInt8[Tensor, "rows columns channels height width"]) -> UInt8[np.ndarray, "h w 3"]:
    """Images side by side on white, gray ones as RGB, each enlarged by the same whole factor."""
    rows, columns, _, height, width = images.shape
    factor = max(1, CELL // max(height, width))
    cells = images.expand(rows, columns, 3, height, width).permute(0, 1, 3, 4, 2).cpu().numpy()
    cells = cells.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = height * factor, width * factor
    picture = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + GAP), column * (width + GAP)
            picture[top : top + height, left : left + width] = cells[row, column]
    return picture


def labelled_grid(
    images: UInt8[Tensor, "rows columns channels height width"],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    title: str = "",
) -> UInt8[np.ndarray, "h w 3"]:
    """One picture with words at its rows and columns.

    Raises:
        ValueError: the labels are not as many as the rows or columns.
    """
    rows, columns = images.shape[:2]
    if len(row_labels) != rows or (column_labels and len(column_labels) != columns):
        raise ValueError(f"{rows} x {columns} images, but {len(row_labels)} row and {len(column_labels)} column labels")
    tiles = tile(images)
    height, width = tiles.shape[:2]
    left = 12 + CHARACTER_PIXELS * max(len(line) for label in row_labels for line in label.split("\n"))
    top = 10 + (24 if title else 0) + (22 if column_labels else 0)
    right = bottom = 10
    total_width, total_height = left + width + right, top + height + bottom
    with mpl.rc_context({"font.size": FONT_PIXELS * POINTS_PER_PIXEL}):
        figure = Figure(figsize=(total_width / DPI, total_height / DPI), dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        # figimage puts pixels as they are: no resampling, no colour scale per image
        figure.figimage(tiles, xo=left, yo=bottom)
        for row, label in enumerate(row_labels):
            middle = top + (row + 0.5) * (height + GAP) / rows
            figure.text((left - 6) / total_width, 1 - middle / total_height, label, ha="right", va="center")
        for column, label in enumerate(column_labels):
            middle = left + (column + 0.5) * (width + GAP) / columns
            figure.text(middle / total_width, 1 - (top - 4) / total_height, label, ha="center", va="bottom")
        if title:
            figure.text(left / total_width, 1 - 6 / total_height, title, ha="left", va="top", weight="bold")
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
