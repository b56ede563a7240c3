"""Opens image files that may come from anybody: checks their size before decoding, and explains what is wrong."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image, UnidentifiedImageError

from vae_lightning.data.sources.source import DataError

MOST_PIXELS = 50_000_000  # of any image that is decoded: photographs of today's cameras and telephones
MOST_SIDE = 32_768  # Pillow keeps a pointer per row: one column of 50 million pixels takes 2 GB and ten seconds
# others that Pillow knows are rare, and some of them start a program (EPS)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
START_OF_IMAGE = b"\xff\xd8"
# JPEG's markers that give the size: SOF0 to SOF15 without DHT, JPG and DAC
WITH_A_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# and those that stand before it, with a length: these, the application's own and comments
WITH_A_LENGTH = frozenset({0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})
# all that Pillow was seen to raise at damaged files
UNDECODABLE = (OSError, RuntimeError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError)


@contextmanager
def opened_image(encoded: bytes) -> Iterator[Image.Image]:
    """An image whose header has been read; its pixels are decoded when they are asked for, in the block.

    Raises:
        DataError: it is not an image, or too large, or damaged. The message does not name the file.
    """
    with explained_decoding(), Image.open(io.BytesIO(encoded), formats=readable_formats()) as image:
        check_size(image.size)
        yield image


@cache
def readable_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow has a decoder for: asked for another, it would refuse every file."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def explained_decoding() -> Iterator[None]:
    """Turns what decoders raise into a DataError that says what is wrong with the image, without naming the file."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("it is not an image that can be decoded") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise DataError(f"it is too large ({error})") from error
    except (struct.error, *UNDECODABLE) as error:
        reason = str(error).partition("\n")[0]
        if ".cpp:" in reason:  # torchvision puts the line of its C++ source before the reason
            reason = reason.rpartition(", ")[2]
        raise DataError(f"it cannot be decoded ({reason})") from error


def check_size(size: tuple[int, int]) -> None:
    """Raises: DataError for more pixels than MOST_PIXELS, or for a side of more than MOST_SIDE."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataError(f"it has {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million: make it smaller")
    if max(size) > MOST_SIDE:
        raise DataError(f"it has {width}x{height} pixels, more than {MOST_SIDE:,} on a side: make it smaller")


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG file by its frame header, in 2 µs; None for other files, and for odd ones.

    torchvision's decoder makes room for whatever the header claims. Source: ITU-T T.81, B.1 and B.2.2.
    """
    if encoded[:2] != START_OF_IMAGE:
        return None
    position = 2
    while position + 9 <= len(encoded) and encoded[position] == 0xFF:
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4])
        if marker in WITH_A_SIZE:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return (width, height) if width and height else None
        if marker not in WITH_A_LENGTH or length < 2:
            return None
        position += 2 + length
    return None
