"""Pictures that people bring, whatever their cameras and programs made of them."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vae_lightning.data import DataError
from vae_lightning.data.preprocessing import explained_decoding, upright_rgb


def open_photographs(paths: Sequence[Path]) -> list[Image.Image]:
    """Decoded upright RGB images of any size, of an animation the first frame; see `Run.preprocess` for what to give.

    Raises:
        DataError: a file that is not there, is a folder, is no image, is damaged or is too large; it names the file.
    """
    return [_open(path) for path in paths]


def _open(path: Path) -> Image.Image:
    try:
        encoded = path.read_bytes()
    except OSError as error:  # not there, a folder, not ours to read
        raise DataError(f"{path} cannot be read: {error.strerror}. Name an image file.") from error
    try:
        with explained_decoding(), Image.open(io.BytesIO(encoded)) as image:
            return upright_rgb(image)
    except DataError as error:
        raise DataError(f"{path}: {error}. Save it as JPEG or PNG in a program that shows it.") from error
