"""Batches straight from the memory map: one gather per batch, ordered by seed and epoch alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from vae_lightning.data.source import DataError, seeded_bits, seeded_order

Batch = dict[str, Tensor]


class BatchRows(NamedTuple):
    """What a sampler asks of the data set: the rows of one batch, and which of them to mirror."""

    rows: Int64[np.ndarray, " batch"]
    flip: Bool[np.ndarray, " batch"] | None = None


class BatchDataset(Dataset[Batch]):
    """One split; an item is a whole batch.

    Give it to a DataLoader with `batch_size=None` and one of the samplers below. A copy that is sent to a
    worker process carries the file's name, not its content.
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "rows height width channels"],
        attributes: Bool[np.ndarray, "rows attributes"] | None = None,
    ) -> None:
        self.images = images
        self.attributes = attributes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, batch: object) -> Batch:
        """`images` uint8 NCHW in channels_last order, `index`, and where there are any `attributes`, `flip`."""
        if not isinstance(batch, BatchRows):
            raise DataError(
                f"a batch was asked for by {batch!r}: the sampler was replaced. Lightning does so for "
                "overfit_batches; use data.train_size=… instead."
            )
        rows, flip = batch
        items = {"images": self.gather(rows), "index": torch.from_numpy(rows)}
        if self.attributes is not None:
            items["attributes"] = torch.from_numpy(self.attributes[rows])
        if flip is not None:
            items["flip"] = torch.from_numpy(flip)
        return items

    def gather(self, rows: Int64[np.ndarray, " batch"]) -> UInt8[Tensor, "batch channels height width"]:
        pixels = np.asarray(self.images)[rows]  # uint8 NHWC [0, 255], a copy
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self.images, np.memmap):
            state["images"] = Path(str(self.images.filename))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.images, Path):
            self.images = np.load(self.images, mmap_mode="r")


class TrainingOrder(DistributedSampler[BatchRows]):
    """Shuffled batches: order and mirroring depend on (seed, epoch) only, not on the number of processes.

    A global batch of `world_size * batch_size` rows is dealt out to the ranks, so every rank has the same
    number of batches, and no row occurs twice. The last incomplete global batch is dropped, unless it is the
    only one.

    It is a DistributedSampler for one reason: Lightning leaves those alone and replaces all others.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        batch_size: int,
        *,
        seed: int = 0,
        horizontal_flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed, drop_last=True)
        self.batch_size = min(batch_size, len(dataset) // world_size)
        self.horizontal_flip = horizontal_flip
        self.first_batch = 0  # of the next epoch only: above 0 where an interrupted epoch goes on
        if self.batch_size == 0:
            raise DataError(f"{len(dataset)} training images are too few for {world_size} processes.")
        self.num_batches = len(dataset) // (self.batch_size * world_size)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchRows]:
        count = len(self.dataset)  # type: ignore[arg-type]
        order = seeded_order(count, "training order", self.seed, self.epoch)
        flips = seeded_bits(count, "horizontal flip", self.seed, self.epoch) >= 2**63
        first_batch, self.first_batch = self.first_batch, 0
        for step in range(first_batch, self.num_batches):
            first = (step * self.num_replicas + self.rank) * self.batch_size
            rows = order[first : first + self.batch_size]
            yield BatchRows(rows, flips[rows] if self.horizontal_flip else None)


class EvaluationOrder(DistributedSampler[BatchRows]):
    """Every row once, in order; of several processes each takes one contiguous part, equal but for one row."""

    def __init__(self, dataset: BatchDataset, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False, drop_last=False)
        self.batch_size = batch_size
        self.first, self.end = (len(dataset) * part // world_size for part in (rank, rank + 1))

    def __len__(self) -> int:
        return -(-(self.end - self.first) // self.batch_size)

    def __iter__(self) -> Iterator[BatchRows]:
        for first in range(self.first, self.end, self.batch_size):
            yield BatchRows(np.arange(first, min(first + self.batch_size, self.end)))


def flip_on_device(
    images: UInt8[Tensor, "batch channels height width"], flip: Bool[Tensor, " batch"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Mirror the chosen images left to right."""
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
