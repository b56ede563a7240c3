"""Decodes images in several threads and gives them in order, a chunk at a time."""

import zlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from vae_lightning.data.decoded.checksums import checksum_of
from vae_lightning.data.decoded.preprocessing import Preprocessing, TooSmallError, load_jpeg_decoder
from vae_lightning.data.sources.source import DataError, ImageSource
from vae_lightning.system.processors import num_cores
from vae_lightning.system.progress import progress_of

CHUNK = 64  # images per task, about 20 ms of work; and per checksum

Images = UInt8[np.ndarray, "rows height width channels"]


@dataclass(frozen=True)
class Wanted:
    """Which images to decode, and how."""

    source: ImageSource
    rows: Int64[np.ndarray, " rows"]
    preprocessing: Preprocessing
    split: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        size = self.preprocessing.image_size
        return len(self.rows), size, size, self.preprocessing.channels

    def names(self, first: int, end: int) -> list[str]:
        return [self.source.filenames[row] for row in self.rows[first:end].tolist()]


@dataclass(frozen=True)
class DecodedChunk:
    images: Images
    checksum: int
    files: list[str]  # checksums of what was decoded


def decoded_chunks(wanted: Wanted) -> Generator[DecodedChunk]:
    """The images in order, decoded by a thread per processor; a few chunks are in memory at a time."""
    load_jpeg_decoder()  # imports in this thread, before several ask for it
    workers = num_cores()
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[DecodedChunk]] = deque()
    try:
        with _one_torch_thread(), progress_of(f"Decoding {wanted.split} images", len(wanted.rows)) as advance:
            for first in range(0, len(wanted.rows), CHUNK):
                pending.append(pool.submit(_decode_chunk, wanted, first))
                if len(pending) >= 4 * workers:
                    yield (chunk := pending.popleft().result())
                    advance(len(chunk.images))
            for future in pending:
                yield (chunk := future.result())
                advance(len(chunk.images))
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(wanted: Wanted, first: int) -> DecodedChunk:
    rows, source = wanted.rows[first : first + CHUNK], wanted.source
    images = np.empty((len(rows), *wanted.shape[1:]), np.uint8)
    files = []
    for image, row in zip(images, rows.tolist(), strict=True):
        encoded = source.read(row)
        files.append(checksum_of(encoded))
        try:
            image[...] = wanted.preprocessing(encoded).numpy()
        except DataError as error:
            is_whole = isinstance(error, TooSmallError)
            how = (
                "If the others are larger, remove it" if is_whole else "Replace the image by a whole copy, or remove it"
            )
            raise DataError(
                f"row {row} of {source.root}: the image {source.filenames[row]} ({len(encoded):,} bytes) "
                f"cannot be used: {error}. {how} and its rows."
            ) from error
    return DecodedChunk(images, zlib.crc32(images.data), files)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """The pool keeps every processor busy; PyTorch's own threads would only get in its way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
