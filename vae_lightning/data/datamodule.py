"""The data of one run: reads its source, decodes the images once, and serves batches."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vae_lightning.data.decoded.cache import open_cache
from vae_lightning.data.decoded.changes import check_unchanged, content_now
from vae_lightning.data.decoded.decoding import Wanted
from vae_lightning.data.decoded.preprocessing import Preprocessing, as_crop
from vae_lightning.data.loading import (
    RESIDENCES,
    Batch,
    BatchLoader,
    BatchOrder,
    DeviceBatchLoader,
    DeviceSplit,
    EvaluationOrder,
    SplitImages,
    TrainingOrder,
    choose_residence,
    flip_on_device,
)
from vae_lightning.data.sources.resolution import data_sources, resolve_source
from vae_lightning.data.sources.source import (
    AS_LISTED,
    SPLITS,
    DataError,
    Factors,
    ImageSource,
    SourceSettings,
    Split,
    seeded_order,
)
from vae_lightning.system.names import not_allowed

logger = logging.getLogger("vae_lightning")

NOT_OPEN = "the data are not open yet: call prepare_data() and setup() first"


class FaceDataModule(LightningDataModule):
    """Faces as uint8 batches: CelebA, the built-in rendered faces, a plain folder of images, or noise.

    A batch is a dict: `images` uint8 [batch, channels, height, width] in channels_last order, `index` int64
    [batch] (row within the split), and `attributes` bool [batch, 40] where the source has them. The
    constructor reads nothing; `prepare_data` renders and decodes, `setup` opens.

    Raises: DataError for an argument that is out of range, and later for data that cannot be used.
    """

    def __init__(
        self,
        source: str = "auto",  # auto = CelebA if it is known where it is, else the rendered faces
        root: str | None = None,  # None = the environment variable CELEBA_ROOT, then <data_dir>/celeba
        crop: int | Sequence[int] | None = 148,  # centred square, box, or None = the largest centred square
        image_size: int = 64,
        color: str = "rgb",
        horizontal_flip: bool = False,  # training batches only
        batch_size: int = 64,  # per process
        eval_batch_size: int | None = None,  # None = as many pixels as 256 images of 64x64, batch_size at least
        residence: str = "auto",  # memory that holds the decoded images: auto = the GPU's if they fit, else the host's
        train_size: int | None = None,  # None = the whole split; else a seeded subset
        val_size: int | None = None,
        test_size: int | None = None,
        subset_seed: int = 0,
        seed: int = 0,  # order of the training batches and which images are mirrored
        faces_count: int = 10_000,
        faces_seed: int = 0,
        noise_count: int = 202_599,
        allow_missing: bool = False,  # of CelebA's listed images: use those that are there
        data_dir: str = "data",  # rendered faces and decoded images go here
    ) -> None:
        super().__init__()
        self.source = _choose("source", source, ("auto", *data_sources()))
        self.root = None if root is None else Path(root).expanduser()
        self.preprocessing = Preprocessing(as_crop(crop), image_size, color)
        self.horizontal_flip = horizontal_flip
        self.batch_size = _at_least("batch_size", batch_size, 1)
        if eval_batch_size is None:
            eval_batch_size = max(batch_size, min(256, 2**20 // image_size**2))
        self.eval_batch_size = _at_least("eval_batch_size", eval_batch_size, 1)
        self.residence = _choose("residence", residence, RESIDENCES)
        self.sizes: dict[Split, int | None] = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size is not None:
                _at_least(f"{split}_size", size, 1)
        self.subset_seed = _at_least("subset_seed", subset_seed, 0)
        self.seed = _at_least("seed", seed, 0)
        self.faces_count = _at_least("faces_count", faces_count, 20)
        self.faces_seed = _at_least("faces_seed", faces_seed, 0)
        self.noise_count = _at_least("noise_count", noise_count, 20)
        self.allow_missing = allow_missing
        self.data_dir = Path(data_dir).expanduser()
        self._image_source: ImageSource | None = None
        self._splits: dict[Split, SplitImages] = {}
        self._on_device: dict[Split, DeviceSplit] = {}
        self._content: dict[Split, str] = {}
        self._annotation: str | None = None

    def prepare_data(self) -> None:
        self._open_splits()

    def setup(self, stage: str | None = None) -> None:
        self._open_splits()

    def train_dataloader(self) -> BatchLoader | DeviceBatchLoader:
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            raise DataError("trainer.overfit_batches: every epoch is shuffled here; use data.train_size=… instead.")
        rank, world_size = self._rank_and_world_size()
        order = TrainingOrder(
            len(self.split("train")),
            self.batch_size,
            seed=self.seed,
            horizontal_flip=self.horizontal_flip,
            rank=rank,
            world_size=world_size,
        )
        # a function: a learning rate schedule asks for the loader before the trainer knows where it resumes
        order.first_batch = self._num_batches_done
        return self._loader("train", order)

    def _num_batches_done(self) -> int:
        """Of the epoch under way, if training resumes from a checkpoint within it."""
        if self.trainer is None or not self.trainer.fit_loop.restarting:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.completed

    def val_dataloader(self) -> BatchLoader | DeviceBatchLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> BatchLoader | DeviceBatchLoader:
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Mirrors on the device the images that the training order chose, unless a trainer is only evaluating."""
        flip = batch.pop("flip", None)
        if flip is not None and (self.trainer is None or self.trainer.training):
            batch["images"] = flip_on_device(batch["images"], flip)
        return batch

    @property
    def channels(self) -> int:
        return self.preprocessing.channels

    @property
    def image_source(self) -> ImageSource:
        """The source that is really used. Raises: DataError before `setup`."""
        if self._image_source is None:
            raise DataError(NOT_OPEN)
        return self._image_source

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return self.image_source.attribute_names

    def split(self, split: Split) -> SplitImages:
        if not self._splits:
            raise DataError(NOT_OPEN)
        return self._splits[split]

    def record(self) -> dict[str, Any]:
        """What a run records about its data, as plain values."""
        source, crop = self.image_source, self.preprocessing.crop
        return {
            "source": source.kind,
            "root": str(source.root.resolve()),
            "fingerprint": _join(self._content.values()),  # of all images
            "content": dict(self._content),  # of the names and bytes of the files, by split; the same on every machine
            "annotation": self._annotation,
            "crop": list(crop) if isinstance(crop, tuple) else crop,
            "image_size": self.preprocessing.image_size,
            "color": self.preprocessing.color,
            **{f"{split}_count": len(self.split(split)) for split in SPLITS},
            "partition": source.divided,
            "subset_seed": self.subset_seed,
            "horizontal_flip": self.horizontal_flip,
        }

    def held_out_faces(self, split: Split, count: int) -> UInt8[Tensor, "count channels height width"]:
        """Faces evenly spaced over the validation or test split, fewer if it has fewer; the same in every run."""
        if split not in ("val", "test"):
            raise DataError(f"split={split!r}: held-out faces are from val or test.")
        dataset = self.split(split)
        rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(np.int64)
        return dataset.gather(rows)

    def image_names(self, split: Split, index: Int64[Tensor, " batch"]) -> list[str]:
        """File names of a batch's images, from its `index`."""
        rows = self._select_rows(self.image_source, split)[index.numpy()]
        return [self.image_source.filenames[row] for row in rows.tolist()]

    def factors(self, split: Split) -> Factors | None:
        """Names and values of the factors that drew the split's images; None if they are unknown."""
        if self.image_source.read_factors is None:
            return None
        names, values = self.image_source.read_factors()
        return names, values[self._select_rows(self.image_source, split)]

    def identities(self, split: Split) -> Int64[np.ndarray, " rows"] | None:
        """Number of the person on each of the split's images; None if unknown."""
        identities = self.image_source.identities
        return None if identities is None else identities[self._select_rows(self.image_source, split)]

    def marks_now(self) -> dict[str, Any]:
        """`content` and `annotation` of the record of a run that starts now; decodes nothing. Raises: DataError."""
        source = self._find_source()
        rows = {split: self._select_rows(source, split) for split in SPLITS}
        wanted = {split: Wanted(source, rows[split], self.preprocessing, split) for split in SPLITS}
        return {
            "content": {split: content_now(each, self._cache_dir) for split, each in wanted.items()},
            "annotation": source.annotation_hash(list(rows.values())),
        }

    def check_unchanged(self, record: dict[str, Any], checkpoint: Path, *, is_same_run: bool) -> None:
        """Raises: DataError if a checkpoint of the same run was trained on other images; see `decoded/changes.py`."""
        check_unchanged(record, self.record(), self._cache_dir, checkpoint, is_same_run=is_same_run)

    def _find_source(self) -> ImageSource:
        settings = SourceSettings(
            self.root, self.data_dir, self.faces_count, self.faces_seed, self.noise_count, self.allow_missing
        )
        return resolve_source(self.source, settings, rank_zero_only(logger.warning))

    @property
    def _cache_dir(self) -> Path:
        return self.data_dir / "cache"

    def _open_splits(self) -> None:
        if self._image_source is not None:
            return
        source = self._find_source()
        self._say_how_divided(source)
        rows = {split: self._select_rows(source, split) for split in SPLITS}
        fingerprints = {split: source.fingerprint(rows[split]) for split in SPLITS}
        for split in SPLITS:
            decoded = open_cache(source, rows[split], self.preprocessing, self._cache_dir, split, fingerprints[split])
            attributes = None if source.attributes is None else source.attributes[rows[split]]
            self._splits[split] = SplitImages(decoded.images, attributes)
            self._content[split] = decoded.content
        self._annotation = source.annotation_hash(list(rows.values()))
        self._image_source = source

    @rank_zero_only
    def _say_how_divided(self, source: ImageSource) -> None:
        if source.divided != AS_LISTED:
            counts = ", ".join(f"{len(source.split_rows(split)):,} {split}" for split in SPLITS)
            logger.info(f"{source.root}: {counts} images, {source.divided}")

    def _select_rows(self, source: ImageSource, split: Split) -> np.ndarray:
        """The split's rows, or a seeded subset of them; a smaller subset is part of every larger one."""
        rows, size = source.split_rows(split), self.sizes[split]
        if len(rows) == 0:
            raise DataError(f"{source.root} has no {split} images: no row of its partition has that number.")
        if size is None:
            return rows
        if size > len(rows):
            raise DataError(
                f"data.{split}_size={size:,}: {source.root} has {len(rows):,} {split} images. Choose at most "
                "that many, or null for all."
            )
        chosen = seeded_order(len(rows), f"{split} subset", self.subset_seed)[:size]
        return rows[np.sort(chosen)]

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _evaluation_loader(self, split: Split) -> BatchLoader | DeviceBatchLoader:
        rank, world_size = self._rank_and_world_size()
        order = EvaluationOrder(len(self.split(split)), self.eval_batch_size, rank=rank, world_size=world_size)
        return self._loader(split, order)

    def _loader(self, split: Split, order: BatchOrder) -> BatchLoader | DeviceBatchLoader:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if not self._on_device:  # decided once: later these images themselves take most of the free memory
            num_bytes = sum(each.images.nbytes for each in self._splits.values())
            self.residence = choose_residence(self.residence, num_bytes, device)
        if self.residence == "host":
            return BatchLoader(self.split(split), order, device)
        if split not in self._on_device:
            logger.info(f"{self.split(split).images.nbytes / 2**20:,.0f} MiB of {split} images go to {device}")
            self._on_device[split] = DeviceSplit(self.split(split), device)
        return DeviceBatchLoader(self._on_device[split], order)


def _join(fingerprints: Iterable[str]) -> str:
    return hashlib.blake2b("".join(fingerprints).encode(), digest_size=16).hexdigest()


def _choose(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise DataError(not_allowed(f"data.{name}", value, allowed))
    return value


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise DataError(f"data.{name}={value}: expected {least} or more.")
    return value
