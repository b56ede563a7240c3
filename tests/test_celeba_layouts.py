"""CelebA's folder as people have it: images under other names, parts of it, and folders that are something else."""

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_celeba import to_csv, to_zip

from vae_lightning.data import DataError, FaceDataModule, ImageSource, read_celeba
from vae_lightning.data.preparation.checking import check_celeba
from vae_lightning.data.sources.resolution import resolve_source
from vae_lightning.data.sources.source import SourceSettings
from vae_lightning.data.sources.zip_store import ZipStore

Celeba = Callable[..., Path]
Change = Callable[[Path], object]
IMAGES, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"


def rename_images(root: Path, name: Callable[[Path], str]) -> None:
    for path in sorted((root / IMAGES).iterdir()):
        path.rename(path.with_name(name(path)))


def to_png(root: Path, folder: str) -> None:
    for path in sorted((root / IMAGES).iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    (root / IMAGES).rename(root / folder)


def zip_renamed(root: Path, name: str) -> None:
    to_zip(root)
    (root / ARCHIVE).rename(root / name)


def zip_with(*entries: tuple[str, bytes]) -> Change:
    def change(root: Path) -> None:
        with zipfile.ZipFile(to_zip(root) / ARCHIVE, "a") as archive:
            for name, content in entries:
                archive.writestr(name, content)

    return change


def nest(root: Path, outer: str) -> None:
    (root / IMAGES).rename(root / "inner")
    (root / outer).mkdir()
    (root / "inner").rename(root / outer / IMAGES)


def zip_of_png(root: Path) -> None:
    to_png(root, IMAGES)
    to_zip(root)


def half_unpacked(root: Path) -> None:
    shutil.copytree(root / IMAGES, root / "kept")
    to_zip(root)
    (root / "kept" / "000003.jpg").unlink()
    (root / "kept").rename(root / IMAGES)


JUNK = [
    (f"{folder}/{name}", folder.encode())
    for folder in ("a", "b")
    for name in ("Thumbs.db", "desktop.ini", "README.txt")
]
USED: dict[str, Change] = {
    "capital extension": lambda root: rename_images(root, lambda path: path.stem + ".JPG"),
    "jpeg": lambda root: rename_images(root, lambda path: path.stem + ".jpeg"),
    "some with capitals": lambda root: (root / IMAGES / "000004.jpg").rename(root / IMAGES / "000004.JPG"),
    "png": lambda root: to_png(root, IMAGES),
    "png in a folder of that name": lambda root: to_png(root, "img_align_celeba_png"),
    "png in a zip file": zip_of_png,
    "downloaded twice": lambda root: zip_renamed(root, "img_align_celeba (1).zip"),
    "zip file of a copy": lambda root: zip_renamed(root, "img_align_celeba - Copy.zip"),
    "zip file with capitals": lambda root: zip_renamed(root, "IMG_ALIGN_CELEBA.ZIP"),
    "unpacked twice": lambda root: (root / IMAGES).rename(root / "img_align_celeba (1)"),
    "unpacked by a file manager": lambda root: nest(root, "img_align_celeba (1)"),
    "an empty folder beside the zip file": lambda root: (to_zip(root) / IMAGES).mkdir(),
    "half unpacked beside the zip file": half_unpacked,
    "the right folder and a copy": lambda root: shutil.copytree(root / IMAGES, root / "img_align_celeba_copy"),
    "junk in the zip file": zip_with(*JUNK),
    "unlisted images of one name in the zip file": zip_with(("a/preview.jpg", b"1"), ("b/preview.jpg", b"2")),
    "names without end in the zip file": zip_with(("__MACOSX/._000001.jpg", b"1"), ("x/._000001.jpg", b"2")),
}


@pytest.mark.parametrize("case", USED)
def test_images_under_other_names_are_used(tiny_celeba: Celeba, case: str) -> None:
    expected, root = read_celeba(tiny_celeba(10, name="plain")), tiny_celeba(10)
    USED[case](root)
    found = read_celeba(root)
    for row in range(10):
        one, other = (np.asarray(Image.open(io.BytesIO(source.read(row)))) for source in (expected, found))
        np.testing.assert_array_equal(one, other)
    assert isinstance(found.fingerprint(np.arange(10)), str)
    check = check_celeba(root, crop=148)
    assert check.problems == []
    assert all(remark in check.notes for remark in found.remarks)


def remarks_of(root: Path) -> str:
    return " ".join(read_celeba(root).remarks)


def test_a_list_may_name_images_without_an_extension(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    for path in root.glob("*.txt"):
        path.write_text(path.read_text().replace(".jpg", ""))
    assert read_celeba(root).filenames[::9] == ("000001.jpg", "000010.jpg")
    assert check_celeba(root, crop=148).problems == []


def test_what_is_used_in_place_of_what_is_listed_is_said(tiny_celeba: Celeba) -> None:
    assert remarks_of(tiny_celeba(10)) == ""
    png, half = tiny_celeba(10, name="png"), tiny_celeba(10, name="half")
    to_png(png, IMAGES)
    assert remarks_of(png) == "10 images have another extension than in the list: 000001.png is taken for 000001.jpg."
    half_unpacked(half)
    assert remarks_of(half) == f"{half / IMAGES} lacks 1 of the listed images: all are read from {ARCHIVE}."


def two_candidates(root: Path) -> None:
    path = root / IMAGES / "000002.jpg"
    for suffix in (".png", ".JPEG"):
        shutil.copy(path, path.with_suffix(suffix))
    path.unlink()


def spread(root: Path) -> None:
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt"):
        (root / "Anno").mkdir(exist_ok=True)
        (root / name).rename(root / "Anno" / name)


def kaggle_archive(root: Path) -> None:
    to_csv(root, nested=False)
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        for path in root.glob("*.csv"):
            archive.write(path, path.name)
            path.unlink()


def repeat_last_line(path: Path, count: str) -> None:
    _, *lines = path.read_text().splitlines()
    path.write_text("\n".join([count, *lines, lines[-1]]))


def move(old: str, new: str) -> Change:
    return lambda root: shutil.move(root / old, root / new)


def only_images(root: Path) -> None:
    for path in root.glob("*.txt"):
        path.unlink()


REFUSED: dict[str, tuple[Change, str]] = {
    "a list downloaded twice": (
        move("list_attr_celeba.txt", "list_attr_celeba (1).txt"),
        r"no list_attr_celeba\.txt; is it list_attr_celeba \(1\)\.txt\? Rename it: mv '.*\(1\)\.txt' \S+celeba\.txt$",
    ),
    "a list with capitals": (
        move("list_eval_partition.txt", "LIST_EVAL_PARTITION.TXT"),
        r"is it LIST_EVAL_PARTITION.TXT\?",
    ),
    "a list with two extensions": (move("list_attr_celeba.txt", "list_attr_celeba.txt.txt"), r"Rename it: mv "),
    "another list": (
        move("list_attr_celeba.txt", "list_bbox_celeba.txt"),
        r"no list_attr_celeba\.txt .*found: .*list_bbox",
    ),
    "no list": (
        only_images,
        r"(?s)holds images without CelebA's annotation files\.\n.*data=folder data\.root=\S+img_align_celeba\n",
    ),
    "lists in a folder of theirs": (spread, r"spread over several folders.*\n  mv .*Anno/list_attr_celeba\.txt"),
    "Kaggle's archive": (
        kaggle_archive,
        r"archive\.zip is Kaggle's whole download, still packed\. Unpack it:\n  unzip ",
    ),
    "a folder in place of a list": (
        lambda root: [(root / "list_attr_celeba.txt").unlink(), (root / "list_attr_celeba.txt").mkdir()],
        r"list_attr_celeba\.txt is there, but is no file that can be read",
    ),
    "a pipe in place of a list": (
        lambda root: [(root / "list_attr_celeba.txt").unlink(), os.mkfifo(root / "list_attr_celeba.txt")],
        r"list_attr_celeba\.txt is there, but is no file that can be read",
    ),
    "images in a folder of theirs": (
        lambda root: [(root / "Img").mkdir(), shutil.move(root / IMAGES, root / "Img")],
        r"has the annotation files; its images lie in \S+/Img/img_align_celeba: mv \S+/Img/img_align_celeba \S+$",
    ),
    "the folders of CelebA's page": (
        lambda root: [spread(root), (root / "Img").mkdir(), shutil.move(root / IMAGES, root / "Img")],
        r"(?s)over several folders.*mv \S+/Anno/list_attr\S+ \S+/Anno/identity\S+ \S+/Img/img_align_celeba \S+\n",
    ),
    "a row twice": (
        lambda root: repeat_last_line(root / "list_attr_celeba.txt", "11"),
        r"list_attr_celeba\.txt lists 000010\.jpg more than once",
    ),
    "nothing": (lambda root: [shutil.rmtree(root), root.mkdir()], r"holds no CelebA \(it is empty\)"),
    "another extension twice": (two_candidates, r"000002\.JPEG and 000002\.png could both be the listed 000002\.jpg"),
    "parts of an archive": (
        lambda root: [shutil.rmtree(root / IMAGES), (root / "img_align_celeba_png.7z.001").touch()],
        r"no images: neither .*found: .*img_align_celeba_png\.7z\.001.*other archives have to be unpacked",
    ),
    "images beside the lists": (
        lambda root: [shutil.move(path, root) for path in (root / IMAGES).iterdir()],
        r"does not hold 000001\.jpg, nor any other image of the partition file; it is empty",
    ),
    "images of another set": (
        lambda root: rename_images(root, lambda path: f"0{path.name}"),
        r"does not hold 000001\.jpg, nor any other .*found: 0000001\.jpg, .* …\. Unpack",
    ),
    "parts of a download": (
        lambda root: [zip_renamed(root, "img_align_celeba-001.zip"), (root / "img_align_celeba-002.zip").touch()],
        r"holds img_align_celeba-001\.zip and img_align_celeba-002\.zip: name the one with the images",
    ),
    "two different images in the zip file": (
        zip_with(("b/000003.jpg", b"another")),
        r"two different images of one name",
    ),
}


def refusal_of_training(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_celeba(root).read(0)
    return str(caught.value)


def refusal_of_preparing(root: Path) -> str:
    try:
        (problem,) = check_celeba(root, crop=148).problems
    except DataError as error:
        return str(error)
    return problem.title


@pytest.mark.parametrize("case", REFUSED)
def test_training_and_preparing_say_the_same_of_a_folder(tiny_celeba: Celeba, case: str) -> None:
    root = tiny_celeba(10)
    change, message = REFUSED[case]
    change(root)
    said = refusal_of_training(root)
    assert re.search(message, said)
    assert refusal_of_preparing(root) == said


@pytest.mark.parametrize("place", ["img_align_celeba", "img_align_celeba/img_align_celeba"])
def test_the_folder_of_the_images_is_told_from_the_one_around_it(tiny_celeba: Celeba, place: str) -> None:
    root = to_csv(tiny_celeba(10))
    said = refusal_of_training(root / place)
    assert f"CelebA is the folder around it: data.root={root} in training" in said
    assert refusal_of_preparing(root / place) == said


def test_a_folder_around_celeba_is_told_from_it(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    said = refusal_of_training(root.parent)
    assert f"CelebA lies deeper, in {root}: data.root={root} in training" in said
    assert refusal_of_preparing(root.parent) == said


def test_a_file_in_place_of_the_folder_is_said(tiny_celeba: Celeba) -> None:
    root = to_zip(tiny_celeba(10))
    assert f"is a file, not a folder. CelebA is the folder that it lies in: data.root={root}" in refusal_of_training(
        root / ARCHIVE
    )
    assert "is not a folder: there is none of that name" in refusal_of_training(root / "nowhere")


def without(root: Path, *numbers: int) -> Path:
    for number in numbers:
        (root / IMAGES / f"{number:06d}.jpg").unlink()
    return root


PACKED: dict[str, Change] = {"folder": lambda root: root, "zip": to_zip, "Kaggle": to_csv}


@pytest.mark.parametrize("packed", PACKED)
def test_a_part_of_celeba_is_used_where_that_is_allowed(
    tiny_celeba: Celeba, packed: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, root = read_celeba(tiny_celeba(30, name="whole")), without(tiny_celeba(30), 1, 2, 19, 30)
    PACKED[packed](root)
    with pytest.raises(
        DataError, match=r"lacks 4 of the 30 listed images \(the first: 000001\.jpg\).*allow_missing=true"
    ):
        read_celeba(root).read(5)
    part, kept = read_celeba(root, allow_missing=True), [row for row in range(30) if row + 1 not in (1, 2, 19, 30)]
    assert part.filenames == tuple(whole.filenames[row] for row in kept)
    assert whole.attributes is not None
    assert part.attributes is not None
    np.testing.assert_array_equal(part.attributes, whole.attributes[kept])
    np.testing.assert_array_equal(part.partition, whole.partition[kept])
    assert [part.read(row) for row in range(26)] == [whole.read(row) for row in kept]
    data = FaceDataModule("celeba", str(root), image_size=8, data_dir=str(tmp_path / "data"), allow_missing=True)
    data.prepare_data()
    assert "of the listed images there are train 22 of 24, val 2 of 3, test 2 of 3" in caplog.text
    assert data.record()["partition"] == "as listed, 4 of 30 images missing"
    assert data.record()["train_count"] == 22
    (problem,) = check_celeba(root, crop=148).problems
    assert "not there: 4 images; there are train 22 of 24, val 2 of 3, test 2 of 3" in problem.title
    assert "--allow-missing" in problem.fix
    allowed = check_celeba(root, crop=148, allow_missing=True)
    assert allowed.problems == []
    assert "of the listed images there are train 22 of 24, val 2 of 3, test 2 of 3" in allowed.notes[-1]


def test_a_part_without_a_split_is_refused(tiny_celeba: Celeba) -> None:
    root = without(tiny_celeba(20), 9, 19)
    with pytest.raises(
        DataError, match=r"train 16 of 16, val 0 of 2, test 2 of 2 .*each split needs some\. data=folder"
    ):
        read_celeba(root, allow_missing=True)


def test_a_whole_celeba_may_be_one_of_which_images_may_be_missing(tiny_celeba: Celeba) -> None:
    source = read_celeba(tiny_celeba(10), allow_missing=True)
    assert (len(source.filenames), source.remarks, source.divided) == (10, (), "as listed")


@pytest.mark.parametrize("name", ["faces", "folder", "noise", "auto"])
def test_missing_images_are_only_allowed_where_a_list_names_them(name: str, tmp_path: Path) -> None:
    settings = SourceSettings(tmp_path if name == "folder" else None, tmp_path / "data", allow_missing=True)
    with pytest.raises(DataError, match=r"data\.allow_missing=true is for the lists of data=celeba; data=\w+ has none"):
        resolve_source(name, settings, print)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_a_zip_file_is_read_with_the_first_image(
    tiny_celeba: Celeba, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: ImageSource = read_celeba(to_zip(tiny_celeba(10)))
    assert isinstance(source.images, ZipStore)
    assert "_directory" not in vars(source.images)
    source.fingerprint(np.arange(10))
    assert "_directory" not in vars(source.images)
    source.read(9)
    assert "_directory" in vars(source.images)
