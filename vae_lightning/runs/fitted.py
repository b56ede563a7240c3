"""Files beside a checkpoint: priors, directions and statistics of its latents, valid for it and its data only."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from vae_lightning.latents.directions import DirectionFile
from vae_lightning.latents.fitted_file import Mark
from vae_lightning.latents.priors.file import PriorFile
from vae_lightning.latents.statistics import LatentStatisticsFile
from vae_lightning.runs.data_record import AS_SEEN

Record = Mapping[str, Any]  # what a run records about its data


def prior_file(checkpoint: Path, trained_on: Record | None = None, at_hand: Record | None = None) -> PriorFile:
    """The file of a checkpoint's priors, which are fitted to training images."""
    marks = (_mark(record, "train") for record in (at_hand, trained_on))
    return PriorFile(checkpoint.with_suffix(".priors.pt"), digest_of(checkpoint), *marks)


def direction_file(checkpoint: Path, trained_on: Record | None = None, at_hand: Record | None = None) -> DirectionFile:
    """The file of a checkpoint's attribute directions, which are fitted to training images and their attributes."""
    marks = (_mark(record, "train", "annotation") for record in (at_hand, trained_on))
    return DirectionFile(checkpoint.with_suffix(".directions.pt"), digest_of(checkpoint), *marks)


def statistics_file(
    checkpoint: Path, trained_on: Record | None = None, at_hand: Record | None = None
) -> LatentStatisticsFile:
    """The file of a checkpoint's statistics of the latents of validation images."""
    marks = (_mark(record, "val") for record in (at_hand, trained_on))
    return LatentStatisticsFile(checkpoint.with_suffix(".latents.pt"), digest_of(checkpoint), *marks)


def _mark(record: Record | None, split: str, *others: str) -> Mark | None:
    if record is None or split not in record["content"]:
        return None
    return {"images": record["content"].get(split), **{name: record.get(name) for name in (*AS_SEEN, *others)}}


def digest_of(file: Path) -> str:
    """A hash of a file's content; the file is read again only after it has changed."""
    status = file.stat()
    return _digest(file, status.st_ino, status.st_mtime_ns, status.st_size)  # two writes may have the same time


@lru_cache(64)
def _digest(file: Path, number: int, modified: int, size: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
