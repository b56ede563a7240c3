"""Every image decoded once, into one memory-mapped array that later runs and all jobs of a sweep share."""

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Int64, UInt8
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vae_lightning.data.preprocessing import Preprocessing, load_jpeg_decoder
from vae_lightning.data.source import DataError, ImageSource

logger = logging.getLogger("vae_lightning")

CACHE_VERSION = 2  # raise when the same key would give other pixels
ARRAY, METADATA = "images.npy", "metadata.json"
CHUNK = 64  # images per task: about 20 ms of work
SPARE_BYTES = 64 * 2**20  # left free on the disk beside the cache itself

Images = UInt8[np.ndarray, "rows height width channels"]


def open_cache(
    source: ImageSource,
    rows: Int64[np.ndarray, " rows"],
    preprocessing: Preprocessing,
    cache_dir: Path,
    split: str = "all",
    fingerprint: str | None = None,
) -> Images:
    """The decoded images of `rows` as a read-only memory map, NHWC; decoded first where nobody has yet.

    The folder's name is a hash of the images' names and content, the preprocessing and CACHE_VERSION. `split`
    only names the images in the progress bar; `fingerprint` is that of the rows, where it is known already.

    Raises: DataError for an image that cannot be used (named, with its row) or a disk without room; nothing
    is left.
    """
    size = preprocessing.image_size
    metadata: dict[str, object] = {
        "version": CACHE_VERSION,
        "source": source.kind,
        "fingerprint": fingerprint or source.fingerprint(rows),
        "preprocessing": json.loads(json.dumps(asdict(preprocessing))),  # as it will be read back
        "shape": [len(rows), size, size, preprocessing.channels],
    }
    key = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=10).hexdigest()
    folder = cache_dir / f"{source.kind}-{preprocessing.image_size}-{preprocessing.color}-{key}"
    images = _open(folder, metadata)
    if images is not None:
        return images
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), split):
        images = _open(folder, metadata)  # another process may have built it meanwhile
        if images is None:
            _build(folder, source, rows, preprocessing, metadata, split)
            images = _open(folder, metadata)
    assert images is not None
    return images


def _open(folder: Path, metadata: dict[str, object]) -> Images | None:
    """The memory map, or None where there is no whole cache."""
    if not folder.exists():
        return None
    try:
        images = np.load(folder / ARRAY, mmap_mode="r")
        stored = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError, EOFError) as error:
        logger.warning("The cache %s is damaged (%s); decoding the images again.", folder, error)
        return None
    del stored["root"]
    size = (folder / ARRAY).stat().st_size
    whole = size == images.offset + images.nbytes and images.dtype == np.uint8
    if not whole or list(images.shape) != metadata["shape"] or stored != metadata:
        logger.warning("The cache %s is damaged (%d bytes); decoding the images again.", folder, size)
        return None
    return images


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


def _build(
    folder: Path,
    source: ImageSource,
    rows: Int64[np.ndarray, " rows"],
    preprocessing: Preprocessing,
    metadata: dict[str, object],
    split: str,
) -> None:
    """Write everything into a temporary folder, then rename it; the caller holds the lock."""
    partial = folder.with_name(folder.name + ".partial")
    for leftover in (partial, folder):  # of a build that was killed; a cache that turned out to be damaged
        shutil.rmtree(leftover, ignore_errors=True)
    image_shape = (preprocessing.image_size, preprocessing.image_size, preprocessing.channels)
    needed = len(rows) * math.prod(image_shape)
    free = shutil.disk_usage(folder.parent).free
    if free < needed + SPARE_BYTES:
        raise _no_space(folder.parent, needed, free)
    partial.mkdir()
    try:
        with (partial / ARRAY).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *image_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            with closing(_decoded_chunks(source, rows, preprocessing, split)) as chunks:
                for chunk in chunks:
                    file.write(chunk.data)
            file.flush()
            os.fsync(file.fileno())
        text = json.dumps({**metadata, "root": str(source.root.resolve())}, indent=2)
        (partial / METADATA).write_text(text + "\n")
        partial.replace(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(folder.parent, needed, free) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _no_space(where: Path, needed: int, free: int) -> DataError:
    return DataError(
        f"no space left in {where} for the decoded images: {needed / 2**20:,.0f} MiB needed, "
        f"{free / 2**20:,.0f} MiB free. Free some, put data.data_dir on another disk, or use fewer or "
        "smaller images (data.train_size=…, data.image_size=…)."
    )


def _decoded_chunks(
    source: ImageSource, rows: Int64[np.ndarray, " rows"], preprocessing: Preprocessing, split: str
) -> Generator[Images]:
    """The images in order, decoded by a thread per processor; a few chunks are in memory at a time."""
    load_jpeg_decoder()  # imports in this thread, before several ask for it
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[Images]] = deque()
    try:
        with _one_torch_thread(), _progress(f"Decoding {split} images", len(rows)) as advance:
            for first in range(0, len(rows), CHUNK):
                chunk = rows[first : first + CHUNK]
                pending.append(pool.submit(_decode_chunk, source, chunk, preprocessing))
                if len(pending) >= 4 * workers:
                    yield (images := pending.popleft().result())
                    advance(len(images))
            for future in pending:
                yield (images := future.result())
                advance(len(images))
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(source: ImageSource, rows: Int64[np.ndarray, " chunk"], preprocessing: Preprocessing) -> Images:
    size = preprocessing.image_size
    images = np.empty((len(rows), size, size, preprocessing.channels), np.uint8)
    for image, row in zip(images, rows.tolist(), strict=True):
        encoded = source.read(row)
        try:
            image[...] = preprocessing(encoded).numpy()
        except DataError as error:
            raise DataError(
                f"row {row} of {source.root}: the image {source.filenames[row]} ({len(encoded):,} bytes) "
                f"cannot be used: {error}. Replace the image by a whole copy, or remove it and its rows."
            ) from error
    return images


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """The pool keeps every processor busy; PyTorch's own threads would only get in its way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
