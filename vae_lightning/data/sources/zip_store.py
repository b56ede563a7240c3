"""Images inside a zip file that is read but never unpacked, so that names in it cannot lead anywhere."""

import hashlib
import os
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from vae_lightning.data.sources.image_names import ALLOW_MISSING, is_image, match_names
from vae_lightning.data.sources.source import MOST_IMAGE_BYTES, DataError, ImageStore
from vae_lightning.system.names import shown

TAIL_BYTES = 32 * 2**20  # holds the central directory of CelebA's zip (22 MB at most), with every entry's CRC-32
LOCAL_HEADER_BYTES = 30
# all that zipfile was seen to raise at damaged directories; NotImplementedError is a RuntimeError
UNREADABLE = (
    *(zipfile.BadZipFile, OSError, ValueError, RuntimeError, LookupError, OverflowError, MemoryError, struct.error),
)


class ZipStore(ImageStore):
    """Finds images by their file name, in whichever folder of the archive they lie.

    Args:
        path: of the archive, whose directory is read with the first image.
        listed: the images that there have to be; what else lies in the archive is ignored. None = all images in it.
        allow_missing: whether some of the listed images may be missing.
    """

    def __init__(self, path: Path, listed: Sequence[str] | None = None, *, allow_missing: bool = False) -> None:
        self.path = path
        self.listed = listed
        self.allow_missing = allow_missing
        self._lock = threading.Lock()
        if not zipfile.is_zipfile(path):  # reads the last bytes only
            raise DataError(
                f"{path} ({path.stat().st_size:,} bytes) has no end-of-archive record: it is cut short or not a "
                "zip file. Download it again (CelebA's complete file has 1,443,490,838 bytes)."
            )

    @property
    def names(self) -> set[str]:
        """Names of the images that it has, those of the list. Raises: DataError for a damaged directory."""
        with self._lock:
            return set(self._entries)

    @property
    def num_images(self) -> int:
        """Also those that are not listed. Raises: DataError for a damaged directory."""
        with self._lock:
            return sum(map(is_image, self._directory))

    @cached_property
    def _directory(self) -> dict[str, list[zipfile.ZipInfo]]:
        """By file name, whatever the folder; several only where they differ."""
        entries: dict[str, list[zipfile.ZipInfo]] = {}
        with os.fdopen(os.dup(self._descriptor), "rb") as file:  # another archive may lie in its place by now
            found = read_directory(self.path, file)
        for entry in found:
            same = entries.setdefault(entry.filename.rpartition("/")[2], [])
            if all((other.CRC, other.file_size) != (entry.CRC, entry.file_size) for other in same):
                same.append(entry)
        return entries

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        """
        Raises:
            DataError: a damaged directory, two different images of one name, or listed images that are missing.
        """
        listed = [*filter(is_image, self._directory)] if self.listed is None else self.listed
        names = match_names(listed, self._directory)
        missing = [name for name, found in zip(listed, names, strict=True) if found is None]
        if missing and not self.allow_missing:
            raise DataError(
                f"{self.path} lacks {len(missing):,} of the {len(listed):,} listed images (the first: "
                f"{shown(missing[0])}). Download it again; {ALLOW_MISSING}."
            )
        for name in names:
            if name is not None and len(self._directory[name]) > 1:
                one, other = (shown(entry.filename) for entry in self._directory[name][:2])
                raise DataError(
                    f"{self.path} has two different images of one name, {one} and {other}. Download it again, or "
                    "unpack the right ones."
                )
        return {name: self._directory[found][0] for name, found in zip(listed, names, strict=True) if found}

    @cached_property
    def _descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def read(self, filename: str) -> bytes:
        # One positioned read: zipfile's own reader shares a seek position and takes three times as long.
        with self._lock:
            entry, descriptor = self._entries.get(filename), self._descriptor
        if entry is None:
            raise DataError(f"{self.path} has no image {filename}, but {len(self._entries):,} others.")
        self._check_entry(entry, os.fstat(descriptor).st_size)
        header = os.pread(descriptor, LOCAL_HEADER_BYTES, entry.header_offset)  # APPNOTE.TXT 4.3.7
        if len(header) < LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
            raise DataError(f"{self.path} is damaged at entry {shown(entry.filename)}. Download it again.")
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        start = entry.header_offset + LOCAL_HEADER_BYTES + name_length + extra_length
        return self._unpack(entry, os.pread(descriptor, entry.compress_size, start))

    def checksum(self, filename: str) -> str:
        """As the archive's directory says; `read` compares it with the bytes."""
        with self._lock:
            entry = self._entries.get(filename)
        return super().checksum(filename) if entry is None else f"{entry.CRC:08x}"

    def _check_entry(self, entry: zipfile.ZipInfo, num_bytes: int) -> None:
        """Compares the directory with the file, before any memory is allocated."""
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise DataError(
                f"{self.path}: entry {shown(entry.filename)} is encrypted or packed by a method other than stored "
                "and deflate. Unpack the archive into the folder img_align_celeba/ beside it."
            )
        if entry.file_size > MOST_IMAGE_BYTES:
            raise DataError(
                f"{self.path}: entry {shown(entry.filename)} has {entry.file_size:,} bytes, more than the "
                f"{MOST_IMAGE_BYTES:,} of any image that is read. Download it again."
            )
        if not 0 <= entry.header_offset <= num_bytes or not 0 <= entry.compress_size <= num_bytes:
            raise DataError(f"{self.path} is damaged at entry {shown(entry.filename)}. Download it again.")

    def _unpack(self, entry: zipfile.ZipInfo, packed: bytes) -> bytes:
        try:
            # one byte more than promised tells a bomb, which is not unpacked any further
            is_stored = entry.compress_type == zipfile.ZIP_STORED
            data = packed if is_stored else zlib.decompressobj(-15).decompress(packed, entry.file_size + 1)
        except zlib.error:
            data = b""
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise DataError(
                f"{self.path}: the bytes of entry {shown(entry.filename)} do not match their checksum. "
                "Download it again."
            )
        return data

    def fingerprint(self, filenames: list[str]) -> str:
        """A hash of size and tail of the file; the tail holds the directory, with a checksum of every image.

        Taken anew from the open file that images are read from: another one may lie in its place, or in it, meanwhile.
        """
        with self._lock:
            descriptor = self._descriptor
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
        return hashlib.blake2b(tail, key=str(size).encode(), digest_size=16).hexdigest()

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "listed": self.listed, "allow_missing": self.allow_missing}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def read_directory(path: Path, file: IO[bytes] | None = None) -> list[zipfile.ZipInfo]:
    """Of an archive, which may be open. Raises: DataError for a damaged directory."""
    try:
        with zipfile.ZipFile(file or path) as archive:
            return archive.infolist()
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged ({error}). Download it again.") from error
