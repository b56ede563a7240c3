"""Tensors to one labelled picture, and pictures to PNG files."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae_lightning.system.whole_files import replacing

GAP = 3  # pixels between images, in the picture
CELL = 128  # smaller images are enlarged by a whole factor, so that pixels stay sharp
MARGIN = 10
FONT_PIXELS = 17
LINE = 24  # height of the title and of the column labels
PNG_COMPRESSION = 1  # a quarter of the time of the default, files a sixth larger


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


@cache
def _font(weight: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and has Greek letters."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{weight}.ttf", FONT_PIXELS)


def labelled_grid(
    images: UInt8[Tensor, "rows columns channels height width"],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    title: str = "",
) -> UInt8[np.ndarray, "h w 3"]:
    """One picture with labels at its rows and columns; the images' pixels do not change.

    Pillow draws the text: matplotlib would take twenty times as long, in every epoch of every run.

    Raises:
        ValueError: the numbers of labels and of rows or columns differ.
    """
    rows, columns = images.shape[:2]
    if len(row_labels) != rows or (column_labels and len(column_labels) != columns):
        raise ValueError(f"{rows} x {columns} images, but {len(row_labels)} row and {len(column_labels)} column labels")
    tiles = Image.fromarray(tile(images))
    font, bold = _font(), _font("-Bold")
    words = [line for label in row_labels for line in label.split("\n")]
    left = 2 * MARGIN + round(max(font.getlength(line) for line in words))
    top = MARGIN + LINE * (bool(title) + bool(column_labels))
    width = max(left + tiles.width, MARGIN + round(bold.getlength(title))) + MARGIN
    picture = Image.new("RGB", (width, top + tiles.height + MARGIN), "white")
    picture.paste(tiles, (left, top))
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN / 2), title, "black", bold)
    for row, label in enumerate(row_labels):
        middle = top + (row + 0.5) * (tiles.height + GAP) / rows
        draw.multiline_text((left - MARGIN, middle), label, "black", font, anchor="rm", align="right")
    for column, label in enumerate(column_labels):
        middle = left + (column + 0.5) * (tiles.width + GAP) / columns
        draw.text((middle, top - 8), label, "black", font, anchor="ms")  # on one line, with or without descenders
    return np.asarray(picture)


def as_png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="png", compress_level=PNG_COMPRESSION)
    return encoded.getvalue()


def write_picture(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Writes a PNG and returns its bytes, so that a dashboard need not encode the picture again."""
    png = as_png(picture)
    with replacing(path) as unfinished:
        unfinished.write_bytes(png)
    return png
