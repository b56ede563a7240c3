"""A plain folder of images without annotation files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from vae_lightning.data.sources.found_images import FoundImages
from vae_lightning.data.sources.image_names import EXTENSIONS
from vae_lightning.data.sources.masks import find_masks
from vae_lightning.data.sources.source import (
    DataError,
    DataSource,
    FolderStore,
    ImageSource,
    SourceSettings,
    seeded_order,
)
from vae_lightning.data.sources.split_folders import OUTSIDE, UNSAID, fill_splits, split_by_folders
from vae_lightning.system.names import RENAMING, UNDECODED, shown

NUM_NAMED = 5  # in a message
UNLISTABLE = re.compile(f"[\0-\x1f\x7f-\x9f]|{UNDECODED.pattern}")


def read_folder(root: Path, seed: int = 0, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> ImageSource:
    """Every image in the folder and its sub-folders, sorted by path, but for masks of photographs.

    Folders that say their split (train/, val/, test/) are that split; validation or test images that they lack are
    taken from the training images. Where no folder says it, all are split at random by `seed`. Random splits depend
    on the sorted names' positions and the seed only, so that they are the same on every machine; each part gets at
    least one image.

    Raises: DataError for no folder, fewer than three images, no training images, or coloured masks.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point data.root at a folder of images.")
    found = FoundImages(root)
    check_names(root, found.names)
    masks = frozenset(find_masks(root, found.names))
    filenames = [name for name in found.names if name not in masks]
    partition = split_by_folders(root, filenames)
    left_out = [found.describe_left_out(), f"{len(masks):,} masks, such as {min(masks)}" if masks else ""]
    if partition is not None:
        outside = int((partition == OUTSIDE).sum())
        left_out.append(f"{outside:,} images in no folder that says its split" if outside else "")
        filenames = [name for name, split in zip(filenames, partition, strict=True) if split != OUTSIDE]
        partition = partition[partition != OUTSIDE]
    remark = f"{root}: left out are {'; '.join(filter(None, left_out))}." if any(left_out) else ""
    if len(filenames) < 3:
        raise DataError(
            f"{root} holds {len(filenames)} images ({', '.join(EXTENSIONS)}; sub-folders included), and train, "
            "validation and test need one each at least. Point data.root at a folder with more images."
            + f" {remark}".rstrip()
        )
    if partition is None:
        partition, divided = split_at_random(len(filenames), seed, fractions), UNSAID
    else:
        partition, divided = fill_splits(root, partition, seed, fractions)
    remarks = (remark,) if remark else ()
    store = FolderStore(root)
    return ImageSource("folder", root, tuple(filenames), partition, store, divided=divided, remarks=remarks)


def split_at_random(count: int, seed: int, fractions: Sequence[float]) -> Int8[np.ndarray, " images"]:
    num_val, num_test = (max(1, round(count * fraction)) for fraction in fractions[1:])
    order = seeded_order(count, "folder split", seed)
    partition = np.zeros(count, np.int8)
    partition[order[:num_val]] = 1
    partition[order[num_val : num_val + num_test]] = 2
    return partition


def check_names(root: Path, filenames: Sequence[str]) -> None:
    """Raises: DataError for names that lists and records, which are lines of UTF-8, cannot hold."""
    bad = [name for name in filenames if UNLISTABLE.search(name)]
    if bad:
        names = ", ".join(shown(os.fsencode(name).decode(errors="backslashreplace")) for name in bad[:NUM_NAMED])
        raise DataError(
            f"{root} holds {len(bad):,} images whose names are not UTF-8, as after unpacking an archive of Windows, or "
            f"have control characters: {names}{' …' if len(bad) > NUM_NAMED else ''}. Rename them; {RENAMING}."
        )


def _read_source(settings: SourceSettings) -> ImageSource:
    return read_folder(settings.required_root())


SOURCE = DataSource(
    title="a folder of images",
    read=_read_source,
    has_root=True,
)
