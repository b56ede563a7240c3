"""What every data source gives: the images' names, partition, annotation, and where their bytes are."""

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int8, Int64, UInt64

from vae_lightning.data.decoded.checksums import checksum_of
from vae_lightning.system.names import reason_of
from vae_lightning.system.regular_files import check_regular, read_regular

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")  # the position is CelebA's partition number

MOST_IMAGE_BYTES = 256 * 2**20  # of one image file: 50 million pixels of 5 bytes
AS_LISTED = "as listed"
STATTING_THREADS = 8  # one os.stat takes 3 µs on a local disk, on a network often 100 times as long
STATTED_AT_ONCE = 1_000
NS_PER_MS = 1_000_000


class DataError(ValueError):
    """Data that cannot be used as asked; the message says the file, what was found, what is expected, and the fix."""


@runtime_checkable
class ImageStore(Protocol):
    """Gives the bytes of images by file name; all methods may be called from any thread."""

    def read(self, filename: str) -> bytes: ...

    def fingerprint(self, filenames: list[str]) -> str:
        """What quickly proves these images' content, here and now: never the same for two contents."""

    def checksum(self, filename: str) -> str:
        """The checksum of an image's bytes, as `checksum_of` makes it."""
        return checksum_of(self.read(filename))


class FolderStore(ImageStore):
    """Images as files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, filename: str) -> bytes:
        path = self.folder / filename
        try:
            return read_regular(path, MOST_IMAGE_BYTES)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def fingerprint(self, filenames: list[str]) -> str:
        """A hash of what the file system says of every file; another content gives another one.

        Size and mtime do not prove a content, since archives that can be made again byte by byte fix both. The ctime
        does, with the inode: the kernel takes it from the clock at each change, and nobody can set it. File systems
        that have none (FAT, exFAT, SSHFS) give a time of theirs, in steps of a millisecond or more; there the file's
        checksum stands in its place.
        """
        with ThreadPoolExecutor(STATTING_THREADS) as pool:
            parts = pool.map(self._marks, range(0, len(filenames), STATTED_AT_ONCE), repeat(filenames))
            return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def _marks(self, first: int, filenames: list[str]) -> str:
        marks = []
        for name in filenames[first : first + STATTED_AT_ONCE]:
            try:
                status = os.stat(f"{self.folder}/{name}")  # noqa: PTH116 (pathlib is 20 times slower)
                check_regular(status, MOST_IMAGE_BYTES)
            except (OSError, ValueError) as error:
                raise _unreadable(self.folder / name, error) from error
            has_ctime = status.st_ctime_ns % NS_PER_MS != 0
            proof = f"{status.st_ino} {status.st_ctime_ns}" if has_ctime else self.checksum(name)
            marks.append(f"{status.st_size} {status.st_mtime_ns} {proof}")
        return "\n".join(marks)


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else reason_of(error)
    return DataError(
        f"{path} cannot be read: {reason}. It is one of the images, so it has to be there as a file; restore it, or "
        "unpack the images again."
    )


class CheckedStore(FolderStore):
    """Files whose checksums are known: a file that has changed is refused."""

    def __init__(self, folder: Path, checksums: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.checksums = checksums

    def read(self, filename: str) -> bytes:
        content = super().read(filename)
        if checksum_of(content) != self.checksums.get(filename):
            raise DataError(
                f"{self.folder / filename} is not as it was rendered: it was edited or damaged. Delete "
                f"{self.folder.parent}, and the same command renders it again."
            )
        return content


Factors = tuple[tuple[str, ...], Float[np.ndarray, "rows factors"]]  # names and values


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A data set before decoding; one row per image, ordered as the partition file or the sorted folder."""

    kind: str  # the name of its data source: of the module in data/sources/
    root: Path
    filenames: tuple[str, ...]
    partition: Int8[np.ndarray, " rows"]  # 0 train, 1 validation, 2 test
    images: ImageStore
    attribute_names: tuple[str, ...] = ()
    attributes: Bool[np.ndarray, "rows attributes"] | None = None
    identities: Int64[np.ndarray, " rows"] | None = None
    read_factors: Callable[[], Factors] | None = None  # of what the images were drawn from, where that is known
    divided: str = AS_LISTED  # how the images were divided into the three splits, for records and cards
    remarks: tuple[str, ...] = ()  # lines that a person has to see, as how many images were left out and why

    def read(self, row: int) -> bytes:
        """The encoded image of one row; safe to call from several threads."""
        return self.images.read(self.filenames[row])

    def fingerprint(self, rows: Int64[np.ndarray, " selected"]) -> str:
        """A hash of these images' names and of what quickly proves their content; a copy may have another one."""
        filenames = [self.filenames[row] for row in rows.tolist()]
        digest = hashlib.blake2b("\n".join(filenames).encode(), digest_size=16)
        digest.update(self.images.fingerprint(filenames).encode())
        return digest.hexdigest()

    def annotation_hash(self, splits: list[Int64[np.ndarray, " _"]]) -> str | None:
        """A hash of these images' attributes and identities; None if there are no attributes."""
        if self.attributes is None:
            return None
        digest = hashlib.blake2b("\n".join(self.attribute_names).encode(), digest_size=16)
        for rows in splits:
            digest.update(self.attributes[rows].tobytes())
            digest.update(b"" if self.identities is None else self.identities[rows].tobytes())
        return digest.hexdigest()

    def split_rows(self, split: Split) -> Int64[np.ndarray, " selected"]:
        return np.flatnonzero(self.partition == SPLITS.index(split)).astype(np.int64)


@dataclass(frozen=True)
class SourceSettings:
    """Those arguments of `FaceDataModule` that say which images there are."""

    root: Path | None
    data_dir: Path
    faces_count: int = 10_000
    faces_seed: int = 0
    noise_count: int = 202_599
    allow_missing: bool = False

    def required_root(self) -> Path:
        """Raises: DataError where data.root was not given."""
        if self.root is None:
            raise DataError(
                "data.root=null: these images lie in a folder of yours; say which: data.root=/path/to/the/images"
            )
        return self.root


@dataclass(frozen=True)
class DataSource:
    """A kind of data set. A module of data/sources/ that has one under the name SOURCE can be trained on.

    The module's name is what data.source, run records and caches call it.
    """

    title: str  # in words, after "trained on": "a folder of images"
    read: Callable[[SourceSettings], ImageSource]  # quickly: it decodes no image
    has_root: bool  # whether the images lie in a folder that data.root names; a record's root is then opened again
    # for model cards, demo pages and before an upload
    about: str = (
        "This card does not know what the images show, whose they are, or what may be done with them. Whoever "
        "publishes the model has to say so here."
    )
    uses: str = "what the licence of the images allows"
    note: str = "The licence of the images holds for this page too."
    licence: str = "Check that the licence of your images allows to publish this model."


def seeded_bits(count: int, purpose: str, *seed: int) -> UInt64[np.ndarray, " count"]:
    """Random 64-bit numbers, the same with every NumPy and on every machine; another purpose gives others.

    NumPy keeps the raw stream of PCG64 stable across versions, which it does not promise of what `Generator`
    makes of it.
    """
    return np.random.PCG64([zlib.crc32(purpose.encode()), *seed]).random_raw(count)


def seeded_order(count: int, purpose: str, *seed: int) -> Int64[np.ndarray, " count"]:
    """A random permutation of range(count), as reproducible as `seeded_bits`."""
    return np.argsort(seeded_bits(count, purpose, *seed), kind="stable").astype(np.int64)
