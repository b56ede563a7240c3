"""JSON and YAML files that stand for much more than they hold: refused, within bounds of memory and time."""

import os
from pathlib import Path

import pytest

from vae_lightning.system.plain_files import read_plain

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {k0: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bomb.yaml", LAUGHS),
        ("itself.yaml", "&a [*a]"),
        ("deep.yaml", "[" * 200_000),
        ("deep.json", "[" * 100_000),
        ("object.yaml", "!!python/object/apply:os.system ['true']"),
        ("number.json", "9" * 400),
        ("digits.json", "9" * 5_000),
        ("key.yaml", "? [a]\n: 1"),
        ("bytes.json", "\0"),
        ("values.json", "[" + "[]," * 1_500_000 + "1]"),
        ("base_of_60.yaml", "a: 1" + ":1" * 100_000),
        ("base_of_60.yaml", "a: 1" + ":1" * 100_000 + ".5"),
        ("hexadecimal.yaml", "a: 0x" + "f" * 200_000),
        ("merged.yaml", MERGED),
        ("often.yaml", "a: &a " + "x" * 100_000 + "\nb: [" + "*a, " * 1_000 + "1]"),
        ("large.yaml", "a: 1\n" * 100_000),
    ],
)
def test_plain_files_stay_within_bounds(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_plain(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="a named pipe"):
        read_plain(tmp_path / "pipe.json")


def test_plain_files_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**33)  # a hole in most file systems
    with pytest.raises(ValueError, match="8,589,934,592 bytes, more than"):
        read_plain(tmp_path / "large.json")
