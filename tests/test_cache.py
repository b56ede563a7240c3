"""A cache of decoded images that is whole or not there, and what happens where it is damaged."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import write_images
from test_changing_data import warnings
from test_preprocessing import pillow_pixels

from vae_lightning.data import DataError, ImageSource, Preprocessing, open_cache, read_celeba, read_folder
from vae_lightning.data.decoded import cache

Celeba = Callable[..., Path]
Box = tuple[int, int, int, int]
Damage = Callable[[Path, Path], object]  # of images.npy and metadata.json


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
    assert metadata.pop("names")
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


def test_zip_and_folder_of_the_same_files_share_a_cache(tiny_celeba: Celeba, tmp_path: Path) -> None:
    from test_celeba import to_zip

    folder = open_all(read_celeba(tiny_celeba(name="folder")), tmp_path / "cache")
    zipped = open_all(read_celeba(to_zip(tiny_celeba(name="zip"))), tmp_path / "cache")
    np.testing.assert_array_equal(folder, zipped)
    assert len(list((tmp_path / "cache").glob("*/images.npy"))) == 1


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
    with pytest.raises(DataError, match=r"cache.* 1 MiB needed and 64 MiB kept free.*, 10 MiB free.*data\.data_dir"):
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


def cut_array(by: int) -> Damage:
    return lambda array, metadata: os.truncate(array, array.stat().st_size - by)


def edit_metadata(old: str, new: str) -> Damage:
    return lambda array, metadata: metadata.write_text(metadata.read_text().replace(old, new))


def save_as(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda array, metadata: np.save(array, change(np.load(array)))


DAMAGES: dict[str, Damage] = {
    "cut": cut_array(1),
    "grown": cut_array(-1),
    "empty array": lambda array, metadata: os.truncate(array, 0),
    "no array": lambda array, metadata: array.unlink(),
    "no metadata": lambda array, metadata: metadata.unlink(),
    "same bytes in another order": save_as(np.asfortranarray),
    "signed bytes": save_as(lambda whole: whole.reshape(-1).view(np.int8)),
    "floats": save_as(lambda whole: whole.reshape(-1).view(np.float32)),
    "other crop": edit_metadata('"crop": 148', '"crop": 140'),
    "one checksum more": edit_metadata('"checksums": [', '"checksums": [1, '),
    "no checksums": edit_metadata('"checksums"', '"other"'),
    "no content": edit_metadata('"content"', '"other"'),
    "other content": edit_metadata('"content": "', '"content": "0'),
    "other names": edit_metadata('"names": "', '"names": "0'),
    "metadata are a list": lambda array, metadata: metadata.write_text("[1, 2]"),
    "cut metadata": lambda array, metadata: os.truncate(metadata, 100),
    "empty metadata": lambda array, metadata: os.truncate(metadata, 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_built_again_with_a_word(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    source = read_celeba(tiny_celeba(4))
    before = np.array(open_all(source, tmp_path / "cache"))
    (array,) = (tmp_path / "cache").glob("*/images.npy")
    metadata = array.with_name("metadata.json")
    described = metadata.read_text()
    DAMAGES[damage](array, metadata)
    cache._verified.clear()  # as in another process
    np.testing.assert_array_equal(open_all(source, tmp_path / "cache"), before)
    assert "is damaged" in caplog.text
    assert metadata.read_text() == described


def test_any_flipped_bit_is_found_and_named(
    tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_celeba(tiny_celeba(70))
    whole = np.array(open_all(data, tmp_path / "cache"))
    (array,) = (tmp_path / "cache").glob("*/images.npy")
    header = array.stat().st_size - whole.nbytes
    places = [100, header + 12_345, header + whole.nbytes - 1]
    for place in places:
        with array.open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1 << place % 8]))
        cache._verified.clear()  # as in another process
        caplog.clear()
        np.testing.assert_array_equal(open_all(data, tmp_path / "cache"), whole)
        (said,) = warnings(caplog)
        assert "decoding the images again" in said
        image = (place - header) // (64 * 64 * 3)
        piece = "000001.jpg to 000064.jpg" if image < 64 else "000065.jpg to 000070.jpg"
        assert (piece if place >= header else "header") in said


def test_checksums_are_compared_once_in_a_process(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = Mock(wraps=zlib)
    data = read_celeba(tiny_celeba(3))
    monkeypatch.setattr(cache, "zlib", compared)
    opened_first = open_all(data, tmp_path / "cache")
    assert compared.crc32.call_count == 1
    np.testing.assert_array_equal(open_all(data, tmp_path / "cache"), opened_first)
    assert compared.crc32.call_count == 1


def test_a_cache_that_is_deleted_under_way_is_read_to_the_end(tiny_celeba: Celeba, tmp_path: Path) -> None:
    images = open_all(read_celeba(tiny_celeba(3)), tmp_path / "cache")
    before = np.array(images)
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(images, before)


BUILD = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    import numpy as np
    from vae_lightning.data import ImageSource, Preprocessing, open_cache, read_celeba
    from vae_lightning.data.decoded import decoding, preprocessing
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


@pytest.mark.slow
def test_killed_build_is_taken_over_from_the_start(tiny_celeba: Celeba, tmp_path: Path) -> None:
    """Two processes start together; the one that builds is killed, so the one that waits has to build."""
    root, directory, builder = tiny_celeba(200), tmp_path / "cache", tmp_path / "builder"
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

    def slow_build(*arguments: object) -> str:
        builds.append(arguments)
        time.sleep(0.5)
        return build(*arguments)

    monkeypatch.setattr(cache, "_build", slow_build)
    with caplog.at_level(logging.INFO, "vae_lightning"), ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(lambda _: np.array(open_all(source, tmp_path / "cache")), range(3))
    assert len(builds) == 1
    assert sum("Waiting for another process" in record.message for record in caplog.records) == 2
    for images in others:
        np.testing.assert_array_equal(images, first)
