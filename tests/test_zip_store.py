"""Zip files that lie, that are damaged, or that are nearly right: no name leads elsewhere, nothing grows."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated

from vae_lightning.data import DataError
from vae_lightning.data.sources.celeba_files import explain_folder
from vae_lightning.data.sources.source import MOST_IMAGE_BYTES
from vae_lightning.data.sources.zip_store import ZipStore

PACKED = b"picture " * 100


def write_zip(path: Path, *names: str, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, PACKED)
    return path


def test_names_in_a_zip_file_lead_nowhere(tmp_path: Path) -> None:
    names = ("../../up.jpg", "/etc/absolute.jpg", "C:\\windows.jpg", "a/../b.jpg", "folder/")
    path = write_zip(tmp_path / "deep" / "images.zip" if (tmp_path / "deep").mkdir() is None else tmp_path, *names)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    store = ZipStore(path)
    assert {"up.jpg", "absolute.jpg", "b.jpg", "link.jpg"} <= store.names
    assert store.read("up.jpg") == store.read("b.jpg") == PACKED
    assert store.read("link.jpg") == b"/etc/passwd"  # its own bytes, not those of the file that it names
    assert sorted(tmp_path.rglob("*")) == before


def entry_field(content: bytes, offset: int, form: str, value: int) -> bytes:
    """The first entry of the directory, changed. Source: APPNOTE.TXT 4.3.12."""
    changed = bytearray(content)
    struct.pack_into(form, changed, content.index(b"PK\x01\x02") + offset, value)
    return bytes(changed)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "unpacks to more": lambda content: entry_field(content, 24, "<I", 10),
    "unpacks to less": lambda content: entry_field(content, 24, "<I", 2**27),
    "unpacks to too much": lambda content: entry_field(content, 24, "<I", 2**32 - 2),
    "has more bytes than the file": lambda content: entry_field(content, 20, "<I", 2**32 - 2),
    "begins beyond the file": lambda content: entry_field(content, 42, "<I", 2**31),
    "begins elsewhere": lambda content: entry_field(content, 42, "<I", 7),
    "other checksum": lambda content: entry_field(content, 16, "<I", 1),
    "encrypted": lambda content: entry_field(content, 8, "<H", 1),
    "packed in another way": lambda content: entry_field(content, 10, "<H", 12),
    "zip64 without its numbers": lambda content: entry_field(content, 24, "<I", 2**32 - 1),
    "a longer name": lambda content: entry_field(content, 28, "<H", 60_000),
    "directory elsewhere": lambda content: content[:-6] + struct.pack("<I", 2**31) + content[-2:],
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("lie", LIES)
def test_zip_files_that_lie_are_refused(lie: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "images.zip", "000001.jpg", "000002.jpg")
    path.write_bytes(LIES[lie](path.read_bytes()))
    with pytest.raises(DataError, match=r"images\.zip") as caught:
        ZipStore(path).read("000001.jpg")
    assert str(caught.value).isprintable()


@pytest.mark.slow
@pytest.mark.usefixtures("little_memory")
def test_a_bomb_in_a_zip_file_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("000001.jpg", "w") as entry:
        for _ in range(MOST_IMAGE_BYTES // 2**20 + 1):
            entry.write(bytes(2**20))
    with pytest.raises(DataError, match=r"has 269,484,032 bytes, more than the 268,435,456 of any image"):
        ZipStore(path).read("000001.jpg")
    content = path.read_bytes()
    path.write_bytes(entry_field(content, 24, "<I", 1_000))  # claims 1 KB
    with pytest.raises(DataError, match="do not match their checksum"):
        ZipStore(path).read("000001.jpg")


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "images.zip", "a/000001.jpg", "b/000001.jpg", "__MACOSX/._000001.jpg")
    assert ZipStore(path).read("000001.jpg") == PACKED  # the same twice
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("c/000001.jpg", b"another")
    with pytest.raises(DataError, match=r"two different images of one name, a/000001\.jpg and c/000001\.jpg"):
        ZipStore(path).read("000001.jpg")


@pytest.mark.nightly
def test_a_directory_of_a_million_entries_is_read(tmp_path: Path) -> None:
    path, count = tmp_path / "images.zip", 1_000_000
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(b""), 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(local)
        for number in range(count):
            name = b"%07d.jpg" % number
            file.write(
                struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), *[0] * 6) + name
            )
        size = file.tell() - len(local)
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, len(local)))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + size, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    store = ZipStore(path)
    assert len(store.names) == count
    assert store.read("0999999.jpg") == b""


def test_a_damaged_zip_file_beside_the_data_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "archive.zip", "000001.jpg")
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09"))
    with pytest.raises(DataError, match=r"archive\.zip is damaged"):
        explain_folder(tmp_path)


@cache
def zipped() -> tuple[bytes, ...]:
    archives = []
    for method, large in ((zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_DEFLATED, True)):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", method) as archive:
            for name in ("img_align_celeba/000001.jpg", "../000002.jpg", "/000003.jpg"):
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=large) as entry:
                    entry.write(bytes(range(200)) * 3)
        archives.append(written.getvalue())
    return tuple(archives)


@fuzzed
def test_zip_files(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "images.zip"
    path.write_bytes(mutated(zipped()[number % 3], number))
    try:
        store = ZipStore(path)
        for name in store.names:
            store.read(name)
        store.fingerprint([])
    except DataError as error:
        check_words(error)
