"""Exact preprocessing, and a cache that is whole or not there."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from jaxtyping import UInt8
from PIL import Image

from vae_lightning.data import DataError, ImageSource, Preprocessing, open_cache, read_celeba, read_folder
from vae_lightning.data.decoded import cache
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 0}, r"data\.crop=0: expected the side"),
        ({"crop": (10, 10, 10, 20)}, r"data\.crop=\(10, 10, 10, 20\)"),
        ({"image_size": 4}, r"data\.image_size=4: expected 8 to 1024"),
        ({"color": "grey"}, r"data\.color='grey': expected rgb or gray"),
    ],
)
def test_bad_preprocessing(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocessing(**arguments)


@pytest.mark.parametrize("crop", [[1, 2, 3], [1, 2, 3, 4.5], "148"])
def test_bad_crop_from_yaml(crop: object) -> None:
    with pytest.raises(DataError, match=r"box of four whole numbers"):
        as_crop(crop)


def open_all(source: ImageSource, directory: Path, preprocessing: Preprocessing | None = None) -> np.ndarray:
    return open_cache(source, np.arange(len(source.filenames)), preprocessing or Preprocessing(), directory).images


def test_images_are_decoded_once(tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_celeba(tiny_celeba(150))
    threads = torch.get_num_threads()
    images = open_all(source, tmp_path / "cache")
    assert torch.get_num_threads() == threads
    assert images.shape == (150, 64, 64, 3)
    assert not images.flags.writeable
    for row in (0, 64, 149):
        expected = pillow_pixels(source.read(row), (15, 35, 163, 183), 64, "RGB")
        assert np.abs(images[row].astype(int) - expected).max() <= 1
    monkeypatch.setattr(ImageSource, "read", None)  # nothing may be decoded now
    np.testing.assert_array_equal(open_all(source, tmp_path / "cache"), images)


def test_metadata_say_what_the_array_is(tiny_celeba: Celeba, tmp_path: Path) -> None:
    source = read_celeba(tiny_celeba(10))
    images = open_all(source, tmp_path / "cache", Preprocessing((15, 40, 163, 188), 32, "gray"))
    (metadata,) = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/metadata.json")]
    assert metadata.pop("fingerprint")
    assert metadata.pop("content")
    assert metadata.pop("checksums") == [zlib.crc32(images)]
    assert metadata == {
        "split": "all",
        "version": cache.CACHE_VERSION,
        "source": "celeba",
        "root": str(source.root),
        "preprocessing": {"crop": [15, 40, 163, 188], "image_size": 32, "color": "gray"},
        "shape": [10, 32, 32, 1],
    }


def test_zip_and_folder_give_the_same_pixels(tiny_celeba: Celeba, tmp_path: Path) -> None:
    from test_celeba import to_zip

    folder = open_all(read_celeba(tiny_celeba(name="folder")), tmp_path / "cache")
    zipped = open_all(read_celeba(to_zip(tiny_celeba(name="zip"))), tmp_path / "cache")
    np.testing.assert_array_equal(folder, zipped)
    assert len(list((tmp_path / "cache").glob("*/images.npy"))) == 2


def test_other_content_or_preprocessing_is_another_cache(tiny_celeba: Celeba, tmp_path: Path) -> None:
    source = read_celeba(tiny_celeba(10))
    directory = tmp_path / "cache"
    first = open_all(source, directory)
    assert not np.array_equal(open_all(source, directory, Preprocessing(crop=140)), first)
    assert open_all(source, directory, Preprocessing(color="gray")).shape == (10, 64, 64, 1)
    assert len(open_cache(source, np.array([3, 1]), Preprocessing(), directory).images) == 2
    path = source.root / "img_align_celeba" / "000001.jpg"
    path.write_bytes((source.root / "img_align_celeba" / "000002.jpg").read_bytes())
    changed = open_all(source, directory)
    np.testing.assert_array_equal(changed[0], first[1])
    assert len(list(directory.glob("*/metadata.json"))) == 5


def assert_nothing_left(directory: Path) -> None:
    assert [path for path in directory.iterdir() if path.suffix != ".lock"] == []


def test_truncated_image_is_named_with_its_row(tiny_celeba: Celeba, tmp_path: Path) -> None:
    source = read_celeba(tiny_celeba(100))
    path = source.root / "img_align_celeba" / "000078.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    threads = torch.get_num_threads()
    with pytest.raises(DataError, match=r"row 77 .* 000078\.jpg \(2,000 bytes\).*truncated.*Replace the image"):
        open_all(source, tmp_path / "cache")
    assert torch.get_num_threads() == threads
    assert_nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("content", [b"", b"GIF8 no image", b"\xff\xd8\xff\xe0 not for long"])
def test_what_is_no_image_is_named(tiny_celeba: Celeba, tmp_path: Path, content: bytes) -> None:
    source = read_celeba(tiny_celeba(10))
    (source.root / "img_align_celeba" / "000002.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"row 1 .* 000002\.jpg .*decoded"):
        open_all(source, tmp_path / "cache")


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (148, r"small\.png .*100x120 pixels, less than the crop of 148: choose a smaller data\.crop"),
        ((0, 0, 110, 110), r"small\.png .*100x120 pixels, and the crop box \[0, 0, 110, 110\] reaches beyond"),
    ],
)
def test_image_smaller_than_the_crop_is_named(tmp_path: Path, crop: int | Box, message: str) -> None:
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    write_images(tmp_path / "images", ["small.png"], size=(100, 120))
    with pytest.raises(DataError, match=message) as refused:
        open_all(read_folder(tmp_path / "images"), tmp_path / "cache", Preprocessing(crop))
    assert "whole copy" not in str(refused.value)  # nothing is wrong with the image


def test_no_space_is_found_before_anything_is_written(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_celeba(tiny_celeba(10))
    usage = cache.shutil._ntuple_diskusage(100 * 2**20, 90 * 2**20, 10 * 2**20)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"no space left in .*cache.* MiB needed, 10 MiB free.*data\.data_dir"):
        open_all(source, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


def test_disk_that_fills_up_leaves_nothing(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_celeba(tiny_celeba(10))

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", fail)
        with pytest.raises(DataError, match=r"no space left in .*MiB needed"):
            open_all(source, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")
    assert len(open_all(source, tmp_path / "cache")) == 10


@pytest.mark.parametrize("damage", ["cut", "grown", "other metadata", "no metadata", "no array", "empty array"])
def test_damaged_cache_is_built_again_with_a_word(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    source = read_celeba(tiny_celeba(10))
    before = np.array(open_all(source, tmp_path / "cache"))
    (array,) = (tmp_path / "cache").glob("*/images.npy")
    metadata = array.with_name("metadata.json")
    match damage:
        case "cut":
            os.truncate(array, array.stat().st_size - 1)
        case "grown":
            os.truncate(array, array.stat().st_size + 1)
        case "other metadata":
            metadata.write_text(metadata.read_text().replace('"crop": 148', '"crop": 140'))
        case "no metadata":
            metadata.unlink()
        case "no array":
            array.unlink()
        case "empty array":
            os.truncate(array, 0)
    with caplog.at_level(logging.WARNING, "vae_lightning"):
        after = open_all(source, tmp_path / "cache")
    np.testing.assert_array_equal(after, before)
    assert [record.message for record in caplog.records if "is damaged" in record.message]


BUILD = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    import numpy as np
    from vae_lightning.data import ImageSource, Preprocessing, decoding, open_cache, preprocessing, read_celeba
    # Pillow decodes here, to the same pixels: to import torchvision would take twice as long as all the rest
    decoding.load_jpeg_decoder = preprocessing.load_jpeg_decoder = lambda: None
    read = ImageSource.read
    def slow_read(source, row):
        Path(sys.argv[3]).write_text(str(os.getpid()))
        time.sleep(0.02)
        return read(source, row)
    ImageSource.read = slow_read
    source = read_celeba(Path(sys.argv[1]))
    decoded = open_cache(source, np.arange(len(source.filenames)), Preprocessing(image_size=128), Path(sys.argv[2]))
    print(int(decoded.images.sum()))
    """
)


def test_killed_build_is_taken_over_from_the_start(tiny_celeba: Celeba, tmp_path: Path) -> None:
    """Two processes start together; the one that builds is killed, so the one that waits has to build."""
    root, directory, builder = tiny_celeba(300), tmp_path / "cache", tmp_path / "builder"
    command = [sys.executable, "-c", BUILD, str(root), str(directory), str(builder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    deadline = time.monotonic() + 90
    pid = ""
    while not pid:  # the file is there a moment before its content, whenever it is written
        assert time.monotonic() < deadline
        time.sleep(0.01)
        pid = builder.read_text() if builder.is_file() else ""
    while not any(path.stat().st_size > 2**20 for path in directory.glob("*.partial/images.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed, waiting = sorted(processes, key=lambda process: process.pid != int(pid))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(directory.glob("*/metadata.json"))
    output, errors = waiting.communicate()
    assert waiting.returncode == 0, errors
    images = open_all(read_celeba(root), tmp_path / "other", Preprocessing(image_size=128))
    assert int(output) == int(images.sum())
    (cached,) = directory.glob("*/images.npy")
    np.testing.assert_array_equal(np.load(cached), images)
    assert not list(directory.glob("*.partial"))


def test_those_who_start_together_build_once(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock belongs to an open file, so that threads exclude each other as processes do."""
    source = read_celeba(tiny_celeba(20))
    build, builds = cache._build, []

    def slow_build(*arguments: object) -> None:
        builds.append(arguments)
        time.sleep(0.5)
        build(*arguments)

    monkeypatch.setattr(cache, "_build", slow_build)
    with caplog.at_level(logging.INFO, "vae_lightning"), ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: np.array(open_all(source, tmp_path / "cache")), range(3))
    assert len(builds) == 1
    assert sum("Waiting for another process" in record.message for record in caplog.records) == 2
    for images in others:
        np.testing.assert_array_equal(images, first)
