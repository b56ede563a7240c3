"""Caches of decoded images that are not as they were written: noticed, named, never trained on silently."""

import logging
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from test_cache import open_all
from test_changing_data import warnings

from vae_lightning.data import read_celeba
from vae_lightning.data.decoded import cache

Celeba = Callable[..., Path]


@pytest.fixture
def forget_verified() -> None:
    cache._verified.clear()


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


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.replace('"checksums": [', '"checksums": [1, '),
        lambda content: content.replace('"checksums"', '"other"'),
        lambda content: content.replace('"content"', '"other"'),
        lambda content: content.replace('"fingerprint": "', '"fingerprint": "0'),
        lambda content: "[1, 2]",
        lambda content: content[:100],
        lambda content: "",
    ],
)
@pytest.mark.usefixtures("forget_verified")
def test_edited_metadata_are_not_believed(
    edit: Callable[[str], str], tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_celeba(tiny_celeba(3))
    whole = np.array(open_all(data, tmp_path / "cache"))
    (metadata,) = (tmp_path / "cache").glob("*/metadata.json")
    before = metadata.read_text()
    metadata.write_text(edit(before))
    cache._verified.clear()
    np.testing.assert_array_equal(open_all(data, tmp_path / "cache"), whole)
    assert "is damaged" in caplog.text
    assert metadata.read_text() == before


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_an_array_of_another_kind_is_not_read_as_images(
    dtype: str, tiny_celeba: Celeba, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same number of bytes in another order, or as other numbers."""
    data = read_celeba(tiny_celeba(4))
    whole = np.array(open_all(data, tmp_path / "cache"))
    (array,) = (tmp_path / "cache").glob("*/images.npy")
    np.save(array, np.asfortranarray(whole) if dtype == "uint8" else whole.reshape(-1).view(dtype))
    np.testing.assert_array_equal(open_all(data, tmp_path / "cache"), whole)
    assert "is damaged" in caplog.text


def test_a_cache_of_an_earlier_version_is_left_alone_and_said(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, metadata = read_celeba(tiny_celeba(3)), cache._metadata
    with monkeypatch.context() as patched:
        patched.setattr(cache, "_metadata", lambda *arguments: {**metadata(*arguments), "version": 2})
        open_all(data, tmp_path / "cache")
    (old,) = (tmp_path / "cache").glob("*/images.npy")
    content = old.read_bytes()
    with caplog.at_level(logging.INFO, "vae_lightning"):
        open_all(data, tmp_path / "cache")
    assert f"{old.parent} is of an earlier version" in caplog.text
    assert old.read_bytes() == content
    assert len(list((tmp_path / "cache").glob("*/images.npy"))) == 2


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
