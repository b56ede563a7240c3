"""Image files of every kind, those that claim to be large, and those that are nearly right."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated
from PIL import Image

from vae_lightning.data import DataError
from vae_lightning.data.decoded.image_files import MOST_PIXELS, MOST_SIDE, jpeg_size
from vae_lightning.data.decoded.preprocessing import Preprocessing, load_jpeg_decoder
from vae_lightning.data.preparation.checking import check_celeba
from vae_lightning.data.sources.source import MOST_IMAGE_BYTES, FolderStore
from vae_lightning.runs.photographs import open_photographs

Celeba = Callable[..., Path]


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix in ("png", "webp", "bmp") for mode in ("RGB", "L", "RGBA", "P")]
    + [("jpg", mode) for mode in ("RGB", "L", "CMYK")],
)
def test_every_kind_of_file_decodes(suffix: str, mode: str) -> None:
    buffer = io.BytesIO()
    image = Image.new("RGB", (20, 20), (200, 100, 50)).convert(mode)
    image.save(buffer, {"jpg": "JPEG"}.get(suffix, suffix))
    pixels = Preprocessing(None, 8)(buffer.getvalue()).numpy().astype(int)
    gray = np.array(Image.new("RGB", (1, 1), (200, 100, 50)).convert("L")).item()
    expected = (gray, gray, gray) if mode == "L" else (200, 100, 50)
    assert np.abs(pixels - expected).max() <= 16


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_camera_orientation_is_applied(suffix: str) -> None:
    image = Image.new("L", (40, 20))
    image.paste(255, (0, 0, 20, 20))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise: left becomes top
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if suffix == "jpg" else "PNG", exif=exif)
    pixels = Preprocessing((0, 0, 20, 40), 16, "gray")(buffer.getvalue()).numpy()
    assert pixels[:6].min() > 240
    assert pixels[-6:].max() < 15


def encoded(kind: str, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, "tan").save(written, kind, **options)
    return written.getvalue()


def claiming(kind: str, width: int, height: int, **options: object) -> bytes:
    """A small picture whose header says another size."""
    content = bytearray(encoded(kind, **options))
    if kind == "jpeg":
        frame = next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := content.find(marker)) > 0)
        struct.pack_into(">HH", content, frame + 5, height, width)
    elif kind == "png":
        struct.pack_into(">II", content, 16, width, height)
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    elif kind == "gif":
        struct.pack_into("<HH", content, 6, width, height)
    elif kind == "bmp":
        struct.pack_into("<ii", content, 18, width, height)
    elif kind == "ppm":
        return b"P6\n%d %d\n255\n" % (width, height) + bytes(content[13:])
    else:
        first = int.from_bytes(content[4:8], "little")
        for entry in range(first + 2, first + 2 + 12 * int.from_bytes(content[first : first + 2], "little"), 12):
            tag, kind_of_value = struct.unpack_from("<HH", content, entry)
            if tag in (256, 257):
                struct.pack_into(
                    "<H" if kind_of_value == 3 else "<I", content, entry + 8, width if tag == 256 else height
                )
    return bytes(content)


CLAIMS = [
    ("jpeg", {}),
    ("jpeg", {"progressive": True}),
    ("png", {}),
    ("gif", {}),
    ("bmp", {}),
    ("ppm", {}),
    ("tiff", {}),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("kind", "options"), CLAIMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_picture_that_claims_60000_pixels_a_side_is_refused_unseen(
    kind: str, options: dict[str, object], tmp_path: Path
) -> None:
    for width, height in ((60_000, 60_000), (9_000, 6_000)):
        content = claiming(kind, width, height, **options)
        (tmp_path / "large").write_bytes(content)
        with pytest.raises(DataError, match=r"more than 50 million|it is too large"):
            Preprocessing(None, 64)(content)
        with pytest.raises(DataError, match=r"large: .*(more than 50 million|it is too large)"):
            open_photographs([tmp_path / "large"])


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("kind", "options"), CLAIMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_side_of_more_than_32768_pixels_is_refused_unseen(
    kind: str, options: dict[str, object], tmp_path: Path
) -> None:
    longest = 40_000 if kind in ("jpeg", "gif") else 50_000_000  # as their headers hold 16 or 32 bits
    for width, height in ((1, longest), (longest, 1)):
        content = claiming(kind, width, height, **options)
        (tmp_path / "long").write_bytes(content)
        with pytest.raises(DataError, match=r"\d+x\d+ pixels, more than 32,768 on a side"):
            Preprocessing(None, 64)(content)
        with pytest.raises(DataError, match=r"long: it has \d+x\d+ pixels, more than 32,768"):
            open_photographs([tmp_path / "long"])


def test_a_picture_of_the_longest_side_is_decoded() -> None:
    assert Preprocessing(None, 8)(encoded("png", (1, MOST_SIDE))).shape == (8, 8, 3)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": listening,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "bytes, more than the": lambda path: (path.touch(), os.truncate(path, MOST_IMAGE_BYTES + 1)),
}


@pytest.mark.parametrize("words", OTHER_FILES)
def test_what_has_no_end_is_not_read(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, store = Path("000001.png"), FolderStore(Path())
    OTHER_FILES[words](path)
    looks: list[Callable[[], object]] = [
        lambda: open_photographs([path]),
        lambda: store.read(path.name),
        lambda: store.fingerprint([path.name]),
    ]
    for look in looks:
        with pytest.raises(DataError, match=rf"000001\.png cannot be read: it .*{words}"):
            look()


@pytest.mark.usefixtures("little_memory")
def test_a_cache_and_a_check_do_not_decode_a_picture_that_is_too_large(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    (root / "img_align_celeba" / "000004.jpg").write_bytes(claiming("jpeg", 60_000, 60_000))
    check = check_celeba(root, 148)
    assert any(
        "000004.jpg: it has 60000x60000 pixels, more than 50 million" in name
        for each in check.problems
        for name in each.names
    )


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 48), (48, 64)])
def test_the_size_of_a_jpeg_file_is_what_pillow_says(width: int, height: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in (
        {},
        {"progressive": True},
        {"exif": exif},
        {"comment": b"\xff\xc0" * 9},
        {"icc_profile": b"x" * 99},
    ):
        assert jpeg_size(encoded("jpeg", (width, height), **options)) == (width, height)
    assert jpeg_size(encoded("png")) is None
    assert jpeg_size(encoded("jpeg")[:40]) is None
    assert MOST_PIXELS >= 8064 * 6048  # of a telephone's photograph


def test_a_format_for_which_pillow_starts_a_program_is_no_image() -> None:
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="not an image that can be decoded"):
        Preprocessing(None, 8)(page)


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_a_bomb_in_the_text_of_a_picture_is_not_unpacked() -> None:
    content = encoded("png")
    for kind, body in ((b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"profile\0\0")):
        body += zlib.compress(bytes(400 * 2**20), 1)
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        try:
            assert Preprocessing(None, 8)(content[:33] + chunk + content[33:]).shape == (8, 8, 3)
        except DataError as error:
            assert "too large" in str(error) or "cannot be decoded" in str(error)  # noqa: PT017 (either is right)


@cache
def pictures() -> tuple[bytes, ...]:
    chance = np.random.default_rng(0)
    image = Image.fromarray(chance.integers(0, 255, (19, 17, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette, gray = image.quantize(20), Image.fromarray(chance.integers(0, 65535, (19, 17), np.uint16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "jpeg", {}),
        (image, "jpeg", {"progressive": True, "exif": exif}),
        (image.convert("CMYK"), "jpeg", {}),
        (image.convert("L"), "jpeg", {"icc_profile": b"profile" * 30, "comment": "text"}),
        (image, "png", {"exif": exif}),
        (palette, "png", {"transparency": 3}),
        (gray, "png", {}),
        (image, "png", frames),
        (image, "webp", {"quality": 50}),
        (image, "webp", {"lossless": True, **frames}),
        (image, "bmp", {}),
        (palette, "bmp", {}),
        (palette, "gif", {}),
        (image, "gif", frames),
        (image, "tiff", {"exif": exif}),
        (gray, "tiff", {"compression": "tiff_deflate"}),
        (image, "ppm", {}),
    ]
    return tuple(_encoded(image, kind, options) for image, kind, options in kinds)


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


@fuzzed
def test_pictures_of_a_data_set(number: int) -> None:
    encoded = mutated(pictures()[number % len(pictures())], number)
    try:
        assert Preprocessing(None, 8)(encoded).shape == (8, 8, 3)
    except DataError as error:
        check_words(error)
        return
    claimed, decode = jpeg_size(encoded), load_jpeg_decoder()
    if claimed is not None and decode is not None:  # what was held against the limit is what was decoded
        decoded = decode(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), 3, False)
        assert (decoded.shape[2], decoded.shape[1]) == claimed


@fuzzed
def test_photographs(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "photograph"
    path.write_bytes(mutated(pictures()[number % len(pictures())], number))
    try:
        (image,) = open_photographs([path])
        assert image.mode == "RGB"
    except DataError as error:
        check_words(error)
