"""A plain folder of images: what is found, and how it is split."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from PIL import Image, features

from vae_lightning.data import DataError, FaceDataModule, Preprocessing, read_folder
from vae_lightning.data.sources.found_images import FoundImages
from vae_lightning.data.sources.image_names import EXTENSIONS
from vae_lightning.data.sources.source import SPLITS

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


def write(root: Path, names: Sequence[str], mode: str = "RGB") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (8, 8), 1).save(path)


def splits_of(root: Path) -> dict[str, set[str]]:
    """The names of each split, without their folders' common part."""
    source = read_folder(root)
    return {split: {source.filenames[row] for row in source.split_rows(split)} for split in SPLITS}


def numbered(folder: str, count: int, ending: str = ".png") -> list[str]:
    return [f"{folder}/{number}{ending}" for number in range(count)]


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "val", "test"),
        ("Train", "Validation", "Testing"),
        ("TRAIN", "DEV", "TEST"),
        ("training", "valid", "holdout"),
        ("celeba_hq/train", "celeba_hq/val", "celeba_hq/test"),
        ("train2017", "val2017", "test2017"),
        ("faces_train", "faces_val", "faces_test"),
        ("trainA", "valA", "testA"),
        ("train/smiling", "val/smiling", "test/neutral"),
        ("smiling/train", "smiling/val", "smiling/test"),
        ("train/test", "val/train", "test/val"),  # the outermost decides
        ("a/train", "a/val", "b/test"),
        ("train_1", "val", "test_2"),
    ],
)
def test_folders_that_say_which_split_they_are_are_that_split(folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder, count in zip(folders, (6, 3, 2), strict=True):
        write(tmp_path, numbered(folder, count))
    found = splits_of(tmp_path)
    for split, folder, count in zip(SPLITS, folders, (6, 3, 2), strict=True):
        assert found[split] == set(numbered(folder, count))
    assert read_folder(tmp_path).divided == "as its folders say"


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_split_without_a_folder_is_taken_from_the_training_images(held_out: str, tmp_path: Path) -> None:
    write(tmp_path, [*numbered("train/a", 20), *numbered("train/b", 10), *numbered(held_out, 7)])
    found = splits_of(tmp_path)
    missing = "test" if held_out == "val" else "val"
    assert found[held_out] == set(numbered(held_out, 7))
    assert len(found[missing]) == 3
    assert all(name.startswith("train/") for name in found[missing] | found["train"])
    assert sum(map(len, found.values())) == 37
    assert read_folder(tmp_path).divided == f"as its folders say; {missing} a tenth of train, at random, seeded"
    assert splits_of(tmp_path) == found


@pytest.mark.parametrize(
    "folders",
    [("smiling", "neutral"), ("Dev", "Anna"), ("valid", "invalid"), ("bullet_train", "tube_test", "pen"), ("train",)],
)
def test_other_folders_say_nothing_of_splits(folders: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, [name for folder in folders for name in numbered(folder, 10)])
    source = read_folder(tmp_path)
    assert source.divided == "at random, seeded 80/10/10"
    assert len(source.filenames) == 10 * len(folders)


@pytest.mark.parametrize("beside", [("test",), ("val", "test"), ("test", "faces"), ("faces", "Validation")])
def test_folders_for_testing_without_one_for_training_are_refused(beside: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, [name for folder in beside for name in numbered(folder, 10)])
    with pytest.raises(DataError, match=r"none in a folder train/: rename .*data\.root=.*/([Vv]al|test)"):
        read_folder(tmp_path)


def test_images_beside_folders_that_say_their_split_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, [*numbered("train", 10), *numbered("test", 5), *numbered("extra", 4), "preview.png"])
    data = FaceDataModule("folder", str(tmp_path), crop=None, image_size=8, data_dir=str(tmp_path / ".data"))
    with caplog.at_level(logging.INFO, "vae_lightning"):
        data.prepare_data()
    assert [record.getMessage() for record in caplog.records][:2] == [
        f"{tmp_path}: left out are 5 images in no folder that says its split.",
        f"{tmp_path}: 9 train, 1 val, 5 test images, as its folders say; val a tenth of train, at random, seeded",
    ]
    assert data.record()["partition"].startswith("as its folders say")


def test_a_random_split_is_said(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = FaceDataModule("folder", str(images), crop=None, image_size=8, data_dir=str(images / ".data"))
    with caplog.at_level(logging.INFO, "vae_lightning"):
        data.prepare_data()
    assert "19 train, 2 val, 2 test images, at random, seeded 80/10/10" in caplog.text
    assert "left out are 1 .txt, 2 hidden" in caplog.text


@pytest.mark.parametrize(
    ("photographs", "masks", "mode"),
    [
        (numbered("images", 9), numbered("masks", 9), "L"),
        (numbered("images", 9, ".jpg"), numbered("mask", 9, ".jpg"), "L"),
        (numbered("JPEGImages", 9), numbered("SegmentationClass", 5), "P"),
        (numbered("CelebA-HQ-img", 9), [f"CelebAMask-HQ-mask-anno/0/{number:05}_hair.png" for number in range(9)], "L"),
        (numbered("images", 9), numbered("annotations/trimaps", 9), "L"),
        (numbered("a", 9), numbered("b", 9), "P"),  # nothing but the pictures tells
        (numbered("a", 9, ".jpg"), numbered("b", 9), "1"),
        (numbered("a", 9, ".jpg"), numbered("a", 9), "L"),
        (numbered("a", 9), [f"a/{number}_mask.png" for number in range(9)], "L"),
        (
            [*numbered("train/images", 6), *numbered("val/images", 2), *numbered("test/images", 1)],
            [*numbered("train/masks", 6), *numbered("val/masks", 2), *numbered("test/masks", 1)],
            "P",
        ),
    ],
)
def test_masks_are_told_from_photographs(photographs: list[str], masks: list[str], mode: str, tmp_path: Path) -> None:
    write(tmp_path, photographs)
    write(tmp_path, masks, mode)
    source = read_folder(tmp_path)
    assert set(source.filenames) == set(photographs)
    assert source.remarks == (f"{tmp_path}: left out are {len(masks)} masks, such as {min(masks)}.",)


@pytest.mark.parametrize(
    ("photographs", "others", "mode"),
    [
        (numbered("with_mask", 9), numbered("without_mask", 9), "RGB"),
        (numbered("anna", 9), numbered("berta", 9), "RGB"),
        (numbered("anna", 9, ".jpg"), numbered("berta", 7, ".jpg"), "L"),  # old photographs
        (numbered("masks/a", 9), numbered("masks/b", 9), "RGB"),
        (numbered("hat", 9), [f"mask/{number}.png" for number in range(20, 29)], "RGB"),
        (numbered("anna", 9, ".gif"), numbered("berta", 9, ".gif"), "RGB"),
    ],
)
def test_photographs_in_folders_beside_each_other_are_all_used(
    photographs: list[str], others: list[str], mode: str, tmp_path: Path
) -> None:
    write(tmp_path, photographs)
    write(tmp_path, others, mode)
    assert set(read_folder(tmp_path).filenames) == {*photographs, *others}


@pytest.mark.parametrize(("folder", "mode"), [("masks", "RGB"), ("labels", "RGB"), ("seg", "RGBA")])
def test_coloured_masks_are_refused(folder: str, mode: str, tmp_path: Path) -> None:
    write(tmp_path, numbered("images", 9))
    write(tmp_path, numbered(folder, 9), mode)
    with pytest.raises(DataError, match=rf"are the images in {folder}/ masks .* in images/\? Point data\.root"):
        read_folder(tmp_path)


def test_grey_photographs_beside_grey_masks_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [*numbered("scans", 9), *numbered("masks", 9)], "L")
    with pytest.raises(DataError, match=r"are the images in masks/ masks"):
        read_folder(tmp_path)


def test_linked_folders_and_files_are_read_once_and_loops_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    write(root, numbered("here", 4))
    write(elsewhere, [*numbered("a", 5), *numbered("a/deep", 3), "b/file.png"])
    links = {
        "linked": elsewhere / "a",
        "again": elsewhere / "a" / "deep",  # a part of it: read in one of the two places
        "one.png": elsewhere / "b" / "file.png",
        "two.png": elsewhere / "b" / "file.png",
        "same.png": root / "here" / "0.png",
        "here/loop": root,
        "here/up": tmp_path,
        "self": root / "self",
        "gone.png": elsewhere / "gone.png",
        "list.txt": elsewhere / "b",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    write(elsewhere, numbered("b/more", 2))
    found = FoundImages(root)
    content = Counter((root / name).resolve() for name in found.names)
    assert max(content.values()) == 1
    assert len(content) == 4 + 5 + 3 + 1 + 2
    assert found.describe_left_out() == "6 links to what is read anyway or lies around it, 2 links that lead nowhere"


def test_links_in_folders_that_say_their_split_go_before_what_they_lead_to(tmp_path: Path) -> None:
    write(tmp_path, [*numbered("all", 9), *numbered("held", 4)])
    for number in range(9):
        folder = tmp_path / ("train" if number < 7 else "val")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").symlink_to(tmp_path / "all" / f"{number}.png")
    (tmp_path / "test").symlink_to("held")
    found = splits_of(tmp_path)
    assert {split: len(names) for split, names in found.items()} == {"train": 7, "val": 2, "test": 4}
    assert all(name.startswith(f"{split}/") for split, names in found.items() for name in names)


def test_what_is_no_image_is_counted_by_kind(tmp_path: Path) -> None:
    write(tmp_path, ["a.png", "b.PNG", ".hidden/c.png", ".hidden/deep/d.png", ".e.png"])
    for name in ("1.heic", "2.HEIC", "README", "Thumbs.db", "3.txt"):
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="holds 2 images") as caught:
        read_folder(tmp_path)
    assert str(caught.value).endswith(
        "left out are 2 .heic, 1 without an ending, 1 .db, 1 .txt, 3 hidden, 1 pipes, sockets or devices; convert or "
        "rename those that are images."
    )


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_images_of_every_ending_are_decoded(ending: str, tmp_path: Path) -> None:
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no decoder for AVIF")
    mode = {".pbm": "1", ".pgm": "L"}.get(ending, "RGB")
    Image.new(mode, (8, 8), 1).save(tmp_path / f"a{ending}")
    (name,) = FoundImages(tmp_path).names
    assert Preprocessing(None, 8)((tmp_path / name).read_bytes()).shape == (8, 8, 3)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [*numbered("a", 5), *numbered("b", 5)])
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"/b/? cannot be read: Permission denied.*make it readable"):
        read_folder(tmp_path)
