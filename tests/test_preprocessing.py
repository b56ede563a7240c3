"""Crop, resize and colour: the pixels are those of Pillow and torchvision."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from vae_lightning.data import DataError, Preprocessing, read_celeba
from vae_lightning.data.decoded.preprocessing import as_crop

Celeba = Callable[..., Path]
Box = tuple[int, int, int, int]


def pillow_pixels(encoded: bytes, box: Box, size: int, mode: str) -> UInt8[np.ndarray, "height width channels"]:
    """The independent oracle."""
    image = Image.open(io.BytesIO(encoded)).convert(mode).crop(box)
    pixels = np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    return pixels.reshape(size, size, -1)


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (178, (0, 20, 178, 198)),
        (148, (15, 35, 163, 183)),
        (140, (19, 39, 159, 179)),
        (145, (16, 36, 161, 181)),  # half a pixel: torchvision.CenterCrop rounds 16.5 and 36.5 to even
        ((15, 40, 163, 188), (15, 40, 163, 188)),
        ((0, 0, 100, 200), (0, 0, 100, 200)),
        (None, (0, 20, 178, 198)),
    ],
)
@pytest.mark.parametrize("size", [64, 128, 200])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_pixels_equal_pillows(tiny_celeba: Celeba, crop: int | Box | None, box: Box, size: int, color: str) -> None:
    encoded = read_celeba(tiny_celeba(1)).read(0)
    pixels = Preprocessing(crop, size, color)(encoded).numpy().astype(int)
    expected = pillow_pixels(encoded, box, size, "RGB" if color == "rgb" else "L")
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 1


def test_crop_as_torchvision_crops(tiny_celeba: Celeba) -> None:
    from torchvision.transforms import CenterCrop

    encoded = read_celeba(tiny_celeba(1)).read(0)
    image = Image.open(io.BytesIO(encoded))
    for side in range(130, 150):
        expected = np.array(CenterCrop(side)(image))
        np.testing.assert_array_equal(Preprocessing(side, side)(encoded).numpy(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 0}, r"data\.crop=0: expected the side"),
        ({"crop": (10, 10, 10, 20)}, r"data\.crop=\(10, 10, 10, 20\)"),
        ({"image_size": 4}, r"data\.image_size=4: expected 8 to 1024"),
        ({"color": "grey"}, r"data\.color=grey.* rgb, gray"),
    ],
)
def test_bad_preprocessing(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing(**arguments)


@pytest.mark.parametrize("crop", [[1, 2, 3], [1, 2, 3, 4.5], "148"])
def test_bad_crop_from_yaml(crop: object) -> None:
    with pytest.raises(DataError, match=r"box of four whole numbers"):
        as_crop(crop)
