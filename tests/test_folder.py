"""A plain folder of images: what is found, and how it is split."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images

from vae_lightning.data import DataError, read_folder

NAMES = [f"{number}.jpg" for number in range(20)] + ["sub/a.png", "sub/deep/b.webp", "c.BMP"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path, NAMES, size=(24, 20))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._0.jpg").write_bytes(b"left behind by a Mac")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "0.jpg").write_bytes(b"hidden")
    return tmp_path


def test_images_are_found_in_sub_folders_and_sorted(images: Path) -> None:
    source = read_folder(images)
    assert source.filenames == tuple(sorted(NAMES))
    assert source.attributes is None
    assert source.attribute_names == ()


def test_split_is_seeded_and_the_same_on_every_machine(images: Path) -> None:
    partition = read_folder(images).partition
    assert np.bincount(partition).tolist() == [19, 2, 2]
    assert np.flatnonzero(partition == 1).tolist() == [5, 8]  # known answers
    assert np.flatnonzero(partition == 2).tolist() == [0, 12]
    assert read_folder(images, seed=1).partition.tolist() != partition.tolist()


def test_three_images_give_one_to_each_split(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], size=(8, 8))
    assert sorted(read_folder(tmp_path).partition.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_images(tmp_path: Path, count: int) -> None:
    write_images(tmp_path, [f"{number}.png" for number in range(count)], size=(8, 8))
    with pytest.raises(DataError, match=rf"holds {count} images .*one each at least"):
        read_folder(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xe9t\xe9/1.png", b"na\xefve\\.PNG", b"a\nb.png", b"\x1b[31m.jpg"])
def test_names_that_no_list_can_hold_are_refused(tmp_path: Path, name: bytes) -> None:
    write_images(tmp_path, [*(f"{number}.png" for number in range(4)), os.fsdecode(name)], size=(8, 8))
    with pytest.raises(DataError, match=r"holds 1 images whose names are not UTF-8.*: .*convmv") as caught:
        read_folder(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["café.png", "e\N{COMBINING ACUTE ACCENT}.png", "顔/1.png", "1.00\N{NARROW NO-BREAK SPACE}PM.png"]
)
def test_names_in_any_script_are_read(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, [*(f"{number}.png" for number in range(4)), name], size=(8, 8))
    assert name in read_folder(tmp_path).filenames
