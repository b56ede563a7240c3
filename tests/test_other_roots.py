"""Caches of decoded images, asked for from another folder than the one that they were decoded from."""

import errno
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from test_cache import open_all
from test_celeba import to_zip
from test_changing_data import warnings

from vae_lightning.data import FaceDataModule, ImageSource, Preprocessing, read_celeba, read_folder
from vae_lightning.data.decoded import cache
from vae_lightning.data.sources.source import FolderStore
from vae_lightning.data.sources.zip_store import ZipStore

Celeba = Callable[..., Path]
STAT = os.stat
SAME_TIME = (315_532_800, 315_532_800)  # as archives have it that can be made again byte by byte


def write_bitmaps(root: Path, level: int, count: int = 70) -> Path:
    """Not compressed: as many bytes whatever they show."""
    root.mkdir()
    for number in range(count):
        path = root / f"{number:03}.bmp"
        Image.new("RGB", (16, 16), (level, level, level)).save(path)
        os.utime(path, SAME_TIME)
    return root


def opened(root: Path, data_dir: Path) -> FaceDataModule:
    data = FaceDataModule("folder", str(root), crop=None, image_size=16, data_dir=str(data_dir))
    data.prepare_data()
    return data


def level_of(data: FaceDataModule) -> float:
    return float(np.mean([data.split(split).images.mean() for split in ("train", "val", "test")]))


def stat_without_ctime(path: str | Path, **options: bool) -> os.stat_result:
    """As SSHFS and FAT answer: whole seconds, nothing that tells when a file was changed, inodes that say nothing."""
    status = STAT(path, **options)
    if not isinstance(path, str) or not path.endswith(".bmp"):
        return status
    mode, _, *others = status[:10]
    times = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_mtime_ns}
    return os.stat_result((mode, 1, *others), times)


def test_files_alike_but_for_their_content_are_other_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    black, light = write_bitmaps(tmp_path / "black", 0), write_bitmaps(tmp_path / "light", 200)
    first, second = opened(black, tmp_path / "data"), opened(light, tmp_path / "data")
    assert (level_of(first), level_of(second)) == (0, 200)
    assert first.record()["content"] != second.record()["content"]
    assert first.record()["fingerprint"] != second.record()["fingerprint"]
    monkeypatch.setattr(FolderStore, "read", lambda *_: pytest.fail("they are known by now"))
    assert level_of(opened(black, tmp_path / "data")) == 0
    assert level_of(opened(light, tmp_path / "data")) == 200
    assert warnings(caplog) == []


def overwrite(root: Path, others: Path) -> None:
    for path in sorted(root.iterdir()):
        path.write_bytes((others / path.name).read_bytes())
        os.utime(path, SAME_TIME)


def exchange(root: Path, others: Path) -> None:
    root.rename(root.with_name("away"))
    others.rename(root)


def unpack_again(root: Path, others: Path) -> None:
    shutil.rmtree(root)
    shutil.copytree(others, root)


def link_elsewhere(root: Path, others: Path) -> None:
    root.rename(root.with_name("away"))
    root.symlink_to(others)


@pytest.mark.parametrize("replace", [overwrite, exchange, unpack_again, link_elsewhere])
@pytest.mark.parametrize("has_ctime", [True, False])
def test_other_images_in_the_same_place_are_noticed_whatever_names_sizes_and_times_say(
    replace: Callable[[Path, Path], None], has_ctime: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_ctime:
        monkeypatch.setattr(os, "stat", stat_without_ctime)
    root, others = write_bitmaps(tmp_path / "root", 0, 12), write_bitmaps(tmp_path / "others", 200, 12)
    before = opened(root, tmp_path / "data")
    finished = before.marks_now()
    replace(root, others)
    after = opened(root, tmp_path / "data")
    assert (level_of(before), level_of(after)) == (0, 200)
    assert finished["content"] == before.record()["content"]
    assert after.marks_now()["content"] == after.record()["content"] != finished["content"]


def test_a_folder_that_is_moved_holds_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(write_bitmaps(tmp_path / "images", 7, 12), tmp_path / "data").record()
    (tmp_path / "images").rename(tmp_path / "moved")
    monkeypatch.setattr(FolderStore, "read", lambda *_: pytest.fail("they are known"))
    after = opened(tmp_path / "moved", tmp_path / "data").record()
    assert after["content"] == before["content"]


def test_another_zip_of_the_same_size_and_time_is_noticed(tiny_celeba: Celeba, tmp_path: Path) -> None:
    """As archives are made that come out the same byte by byte: stored, not compressed, all entries of one time."""
    root, seen = tiny_celeba(10), []
    names = sorted(path.name for path in (root / "img_align_celeba").iterdir())
    shutil.rmtree(root / "img_align_celeba")
    archive = root / "img_align_celeba.zip"
    for level in (0, 200):
        bitmap = write_bitmaps(tmp_path / str(level), level, 1) / "000.bmp"
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(zipfile.ZipInfo(f"img_align_celeba/{name}"), bitmap.read_bytes())
        os.utime(archive, SAME_TIME)
        data = FaceDataModule("celeba", str(root), crop=None, image_size=16, data_dir=str(tmp_path / "data"))
        data.prepare_data()
        seen.append((archive.stat().st_size, level_of(data)))
    assert seen == [(seen[0][0], 0), (seen[0][0], 200)]


@pytest.mark.slow
def test_one_file_that_differs_is_enough(tmp_path: Path) -> None:
    black = write_bitmaps(tmp_path / "black", 0)
    open_all(read_folder(black), tmp_path / "cache", Preprocessing(None, 16))
    copied = Path(shutil.copytree(black, tmp_path / "copied"))
    Image.new("RGB", (16, 16), "white").save(copied / "069.bmp")
    os.utime(copied / "069.bmp", SAME_TIME)
    for _ in range(2):
        images = open_all(read_folder(copied), tmp_path / "cache", Preprocessing(None, 16))
        assert (images.reshape(70, -1).mean(1) > 0).nonzero()[0].tolist() == [69]
    assert not open_all(read_folder(black), tmp_path / "cache", Preprocessing(None, 16)).any()


def test_a_folder_that_was_copied_with_its_times_is_compared_once(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = read_celeba(tiny_celeba(70))
    before = np.array(open_all(source, tmp_path / "cache"))
    copied = read_celeba(shutil.copytree(source.root, tmp_path / "copied"))
    read = Mock(side_effect=FolderStore.read, autospec=True)
    monkeypatch.setattr(FolderStore, "read", lambda *arguments: read(*arguments))
    monkeypatch.setattr(Preprocessing, "__call__", lambda *_: pytest.fail("they are decoded"))
    for data, reads in ((source, 0), (copied, 70), (copied, 70), (source, 70)):
        np.testing.assert_array_equal(open_all(data, tmp_path / "cache"), before)
        assert read.call_count == reads
    assert warnings(caplog) == []
    assert len(list((tmp_path / "cache").glob("*/images.npy"))) == 1


def test_a_cache_that_can_only_be_read_is_compared_each_time(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = read_celeba(tiny_celeba(3))
    before = np.array(open_all(source, tmp_path / "cache"))
    copied = read_celeba(shutil.copytree(source.root, tmp_path / "copied"))
    monkeypatch.setattr(Path, "touch", Mock(side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))))
    monkeypatch.setattr(Preprocessing, "__call__", lambda *_: pytest.fail("they are decoded"))
    with caplog.at_level(logging.INFO, "vae_lightning"):
        for times in (1, 2):
            np.testing.assert_array_equal(open_all(copied, tmp_path / "cache"), before)
            assert caplog.text.count("the images are compared again next time") == times


def test_another_copy_of_a_zip_file_is_compared_by_its_directory(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = to_zip(tiny_celeba(10))
    before = np.array(open_all(read_celeba(root), tmp_path / "cache"))
    copied = read_celeba(shutil.copytree(root, tmp_path / "copied"))
    monkeypatch.setattr(ZipStore, "read", lambda *_: pytest.fail("nothing has to be unpacked"))
    np.testing.assert_array_equal(open_all(copied, tmp_path / "cache"), before)


@pytest.mark.slow
def test_two_that_start_together_get_their_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    levels = {"black": 0, "light": 200}
    sources = [read_folder(write_bitmaps(tmp_path / name, level)) for name, level in levels.items()]
    build = cache._build

    def slow_build(*arguments: object) -> str:
        time.sleep(0.3)
        return build(*arguments)

    def mean(source: ImageSource) -> float:
        return float(open_all(source, tmp_path / "cache", Preprocessing(None, 16)).mean())

    monkeypatch.setattr(cache, "_build", slow_build)
    with caplog.at_level(logging.INFO, "vae_lightning"), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(mean, sources)) == list(levels.values())
    assert "Waiting for another process" in caplog.text
