"""Decodes every image once, into one memory-mapped array that later runs and all jobs of a sweep share."""

import errno
import hashlib
import io
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int64

from vae_lightning.data.decoded.changes import (
    FILES,
    METADATA,
    cached_files,
    changed_files,
    check_settled,
    files_now,
    known_content,
    remember,
)
from vae_lightning.data.decoded.checksums import content_of, list_checksums
from vae_lightning.data.decoded.decoding import CHUNK, Images, Wanted, decoded_chunks
from vae_lightning.data.decoded.preprocessing import Preprocessing
from vae_lightning.data.sources.source import DataError, ImageSource
from vae_lightning.system.processors import num_cores

logger = logging.getLogger("vae_lightning")

CACHE_VERSION = 4  # raise when the same key would give other pixels, or the files say other things
ARRAY = "images.npy"
SPARE_BYTES = 64 * 2**20  # left free on the disk beside the cache itself

_verified: set[tuple[str, int, int, int, int]] = set()  # arrays whose checksums this process has compared


@dataclass(frozen=True)
class Decoded:
    """Images in the cache."""

    images: Images  # a read-only memory map
    content: str  # a hash of the names and bytes of the files that they were decoded from, the same on every machine


def open_cache(
    source: ImageSource,
    rows: Int64[np.ndarray, " rows"],
    preprocessing: Preprocessing,
    cache_dir: Path,
    split: str = "all",
    fingerprint: str | None = None,
) -> Decoded:
    """The decoded images of `rows`, NHWC; they are decoded now if there is no cache, or if it is damaged.

    The folder's name is a hash of the files' names, of the preprocessing and of CACHE_VERSION, and one of the files'
    content. `split` only names the images for people; `fingerprint` is that of the rows, if it is known already.

    Raises: DataError for an image that cannot be used (named, with its row), images that change meanwhile, or a disk
    without room; nothing is left behind.
    """
    wanted = Wanted(source, rows, preprocessing, split)
    fingerprint = fingerprint or source.fingerprint(rows)
    metadata = _metadata(wanted)
    place = cache_dir / _name(metadata)
    content = _content(place, wanted, fingerprint)
    decoded = _open(place, content, wanted, metadata, logging.DEBUG)  # what is wrong is said once, below
    if decoded is not None:
        return decoded
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(place.with_name(place.name + ".lock"), split):
        content = content or _content(place, wanted, fingerprint)  # another process may have built it meanwhile
        decoded = _open(place, content, wanted, metadata)
        if decoded is None:
            content = _build(place, content, wanted, metadata, fingerprint)
            decoded = _open(place, content, wanted, metadata)
            assert decoded is not None
        return decoded


def _metadata(wanted: Wanted) -> dict[str, Any]:
    """What the first part of a folder's name is a hash of."""
    names = "\n".join(wanted.names(0, len(wanted.rows)))
    return {
        "version": CACHE_VERSION,
        "source": wanted.source.kind,
        "names": hashlib.blake2b(names.encode(), digest_size=16).hexdigest(),
        "preprocessing": json.loads(json.dumps(asdict(wanted.preprocessing))),  # as it will be read back
        "shape": list(wanted.shape),
    }


def _name(metadata: dict[str, Any]) -> str:
    key = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=8).hexdigest()
    preprocessing = metadata["preprocessing"]
    return f"{metadata['source']}-{preprocessing['image_size']}-{preprocessing['color']}-{key}"


def _folder(place: Path, content: str) -> Path:
    return place.with_name(f"{place.name}-{content}")


def _content(place: Path, wanted: Wanted, fingerprint: str) -> str | None:
    """What the files hold; None where it is unknown and has not to be known: nothing is decoded from such files yet.

    Raises:
        DataError: an image that cannot be read, or that changes meanwhile.
    """
    content = known_content(place.parent, fingerprint)
    if content is None and any(place.parent.glob(f"{place.name}-*")):
        files = files_now(wanted, "Comparing {} images with decoded ones")
        content = content_of(files)
        fingerprint = check_settled(wanted, fingerprint, files)
        if _folder(place, content).is_dir():
            remember(_folder(place, content), fingerprint)
    return content


def _open(
    place: Path, content: str | None, wanted: Wanted, metadata: dict[str, Any], log_level: int = logging.WARNING
) -> Decoded | None:
    """Returns None if there is no cache, or a damaged one."""
    if content is None or not (folder := _folder(place, content)).exists():
        return None
    try:
        stored = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        images = _map(folder / ARRAY, wanted.shape)
        if {name: stored[name] for name in (*metadata, "content")} != {**metadata, "content": content}:
            raise ValueError(f"{METADATA} describes other images")
        _verify(folder / ARRAY, images, stored["checksums"], wanted)
        return Decoded(images, content)
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.log(log_level, "The cache %s is damaged (%s); decoding the images again.", folder, error)
        return None


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _map(path: Path, shape: tuple[int, int, int, int]) -> Images:
    """Raises: ValueError where the file is not such an array of bytes, to the byte as long."""
    header, size = _header(shape), path.stat().st_size
    expected = len(header) + math.prod(shape)
    if size != expected:
        raise ValueError(f"{path.name} has {size:,} bytes, expected {expected:,}")
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise ValueError(f"{path.name} has another header")
    return np.memmap(path, np.uint8, "r", offset=len(header), shape=shape)


def _verify(path: Path, images: Images, checksums: list[int], wanted: Wanted) -> None:
    """Compares checksums, once per process; reads about 1 GB a second and processor, which warms the system's cache.

    Raises: ValueError that names the damaged images.
    """
    status = path.stat()
    file = (str(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    if file in _verified:
        return
    starts = range(0, len(images), CHUNK)
    if len(checksums) != len(starts):
        raise ValueError(f"{len(checksums):,} checksums for {len(starts):,} pieces")
    with ThreadPoolExecutor(num_cores()) as pool:
        found = pool.map(lambda first: zlib.crc32(images[first : first + CHUNK].data), starts)
        damaged = [first for first, one, other in zip(starts, found, checksums, strict=True) if one != other]
    if damaged:
        names = wanted.names(damaged[0], damaged[0] + CHUNK)
        more = f", and {len(damaged) - 1:,} more such pieces" if len(damaged) > 1 else ""
        raise ValueError(f"checksum of the {wanted.split} images {names[0]} to {names[-1]}{more}")
    _verified.add(file)


@contextmanager
def _locked(path: Path, split: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Waiting for another process that decodes the same %s images (%s).", split, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(place: Path, content: str | None, wanted: Wanted, metadata: dict[str, Any], fingerprint: str) -> str:
    """Writes everything into a temporary folder, then renames it; the caller holds the lock. Returns the content."""
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    if content is not None:  # a cache that turned out to be damaged
        shutil.rmtree(_folder(place, content), ignore_errors=True)
    needed = math.prod(wanted.shape)
    free = shutil.disk_usage(place.parent).free
    if free < needed + SPARE_BYTES:
        raise _no_space(place.parent, needed, free)
    root = str(wanted.source.root.resolve())
    before = cached_files(place.parent, version=CACHE_VERSION, root=root, split=wanted.split) or {}
    partial.mkdir()
    try:
        files = _write(partial, wanted, metadata)
        remember(partial, check_settled(wanted, fingerprint, files))
        _say_what_changed(before, files, wanted)
        content = content_of(files)
        partial.replace(_folder(place, content))
        return content
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(place.parent, needed, free) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, wanted: Wanted, metadata: dict[str, Any]) -> dict[str, str]:
    """Decodes into the files of a cache; returns the checksums of what was decoded."""
    checksums: list[int] = []
    encoded: list[str] = []
    with (folder / ARRAY).open("wb") as file:
        file.write(_header(wanted.shape))
        with closing(decoded_chunks(wanted)) as chunks:
            for chunk in chunks:
                file.write(chunk.images.data)
                checksums.append(chunk.checksum)
                encoded += chunk.files
        file.flush()
        os.fsync(file.fileno())
    files = dict(zip(wanted.names(0, len(encoded)), encoded, strict=True))
    (folder / FILES).write_text(list_checksums(files), encoding="utf-8", newline="")
    where = {"root": str(wanted.source.root.resolve()), "split": wanted.split}
    text = json.dumps({**metadata, **where, "content": content_of(files), "checksums": checksums})
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")
    return files


def _say_what_changed(before: dict[str, str], now: dict[str, str], wanted: Wanted) -> None:
    """Names the images that have changed since they were decoded last."""
    changed = changed_files(before, now)
    if changed:
        root, split = wanted.source.root, wanted.split
        logger.warning("%s: these %s images have changed since an earlier run: %s", root, split, changed)


def _no_space(where: Path, needed: int, free: int) -> DataError:
    return DataError(
        f"no space left in {where} for the decoded images: {math.ceil(needed / 2**20):,} MiB needed and "
        f"{SPARE_BYTES // 2**20} MiB kept free beside, {free // 2**20:,} MiB free. Free some, put data.data_dir on "
        "another disk, or use fewer or smaller images (data.train_size=…, data.image_size=…)."
    )
