"""Reads pictures of any size and format, and crops them as a run did with its training images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vae_lightning.data import DataError, Preprocessing
from vae_lightning.data.decoded.image_files import opened_image
from vae_lightning.data.decoded.preprocessing import as_crop, upright_rgb
from vae_lightning.data.sources.noise import SIZE as ALIGNED_SIZE
from vae_lightning.data.sources.source import MOST_IMAGE_BYTES
from vae_lightning.system.regular_files import read_regular

ALIGNED_SOURCES = ("celeba", "faces", "noise")  # their images have ALIGNED_SIZE (width, height), faces in one place


def open_photographs(paths: Sequence[Path]) -> list[Image.Image]:
    """Decoded upright RGB images of any size; of an animation the first frame.

    Raises:
        DataError: a file is missing, not an image, damaged or too large; the message names the file.
    """
    return [_open(path) for path in paths]


def as_in_training(
    images: Sequence[Image.Image], data: Mapping[str, Any], source: str
) -> UInt8[Tensor, "batch channels height width"]:
    """Pictures of any size and mode -> uint8, cropped and resized as a run did with its own.

    Args:
        images: see `Run.preprocess`.
        data: the run's configuration of its data: crop, image_size, color.
        source: of the run's images: celeba, faces, folder, noise.

    Raises:
        DataError: an image is smaller than the crop of a run on a folder of images.
        ValueError: an image without colours, see `upright_rgb`.
    """
    preprocess = Preprocessing(as_crop(data["crop"]), data["image_size"], data["color"])
    fits = preprocess.crop is not None and source in ALIGNED_SOURCES
    pixels = []
    for image in images:
        upright = upright_rgb(image)
        if fits and upright.size != ALIGNED_SIZE:
            upright = ImageOps.fit(upright, ALIGNED_SIZE)
        encoded = io.BytesIO()
        upright.save(encoded, format="ppm")  # the same code as in training reads it
        pixels.append(preprocess(encoded.getvalue()).permute(2, 0, 1))
    return torch.stack(pixels)


def _open(path: Path) -> Image.Image:
    try:
        encoded = read_regular(path, MOST_IMAGE_BYTES)
    except (OSError, ValueError) as error:  # missing, no permission; a folder, a pipe, too large
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read: {reason}. Name an image file.") from error
    try:
        with opened_image(encoded) as image:
            return upright_rgb(image)
    except DataError as error:
        raise DataError(f"{path}: {error}. Save it as JPEG or PNG in a program that shows it.") from error
