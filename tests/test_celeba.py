"""Reading CelebA as people have it, and every way in which it can be broken."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ATTRIBUTE_NAMES

from vae_lightning.data import DataError, ImageSource, read_celeba
from vae_lightning.data.sources.resolution import resolve_source
from vae_lightning.data.sources.source import SourceSettings

Celeba = Callable[..., Path]


def to_csv(root: Path, *, nested: bool = True) -> Path:
    """Kaggle's layout: CSV files with a header, images one folder deeper."""
    for stem, header in (
        ("list_attr_celeba", "image_id," + ",".join(ATTRIBUTE_NAMES)),
        ("list_eval_partition", "image_id,partition"),
    ):
        text = (root / f"{stem}.txt").read_text().splitlines()
        rows = [",".join(line.split()) for line in text if line.startswith("0")]
        (root / f"{stem}.csv").write_text("\n".join([header, *rows]) + "\n")
        (root / f"{stem}.txt").unlink()
    if nested:
        (root / "img_align_celeba").rename(root / "inner")
        (root / "img_align_celeba").mkdir()
        (root / "inner").rename(root / "img_align_celeba" / "img_align_celeba")
    return root


def to_zip(root: Path, *, inside: str = "img_align_celeba/", compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", compression) as archive:
        for image in sorted((root / "img_align_celeba").iterdir()):
            archive.write(image, inside + image.name)
    shutil.rmtree(root / "img_align_celeba")
    return root


def assert_same(first: ImageSource, second: ImageSource) -> None:
    assert first.filenames == second.filenames
    assert first.attribute_names == second.attribute_names
    np.testing.assert_array_equal(first.partition, second.partition)
    np.testing.assert_array_equal(first.attributes, second.attributes)
    np.testing.assert_array_equal(first.identities, second.identities)
    assert [first.read(row) for row in range(10)] == [second.read(row) for row in range(10)]


def test_text_layout_is_read_as_written(tiny_celeba: Celeba) -> None:
    source = read_celeba(tiny_celeba(30))
    expected = np.random.default_rng(0).random((30, 40)) < 0.5  # as conftest draws them
    np.testing.assert_array_equal(source.attributes, expected)
    assert source.attribute_names == tuple(ATTRIBUTE_NAMES)
    assert source.filenames[::29] == ("000001.jpg", "000030.jpg")
    assert source.partition.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2] * 3
    assert source.identities is not None
    assert source.identities.tolist() == [row // 2 + 100 for row in range(30)]


def test_crlf_equals_lf(tiny_celeba: Celeba) -> None:
    assert_same(read_celeba(tiny_celeba(name="lf")), read_celeba(tiny_celeba(name="crlf", newline="\r\n")))


@pytest.mark.parametrize("nested", [True, False])
def test_kaggle_csv_layout_equals_text_layout(tiny_celeba: Celeba, nested: bool) -> None:
    assert_same(read_celeba(tiny_celeba(name="text")), read_celeba(to_csv(tiny_celeba(name="csv"), nested=nested)))


@pytest.mark.parametrize("inside", ["img_align_celeba/", "img_align_celeba/img_align_celeba/", ""])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_equals_folder(tiny_celeba: Celeba, inside: str, compression: int) -> None:
    zipped = to_zip(tiny_celeba(name="zip"), inside=inside, compression=compression)
    assert_same(read_celeba(tiny_celeba(name="folder")), read_celeba(zipped))


def test_attributes_and_identities_are_joined_by_file_name(tiny_celeba: Celeba) -> None:
    plain, shuffled = tiny_celeba(name="plain"), tiny_celeba(name="shuffled")
    attributes = (shuffled / "list_attr_celeba.txt").read_text().splitlines()
    attributes[2:] = reversed(attributes[2:])
    (shuffled / "list_attr_celeba.txt").write_text("\n".join(attributes))
    identities = (shuffled / "identity_CelebA.txt").read_text().splitlines()
    (shuffled / "identity_CelebA.txt").write_text("\n".join(sorted(identities, key=lambda line: line[::-1])))
    assert_same(read_celeba(plain), read_celeba(shuffled))


def test_partition_file_decides_which_images_there_are(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(30)
    (root / "list_eval_partition.txt").write_text("000004.jpg 2\n000002.jpg 0\n")
    source = read_celeba(root)
    assert source.filenames == ("000004.jpg", "000002.jpg")
    assert source.attributes is not None
    np.testing.assert_array_equal(source.attributes, (np.random.default_rng(0).random((30, 40)) < 0.5)[[3, 1]])


def test_identities_are_optional(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    (root / "identity_CelebA.txt").unlink()
    assert read_celeba(root).identities is None


def test_a_name_in_the_environment_that_is_not_utf_8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELEBA_ROOT", os.fsdecode(b"/data/caf\xe9"))
    for source in ("auto", "celeba"):
        with pytest.raises(DataError, match=r"^CELEBA_ROOT=/data/caf\\xe9: this name is not UTF-8"):
            resolve_source(source, SourceSettings(None, Path("data")), print)


def edit(root: Path, file: str, old: str, new: str) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))


def cut_zip(root: Path) -> None:
    to_zip(root)
    path = root / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[:-5000])


def drop_attribute_row(root: Path) -> None:
    path = root / "list_attr_celeba.txt"
    path.write_text("\n".join(["9", *path.read_text().splitlines()[1:-1]]))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no partition file": (
        lambda root: (root / "list_eval_partition.txt").unlink(),
        r"has no list_eval_partition\.txt \(nor .*csv\); found: .*identity_CelebA.txt.*Download it",
    ),
    "no attribute file": (
        lambda root: (root / "list_attr_celeba.txt").unlink(),
        r"has no list_attr_celeba\.txt \(nor",
    ),
    "wrong count": (
        lambda root: edit(root, "list_attr_celeba.txt", "10\n", "11\n"),
        r"list_attr_celeba\.txt: its first line promises 11 rows, it has 10",
    ),
    "wrong number of columns": (
        lambda root: edit(root, "list_attr_celeba.txt", "000004.jpg", "000004.jpg  1"),
        r"list_attr_celeba\.txt, line 6: found 41 values for '000004.jpg', expected a file name and 40 values",
    ),
    "wrong attribute value": (
        lambda root: edit(root, "list_attr_celeba.txt", "000003.jpg -1", "000003.jpg  7"),
        r"list_attr_celeba\.txt, line 5: found '7' for '000003.jpg'.*out of -1, 1",
    ),
    "wrong attribute names": (
        lambda root: edit(root, "list_attr_celeba.txt", "Attribute_00 ", ""),
        r"list_attr_celeba\.txt, line 3: found 40 values .* expected a file name and 39",
    ),
    "wrong partition value": (
        lambda root: edit(root, "list_eval_partition.txt", "000009.jpg 1", "000009.jpg 3"),
        r"list_eval_partition\.txt, line 9: found '3' for '000009.jpg'",
    ),
    "empty partition file": (
        lambda root: (root / "list_eval_partition.txt").write_text(""),
        r"list_eval_partition\.txt has no rows",
    ),
    "repeated row": (
        lambda root: edit(root, "list_eval_partition.txt", "000009.jpg", "000008.jpg"),
        r"lists 000008\.jpg more than once",
    ),
    "rows that do not match": (drop_attribute_row, r"no row for 1 of the 10 images .*the first: 000010\.jpg"),
    "no images": (
        lambda root: shutil.rmtree(root / "img_align_celeba"),
        r"no images: neither the folder img_align_celeba/ nor img_align_celeba\.zip",
    ),
    "zip cut short": (cut_zip, r"img_align_celeba\.zip \([\d,]+ bytes\) has no end-of-archive record: it is cut short"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_the_fix(tiny_celeba: Celeba, case: str) -> None:
    root = tiny_celeba(10)
    damage, message = BROKEN[case]
    damage(root)
    with pytest.raises(DataError, match=message):
        read_celeba(root)


def test_bytes_changed_inside_the_zip_are_found(tiny_celeba: Celeba) -> None:
    path = to_zip(tiny_celeba(10)) / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"entry img_align_celeba/000001\.jpg do not match their checksum"):
        read_celeba(path.parent).read(0)


def test_fingerprint_follows_the_content(tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    source = read_celeba(root)
    before, others = source.fingerprint(np.arange(10)), source.fingerprint(np.arange(5))
    assert source.fingerprint(np.arange(10)) == before
    shutil.copy(root / "img_align_celeba" / "000001.jpg", root / "img_align_celeba" / "000009.jpg")
    assert source.fingerprint(np.arange(10)) != before
    assert source.fingerprint(np.arange(5)) == others


@pytest.mark.celeba
def test_the_real_sample(celeba_root: Path) -> None:
    source = read_celeba(celeba_root)
    counts = np.bincount(source.partition)
    assert counts.sum() == len(source.filenames)
    assert "Smiling" in source.attribute_names
    assert source.attributes is not None
    assert source.attributes.shape == (len(source.filenames), 40)
    assert 0.4 < source.attributes[:, source.attribute_names.index("Smiling")].mean() < 0.6
    assert source.read(0)[:2] == b"\xff\xd8"
