"""Batches of decoded images, in an order of seed and epoch alone, out of the memory of the host or of the device."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vae_lightning.data.sources.source import DataError, seeded_bits, seeded_order

Batch = dict[str, Tensor]
RESIDENCES = ("auto", "device", "host")
LARGEST_SHARE = 0.5  # of a device's free memory that `auto` fills with images; the rest is for the training
PREFETCHED_BATCHES = 4
PREFETCH_THREADS = 2  # one thread copies some 10 GB a second, a large GPU asks for more
UPLOADED_AT_ONCE = 2**28  # bytes


class BatchRows(NamedTuple):
    """One batch: the rows of the split, and which of them to mirror."""

    rows: Int64[np.ndarray, " batch"]
    flip: Bool[np.ndarray, " batch"] | None = None


class EvaluationOrder:
    """Every row once, in order; each of several processes takes one contiguous part, equal but for one row.

    Raises: DataError where a process would have no rows: the others would wait for its sums for ever.
    """

    def __init__(self, num_rows: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        if 0 < num_rows < world_size:
            raise DataError(f"{num_rows} images to evaluate on are too few for {world_size} processes.")
        self.batch_size = batch_size
        self.first, self.end = (num_rows * part // world_size for part in (rank, rank + 1))

    def __len__(self) -> int:
        return -(-(self.end - self.first) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Evaluation is the same in every epoch."""

    def __iter__(self) -> Iterator[BatchRows]:
        for first in range(self.first, self.end, self.batch_size):
            yield BatchRows(np.arange(first, min(first + self.batch_size, self.end)))


class TrainingOrder:
    """Shuffled batches: order and mirroring depend on (seed, epoch) only, not on the number of processes.

    A global batch of `world_size * batch_size` rows is dealt out to the ranks, so every rank has the same
    number of batches, and no row occurs twice. The last incomplete global batch is dropped, unless it is the
    only one.

    Raises: DataError where there are fewer rows than processes.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int = 0,
        horizontal_flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = min(batch_size, num_rows // world_size)
        self.seed = seed
        self.horizontal_flip = horizontal_flip
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        # called when an epoch starts: above 0 where an interrupted epoch is resumed
        self.first_batch: Callable[[], int] = lambda: 0
        if self.batch_size == 0:
            raise DataError(f"{num_rows} training images are too few for {world_size} processes.")
        self.num_batches = num_rows // (self.batch_size * world_size)

    def __len__(self) -> int:
        return self.num_batches

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[BatchRows]:
        order = seeded_order(self.num_rows, "training order", self.seed, self.epoch)
        flips = seeded_bits(self.num_rows, "horizontal flip", self.seed, self.epoch) >= 2**63
        for step in range(self.first_batch() % self.num_batches, self.num_batches):
            first = (step * self.world_size + self.rank) * self.batch_size
            rows = order[first : first + self.batch_size]
            yield BatchRows(rows, flips[rows] if self.horizontal_flip else None)


BatchOrder = TrainingOrder | EvaluationOrder


@dataclass(frozen=True)
class SplitImages:
    """One decoded split in host memory, or memory-mapped."""

    images: UInt8[np.ndarray, "rows height width channels"]
    attributes: Bool[np.ndarray, "rows attributes"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def gather(
        self, rows: Int64[np.ndarray, " batch"], *, pinned: bool = False
    ) -> UInt8[Tensor, "batch channels height width"]:
        """A copy in channels_last order; `pinned` memory is what a GPU fetches without waiting."""
        pixels = torch.empty((len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        np.take(self.images, rows, axis=0, out=pixels.numpy(), mode="clip")  # the other modes copy twice
        return pixels.permute(0, 3, 1, 2)  # uint8 NHWC [0, 255] -> NCHW


class BatchLoader:
    """Gives the batches of an order; a batch is a dict, see `FaceDataModule`.

    For a GPU, threads gather them into pinned memory while it computes on the batch before. For a CPU, which is busy
    with that batch itself, each is gathered when it is asked for.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a sampler

    def __init__(self, split: SplitImages, order: BatchOrder, device: torch.device) -> None:
        self.split = split
        self.sampler = order  # under this name Lightning looks for `set_epoch`
        self.pins = device.type == "cuda"

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        if not self.pins:
            yield from map(self.load, self.sampler)
            return
        batches = iter(self.sampler)
        with ThreadPoolExecutor(PREFETCH_THREADS, thread_name_prefix="prefetch") as threads:
            waiting = deque(threads.submit(self.load, batch) for batch in islice(batches, PREFETCHED_BATCHES))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(threads.submit(self.load, batch) for batch in islice(batches, 1))
                yield batch

    def load(self, batch: BatchRows) -> Batch:
        """`images` uint8 NCHW in channels_last order, `index`, and where there are any `attributes`, `flip`."""
        rows, flip = batch
        items = {"index": torch.from_numpy(rows)}
        if self.split.attributes is not None:
            items["attributes"] = torch.from_numpy(self.split.attributes[rows])
        if flip is not None:
            items["flip"] = torch.from_numpy(flip)
        if self.pins:
            items = {name: item.pin_memory() for name, item in items.items()}
        return {"images": self.split.gather(rows, pinned=self.pins), **items}


class DeviceSplit:
    """A copy of one split in the memory of a device."""

    def __init__(self, split: SplitImages, device: torch.device) -> None:
        self.images = _upload(split.images, device)  # uint8 NHWC [0, 255]
        self.attributes = None if split.attributes is None else _upload(split.attributes, device)


class DeviceBatchLoader:
    """The same batches, cut out of a split that lies on the device.

    The order of an epoch is sent to the device once; after that nothing waits for the host.
    """

    batch_sampler = None

    def __init__(self, split: DeviceSplit, order: BatchOrder) -> None:
        self.split = split
        self.sampler = order

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        batches = list(self.sampler)
        if not batches:
            return
        sizes = [len(batch.rows) for batch in batches]
        rows = self._send([batch.rows for batch in batches]).split(sizes)
        flips = [batch.flip for batch in batches if batch.flip is not None]
        flip = self._send(flips).split(sizes) if flips else [None] * len(batches)
        yield from map(self._cut, rows, flip)

    def _send(self, parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.split.images.device)

    def _cut(self, rows: Int64[Tensor, " batch"], flip: Bool[Tensor, " batch"] | None) -> Batch:
        items = {"images": self.split.images.index_select(0, rows).permute(0, 3, 1, 2), "index": rows}
        if self.split.attributes is not None:
            items["attributes"] = self.split.attributes.index_select(0, rows)
        if flip is not None:
            items["flip"] = flip
        return items


def flip_on_device(
    images: UInt8[Tensor, "batch channels height width"], flip: Bool[Tensor, " batch"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Mirror the chosen images left to right."""
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


def choose_residence(asked: str, num_bytes: int, device: torch.device) -> str:
    """Gives "device" or "host". `auto` takes a device with memory of its own where the images leave enough of it free.

    Raises: DataError where "device" is asked for and the images cannot fit.
    """
    free = free_memory(device)
    if asked == "auto":
        return "device" if free is not None and num_bytes <= LARGEST_SHARE * free else "host"
    if asked == "device" and free is not None and num_bytes > free:
        raise DataError(
            f"data.residence=device: the images take {num_bytes / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB "
            "free. Take data.residence=host, a smaller data.image_size or data.train_size, or auto, which looks first."
        )
    return asked


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device that has a memory of its own; None for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    """In pieces, so that the host never holds a copy of a whole memory-mapped file."""
    copy = torch.empty(array.shape, dtype=torch.from_numpy(np.array(array[:0])).dtype, device=device)
    rows_at_once = max(1, UPLOADED_AT_ONCE // array[0].nbytes)
    for first in range(0, len(array), rows_at_once):
        piece = np.array(array[first : first + rows_at_once])
        copy[first : first + len(piece)] = torch.from_numpy(piece)
    return copy
