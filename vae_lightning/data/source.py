"""A data set of images before any is decoded: names, partition, annotation, and where the bytes are."""

import hashlib
import os
import struct
import threading
import weakref
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int8, Int64, UInt64

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")  # the position is CelebA's partition number

TAIL_BYTES = 32 * 2**20  # holds the central directory of CelebA's zip (22 MB at most), with every entry's CRC-32
STATTED_FILES = 32_768  # one os.stat takes 3 µs: all of CelebA's 202,599 would take most of a second


class DataError(ValueError):
    """A data set that cannot be used as asked: the file, what was found, what is expected, and the fix."""


@runtime_checkable
class ImageStore(Protocol):
    """Where the bytes of images are; both functions may be called from any thread."""

    def read(self, filename: str) -> bytes: ...

    def fingerprint(self, filenames: list[str]) -> str: ...


class FolderStore(ImageStore):
    """Images as files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, filename: str) -> bytes:
        path = self.folder / filename
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}. The image is listed, so it has to be there; "
                "restore it, or unpack the images again."
            ) from error

    def fingerprint(self, filenames: list[str]) -> str:
        """Size and time of the files; of evenly spaced ones only when there are more than STATTED_FILES.

        In that case the folders' own modification times stand in for the rest: they change whenever a file is
        added, removed or replaced, though not when one is overwritten in place.
        """
        step = -(-len(filenames) // STATTED_FILES)
        paths = [f"{self.folder}/{filename}" for filename in filenames[::step]]
        if step > 1:
            paths += sorted({os.path.dirname(path) for path in paths})  # noqa: PTH120 (pathlib is 20 times slower)
        try:
            stats = [os.stat(path) for path in paths]  # noqa: PTH116
        except OSError as error:
            raise DataError(
                f"{error.filename} cannot be read: {error.strerror}. The image is listed, so it has to be "
                "there; restore it, or unpack the images again."
            ) from error
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], np.int64).tobytes())
        return digest.hexdigest()


class ZipStore(ImageStore):
    """Images inside a zip file, found by their file name in whichever folder of the archive they lie."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        if not zipfile.is_zipfile(path):  # reads the last bytes only
            raise DataError(
                f"{path} ({path.stat().st_size:,} bytes) has no end-of-archive record: it is cut short or no "
                "zip file. Download it again (CelebA's complete file has 1,443,490,838 bytes)."
            )

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {entry.filename.rpartition("/")[2]: entry for entry in archive.infolist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{self.path} is damaged ({error}). Download it again.") from error

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def read(self, filename: str) -> bytes:
        # One positioned read, where zipfile's own reader shares a seek position and takes three times as
        # long.
        with self._lock:
            entry, descriptor = self._entries.get(filename), self._descriptor
        if entry is None:
            raise DataError(
                f"{self.path} has no entry {filename} ({len(self._entries):,} entries): the zip file and the "
                "partition file do not belong together. Download the zip file again."
            )
        header = os.pread(descriptor, 30, entry.header_offset)  # local file header, APPNOTE.TXT 4.3.7
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise DataError(f"{self.path} is damaged at entry {entry.filename}. Download it again.")
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        start = entry.header_offset + 30 + name_length + extra_length
        return self._unpack(entry, os.pread(descriptor, entry.compress_size, start))

    def _unpack(self, entry: zipfile.ZipInfo, packed: bytes) -> bytes:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise DataError(
                f"{self.path}: entry {entry.filename} is encrypted or packed by a method other than stored "
                "and deflate. Unpack the archive into the folder img_align_celeba/ beside it."
            )
        try:
            data = packed if entry.compress_type == zipfile.ZIP_STORED else zlib.decompress(packed, -15)
        except zlib.error:
            data = b""
        if zlib.crc32(data) != entry.CRC or len(data) != entry.file_size:
            raise DataError(
                f"{self.path}: the bytes of entry {entry.filename} do not match their checksum. Download it again."
            )
        return data

    def fingerprint(self, filenames: list[str]) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Size and tail of the file: what the central directory says covers every entry."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(0, size - TAIL_BYTES))
            return hashlib.blake2b(file.read(), key=str(size).encode(), digest_size=16).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A data set before decoding; one row per image, ordered as the partition file or the sorted folder."""

    kind: Literal["celeba", "faces", "folder", "noise"]
    root: Path
    filenames: tuple[str, ...]
    partition: Int8[np.ndarray, " rows"]  # 0 train, 1 validation, 2 test
    images: ImageStore
    attribute_names: tuple[str, ...] = ()
    attributes: Bool[np.ndarray, "rows attributes"] | None = None
    identities: Int64[np.ndarray, " rows"] | None = None

    def read(self, row: int) -> bytes:
        """The encoded image of one row; safe to call from several threads."""
        return self.images.read(self.filenames[row])

    def fingerprint(self, rows: Int64[np.ndarray, " selected"]) -> str:
        """A hash of these images' names and, by sizes, times or checksums, so cheaply, of their content."""
        filenames = [self.filenames[row] for row in rows.tolist()]
        digest = hashlib.blake2b("\n".join(filenames).encode(), digest_size=16)
        digest.update(self.images.fingerprint(filenames).encode())
        return digest.hexdigest()

    def split_rows(self, split: Split) -> Int64[np.ndarray, " selected"]:
        return np.flatnonzero(self.partition == SPLITS.index(split)).astype(np.int64)


def seeded_bits(count: int, purpose: str, *seed: int) -> UInt64[np.ndarray, " count"]:
    """64 random bits each, the same with every NumPy and on every machine; another purpose gives other bits.

    NumPy keeps the raw stream of PCG64 stable across versions, which it does not promise of what `Generator`
    makes of it.
    """
    return np.random.PCG64([zlib.crc32(purpose.encode()), *seed]).random_raw(count)


def seeded_order(count: int, purpose: str, *seed: int) -> Int64[np.ndarray, " count"]:
    """A random permutation of range(count), as reproducible as `seeded_bits`."""
    return np.argsort(seeded_bits(count, purpose, *seed), kind="stable").astype(np.int64)
