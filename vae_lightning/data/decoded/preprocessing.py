"""From the bytes of an image file to the pixels that a model sees: decode, crop, colour, resize."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from vae_lightning.data.decoded.image_files import check_size, explained_decoding, jpeg_size, opened_image
from vae_lightning.data.sources.source import DataError
from vae_lightning.system.names import not_allowed

COLORS = ("rgb", "gray")
IMAGE_SIZES = (8, 1024)  # what Preprocessing accepts, both ends included
Crop = int | tuple[int, int, int, int] | None


class TooSmallError(DataError):
    """The crop reaches beyond the image, which may be whole all the same."""


@dataclass(frozen=True)
class Preprocessing:
    """Crop first, then resize; the result equals Pillow's `crop(box).resize(size, BILINEAR)`.

    Raises: DataError for a crop, image size or colour that does not exist.
    """

    crop: Crop = 148  # side of the centred square as in torchvision.CenterCrop, or a box (left, upper, right, lower)
    #                   (stretched where it is not square); None = the largest centred square
    image_size: int = 64  # side of the result
    color: str = "rgb"  # gray = ITU-R 601 luma, as Pillow's mode "L"

    def __post_init__(self) -> None:
        if self.color not in COLORS:
            raise DataError(not_allowed("data.color", self.color, COLORS))
        low, high = IMAGE_SIZES
        if not low <= self.image_size <= high:
            raise DataError(f"data.image_size={self.image_size}: expected {low} to {high} pixels.")
        if isinstance(self.crop, int):
            valid = self.crop > 0
        elif self.crop is not None:
            left, upper, right, lower = self.crop
            valid = 0 <= left < right and 0 <= upper < lower
        else:
            valid = True
        if not valid:
            raise DataError(
                f"data.crop={self.crop}: expected the side of a centred square (178, 148 or 140 are usual for "
                "CelebA), a box [left, upper, right, lower] with left < right and upper < lower, or null for "
                "the largest square."
            )

    @property
    def channels(self) -> int:
        return 3 if self.color == "rgb" else 1

    def __call__(self, encoded: bytes) -> UInt8[Tensor, "height width channels"]:
        """Raises: DataError, without naming the file, for an image that cannot be decoded or is too small."""
        image = _decode(encoded)
        left, upper, right, lower = self._box(width=image.shape[2], height=image.shape[1])
        image = image[:, upper:lower, left:right]
        if self.color == "gray":
            image = _luma(image)
        size = (self.image_size, self.image_size)
        if image.shape[1:] != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        return image.permute(1, 2, 0)

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        if isinstance(self.crop, tuple):
            if self.crop[2] > width or self.crop[3] > height:
                raise TooSmallError(
                    f"it has {width}x{height} pixels, and the crop box {list(self.crop)} reaches beyond "
                    "them: choose data.crop inside the images, or data.crop=null for the largest centred "
                    "square"
                )
            return self.crop
        side = min(width, height) if self.crop is None else self.crop
        if side > min(width, height):
            raise TooSmallError(
                f"it has {width}x{height} pixels, less than the crop of {side}: choose a smaller data.crop, "
                "or data.crop=null for the largest centred square"
            )
        # round() as in torchvision.transforms.CenterCrop: half a pixel goes to the even side
        left, upper = round((width - side) / 2), round((height - side) / 2)
        return left, upper, left + side, upper + side


def as_crop(crop: object) -> Crop:
    """What YAML gives (a list, or OmegaConf's) as what Preprocessing takes.

    Raises: DataError for a sequence that is not four whole numbers.
    """
    if crop is None or isinstance(crop, int):
        return crop
    box = tuple(crop) if isinstance(crop, Sequence) else ()
    if len(box) != 4 or not all(isinstance(edge, int) for edge in box):
        raise DataError(
            f"data.crop={crop}: expected the side of a centred square, a box of four whole numbers "
            "[left, upper, right, lower], or null for the largest centred square."
        )
    return (box[0], box[1], box[2], box[3])


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as a person sees it: turned as its camera says, transparent parts on white, 16 bits scaled to 8.

    Raises:
        ValueError: its pixels are floats, whose range is unknown, or in a colour space that Pillow cannot convert.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit gray, which `convert` would clip to white
        levels = np.array(image, np.int32)
        np.clip(levels, 0, 65535, out=levels)
        levels += 128
        levels //= 257
        image = Image.fromarray(levels.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _decode(encoded: bytes) -> UInt8[Tensor, "rgb=3 height width"]:
    """Decode to upright RGB; torchvision's decoder for JPEG takes 0.12 ms where Pillow takes 0.4 ms."""
    decode_jpeg = load_jpeg_decoder()
    size = jpeg_size(encoded)
    if size is not None and decode_jpeg is not None:
        check_size(size)
        with explained_decoding():
            return decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), 3, True)
    with opened_image(encoded) as image:
        pixels = np.array(upright_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


@cache
def load_jpeg_decoder() -> Callable[[Tensor, int, bool], Tensor] | None:
    """torchvision's `decode_jpeg(bytes, mode, apply_exif_orientation)`; None where it has been removed.

    Not the Python function of that name, which warns since torchvision 0.29 that it will go one day. Imported
    here because torchvision takes a second that only the building of a cache has to pay.
    """
    import torchvision.io  # noqa: F401

    return getattr(torch.ops.image, "decode_jpeg", None)


def _luma(image: UInt8[Tensor, "rgb=3 height width"]) -> UInt8[Tensor, "1 height width"]:
    """ITU-R 601 luma in Pillow's integer arithmetic (Convert.c, L24)."""
    red, green, blue = image
    luma = red.to(torch.int32).mul_(19595)  # in place: an image may have 50 million pixels
    luma.add_(green, alpha=38470).add_(blue, alpha=7471).add_(0x8000)
    return luma.bitwise_right_shift_(16).to(torch.uint8)[None]
