"""Annotation files that are edited, damaged, or nearly right: read, or explained in one short line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ATTRIBUTE_NAMES, write_celeba
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated

from vae_lightning.data import DataError
from vae_lightning.data.preparation.checking import check_celeba
from vae_lightning.data.rendering.dataset import read_factors
from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.tables import read_table

Celeba = Callable[..., Path]
NAMES = {
    "up": "../000001.jpg",
    "absolute": "/etc/passwd",
    "backslash": "..\\000001.jpg",
    "escape": "\x1b[2J.jpg",
    "nul": "a\0b.jpg",
    "latin-1": "é.jpg",
    "long": "a" * 10**6,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_image_stays_in_the_folder(name: str, tiny_celeba: Celeba) -> None:
    root = tiny_celeba(10)
    for file in ("list_eval_partition.txt", "list_attr_celeba.txt", "identity_CelebA.txt"):
        content = (root / file).read_bytes()
        (root / file).write_bytes(content.replace(b"000003.jpg", NAMES[name].encode("latin-1")))
    with pytest.raises(DataError, match=r"list_eval_partition\.txt lists .* cannot name an image") as caught:
        read_celeba(root)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert "cannot name an image" in check_celeba(root, 148).problems[0].title


def edited(root: Path, change: Callable[[bytes], bytes], file: str = "list_attr_celeba.txt") -> Path:
    (root / file).write_bytes(change((root / file).read_bytes()))
    return root


GOOD: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "no line at the end": lambda content: content.rstrip(b"\n"),
    "empty lines at the end": lambda content: content + b"\n\n \n",
}
BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "written in UTF-16: save it as UTF-8"),
    "repeated row": (
        lambda content: content.replace(b"000004.jpg", b"000003.jpg"),
        r"lists 000003\.jpg more than once",
    ),
    "repeated attribute": (
        lambda content: content.replace(b"bute_07", b"bute_08"),
        "names Attribute_08 more than once",
    ),
    "terminal's name": (lambda content: content.replace(b"Attribute_07", b"\x1b[31mA"), "cannot name a column"),
    "path for a name": (lambda content: content.replace(b"Attribute_07", b"../../A"), "cannot name a column"),
    "long line": (lambda content: content.replace(b"000003.jpg", b"x " * 500_000), r"line 5: found 'x' for 'x'"),
    "long value": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg " + b"7" * 10**6), r"found '7{80}…'"),
    "fraction": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg 1.5"), "found '1.5'"),
    "huge count": (lambda content: b"9" * 5_000 + content, "expected 40"),
    "quotes": (lambda content: content.replace(b"000003.jpg -1", b'000003.jpg "1"'), "found '\"1\"'"),
    "nul": (lambda content: content.replace(b"000003.jpg -1", b"000003.jpg \0"), "found"),
    "header only": (lambda content: b"\n".join(content.split(b"\n")[:2]), "has no rows"),
    "carriage returns": (lambda content: content.replace(b"\n", b"\r"), "attributes, expected 40"),
    "empty": (lambda content: b"", "has no rows|expected 40"),
}


@pytest.mark.parametrize("case", GOOD)
def test_odd_annotation_files_are_read(case: str, tiny_celeba: Celeba) -> None:
    expected = read_celeba(tiny_celeba(10, name="whole")).attributes
    found = read_celeba(edited(tiny_celeba(10, name="odd"), GOOD[case])).attributes
    assert found is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", BAD)
def test_damaged_annotation_files_are_explained_in_one_short_line(case: str, tiny_celeba: Celeba) -> None:
    change, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        read_celeba(edited(tiny_celeba(10), change))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_table_from_kaggle_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = "".join(f"{number:06d}.jpg,{','.join(['-1', '1'] * 20)}\r\n" for number in range(3))
    (tmp_path / "attributes.csv").write_text(f"image_id,{','.join(ATTRIBUTE_NAMES)}\r\n{rows}", encoding="utf-8-sig")
    table = read_table(tmp_path / "attributes.csv", allowed=(-1, 1))
    assert table.column_names == tuple(ATTRIBUTE_NAMES)
    assert len(table.filenames) == 3


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_celeba(tmp_path_factory.mktemp("celeba"), 4)
    names = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
    return {"root": root, **{name: (root / name).read_bytes() for name in names}}


@fuzzed
def test_annotation_files(celeba: dict[str, Any], number: int) -> None:
    root, names = celeba["root"], [name for name in celeba if name != "root"]
    name = names[number % 3]
    content = celeba[name]
    if number % 2:
        content = content.replace(b"\n", (b"\r\n", b"\r", b"\n")[number % 5 % 3])
    try:
        (root / name).write_bytes(mutated(content, number))
        source = read_celeba(root)
        assert all(Path(filename).name == filename for filename in source.filenames)
        source.fingerprint(np.arange(len(source.filenames)))
    except DataError as error:
        check_words(error)
    finally:
        (root / name).write_bytes(celeba[name])


@fuzzed
def test_tables_of_factors(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    content = b"filename,identity,yaw,smile\n000001.jpg,3,0.5,-1\n000002.jpg,3,1e-3,2.25\n"
    (folder_of_all(tmp_path_factory) / "factors.csv").write_bytes(mutated(content, number))
    try:
        names, values = read_factors(folder_of_all(tmp_path_factory))
        assert values.shape[1] == len(names)
    except DataError as error:
        check_words(error)
