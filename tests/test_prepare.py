"""`vae prepare`: what it says of whole and of broken CelebA folders, and of folders that are something else."""

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from conftest import write_images
from test_celeba import to_csv, to_zip
from torchvision.datasets import CelebA
from typer.testing import CliRunner

from vae_lightning.cli.prepare import prepare
from vae_lightning.data import FaceDataModule
from vae_lightning.data.decoded import cache
from vae_lightning.data.preparation.checking import check_celeba
from vae_lightning.data.preparation.download import FOLDERS
from vae_lightning.data.preparation.official import NUM_IMAGES, SPLIT_COUNTS, compare_checksums
from vae_lightning.data.sources.celeba_files import explain_folder

Celeba = Callable[..., Path]
Damage = Callable[[Path], object]

app = typer.Typer()
app.command()(prepare)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def run(exit_code: int, *arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


def test_a_whole_folder_is_decoded_for_the_default_training(
    tiny_celeba: Celeba, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(30)
    output = run(0, root)
    assert re.search(r"train +24 +162,770", output)
    assert re.search(r"validation +3 +19,867", output)
    assert re.search(r"people +15 +10,177", output)
    assert "A subset: 30 of CelebA's 202,599 images" in output
    assert f"vae train data.root={root}\n" in output
    assert not Path("data/celeba_problems.txt").exists()

    def build(*_: object) -> None:
        raise AssertionError("training decodes again")

    monkeypatch.setattr(cache, "_build", build)
    data = FaceDataModule(root=str(root))
    data.prepare_data()
    assert len(data.split("train")) == 24


def test_the_environment_says_where_and_several_sizes_are_decoded(
    tiny_celeba: Celeba, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELEBA_ROOT", str(tiny_celeba(10)))
    output = run(0, "--image-size", "32,16", "--color", "gray", "--crop", "null")
    assert "vae train data.image_size=32 data.crop=null data.color=gray\n" in output
    assert {folder.name[:14] for folder in Path("data/cache").glob("*[!k]")} == {"celeba-32-gray", "celeba-16-gray"}


def test_all_damage_is_found_and_listed_in_a_file(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(30)
    images = root / "img_align_celeba"
    for number in range(10, 22):
        path = images / f"{number:06d}.jpg"
        path.write_bytes(path.read_bytes()[:900])
    (images / "000001.jpg").unlink()
    write_images(images, ["000005.jpg"], (178, 200))
    write_images(images, ["more.jpg"])
    output = run(1, root)
    assert "not there: 1 image; there are train 23 of 24, val 3 of 3, test 3 of 3\n  000001.jpg\n" in output
    assert "Cannot be decoded: 12 images\n  000010.jpg: it cannot be decoded" in output
    assert "000019.jpg" in output
    assert "000020.jpg" not in output
    assert "… 2 more in data/celeba_problems.txt" in output
    assert "000005.jpg: 178x200" in output
    assert "Not used, because the partition file does not list them: 1 image." in output
    written = Path("data/celeba_problems.txt").read_text()
    assert all(f"{number:06d}.jpg: it cannot be decoded" in written for number in range(10, 22))
    assert not Path("data/cache").exists()


def without_attributes_of_the_fourth(root: Path) -> None:
    lines = (root / "list_attr_celeba.txt").read_text().splitlines()
    (root / "list_attr_celeba.txt").write_text("\n".join(["9", *lines[1:5], *lines[6:]]))


def test_images_of_another_size_are_named_and_used_as_training_does(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    write_images(root / "img_align_celeba", ["000007.jpg"], (178, 200))
    check = check_celeba(root, crop=148)
    assert check.problems == []
    assert check.notes == ["Of another size than the 178x218 of most: 1 image (000007.jpg: 178x200)."]
    shrink(root)
    (problem,) = check_celeba(root, crop=148).problems
    assert problem.title == "Too small for the crop 148: 10 images"
    assert check_celeba(root, crop=None).problems == []


def shrink(root: Path) -> None:
    write_images(root / "img_align_celeba", [f"{number:06d}.jpg" for number in range(1, 11)], (89, 109))


def rewrite(file: str, pattern: str, replacement: str) -> Damage:
    return lambda root: (root / file).write_text(re.sub(pattern, replacement, (root / file).read_text()))


def cut_zip(root: Path) -> None:
    path = to_zip(root) / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[:-5000])


def flip_byte_of_zip(root: Path) -> None:
    path = to_zip(root) / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "attribute row missing": (
        without_attributes_of_the_fourth,
        "Without a row in list_attr_celeba.txt: 1 image|000004.jpg",
    ),
    "no test images": (
        rewrite("list_eval_partition.txt", " 2\n", " 0\n"),
        "There are no test images: .* no row with 2",
    ),
    "row twice": (
        rewrite("list_eval_partition.txt", "000002", "000003"),
        "Listed more than once in .*: 1 image|000003.jpg",
    ),
    "bad value": (rewrite("list_eval_partition.txt", "2.jpg 0", "2.jpg x"), "line 2: found 'x' for '000002.jpg'"),
    "other file under its name": (
        lambda root: shutil.copy(root / "list_eval_partition.txt", root / "list_attr_celeba.txt"),
        "names 0 attributes, expected 40",
    ),
    "no images": (lambda root: shutil.rmtree(root / "img_align_celeba"), "no images: neither the folder"),
    "half zip": (cut_zip, "it is cut short or not a zip file"),
    "damaged zip": (flip_byte_of_zip, "Cannot be decoded: 1 image|000001.jpg: .* do not match their checksum"),
    "one too small": (
        lambda root: write_images(root / "img_align_celeba", ["000007.jpg"], (178, 140)),
        "Too small for the crop 148: 1 image|000007.jpg: 178x140",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_each_damage_is_the_only_problem(tiny_celeba: Celeba, case: str) -> None:
    root = tiny_celeba(10)
    assert check_celeba(root, crop=148).problems == []
    damage, expected = DAMAGE[case]
    damage(root)
    problems = check_celeba(root, crop=148).problems
    assert len(problems) == 1
    title, _, name = expected.partition("|")
    assert re.search(title, problems[0].title)
    assert [bool(re.fullmatch(f"{name}.*", each)) for each in problems[0].names] == ([True] if name else [])


def test_a_sample_is_evenly_spaced(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(30)
    (root / "img_align_celeba" / "000002.jpg").write_bytes(b"")
    (root / "img_align_celeba" / "000030.jpg").write_bytes(b"")
    check = check_celeba(root, crop=148, sample=2)
    assert check.num_decoded == 2
    assert [problem.names for problem in check.problems] == [("000030.jpg: it is not an image that can be decoded",)]


@pytest.mark.parametrize(
    ("change", "annotation", "images"),
    [
        (lambda root: root, "Text files as CelebA's page has them: list_eval", "the folder img_align_celeba/."),
        (to_csv, "CSV files as Kaggle has them: list_eval_partition.csv", "img_align_celeba/img_align_celeba/, nested"),
        (to_zip, "Text files", "img_align_celeba.zip, which are read from there"),
    ],
)
def test_layouts_are_told_apart(tiny_celeba: Celeba, change: Damage, annotation: str, images: str) -> None:
    root = tiny_celeba(10)
    change(root)
    check = check_celeba(root, crop=148)
    assert annotation in check.layout
    assert images in check.layout
    assert check.problems == []


def spread(root: Path) -> None:
    for name, folder in FOLDERS.items():
        if (root / name).exists():
            (root / folder).mkdir(exist_ok=True)
            (root / name).rename(root / folder / name)


def pack_all(root: Path) -> None:
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        archive.writestr("list_eval_partition.csv", "image_id,partition")
    for path in root.glob("*.txt"):
        path.unlink()


def test_other_folders_are_explained(tiny_celeba: Celeba, tmp_path: Path) -> None:
    root = tiny_celeba(10)
    assert explain_folder(root) is None
    for folder in (root.parent, root / "img_align_celeba"):
        explanation = explain_folder(folder)
        assert explanation is not None
        assert f"vae prepare {root}" in explanation
    spread(root)
    output = run(1, root)
    assert f"mv {root}/Eval/list_eval_partition.txt {root}/Anno/list_attr_celeba.txt {root}/Anno/identity" in output
    packed = tiny_celeba(3, name="packed")
    pack_all(packed)
    assert f"unzip {packed}/archive.zip -d {packed}" in run(1, packed)
    (packed / "archive.zip").unlink()
    assert f"vae train data=folder data.root={packed}/img_align_celeba" in run(1, packed)
    assert "it is empty" in run(1, tmp_path / "here")


def test_checksums_are_compared_with_torchvisions(tiny_celeba: Celeba, monkeypatch: pytest.MonkeyPatch) -> None:
    root = to_csv(tiny_celeba(10))
    (root / "list_bbox_celeba.txt").write_text("boxes")
    md5 = hashlib.md5((root / "identity_CelebA.txt").read_bytes()).hexdigest()
    files = [(drive_id, md5 if "identity" in name else other, name) for drive_id, other, name in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", files)
    assert compare_checksums(root) == {
        "identity_CelebA.txt": "same",
        "list_bbox_celeba.txt": "another file",
        "list_eval_partition.csv": "no official checksum",
        "list_attr_celeba.csv": "no official checksum",
    }
    assert sum(SPLIT_COUNTS.values()) == NUM_IMAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Which folder?"),
        (("nowhere",), "nowhere is not a folder"),
        (("--faces", "celeba"), "leave out FOLDER"),
        (("--faces", "--allow-missing"), "leave out FOLDER"),
        (("--count", "30"), "--count and --seed are for --faces"),
        (("--faces", "--image-size", "64,big"), "--image-size 64,big"),
        (("--faces", "--image-size", "9999"), "expected 8 to 1024"),
        (("--faces", "--color", "red"), "--color red"),
        (("--faces", "--crop", "[1,2"), "--crop [1,2"),
    ],
)
def test_misuse_is_refused_before_anything_happens(arguments: tuple[str, ...], message: str) -> None:
    assert message in run(2, *arguments)
    assert list(Path.cwd().iterdir()) == []


def test_faces_are_drawn_where_training_looks_for_them() -> None:
    output = run(0, "--faces", "--count", "20", "--seed", "3", "--image-size", "32")
    assert "vae train data=faces data.faces_count=20 data.faces_seed=3 data.image_size=32\n" in output
    before = sorted(os.walk("data"))
    data = FaceDataModule("faces", image_size=32, faces_count=20, faces_seed=3)
    data.prepare_data()
    assert sorted(os.walk("data")) == before
    assert len(data.split("train")) > 0
