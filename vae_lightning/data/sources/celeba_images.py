"""Finds the images that CelebA's lists name: in a folder or a zip file, under their name or with another extension."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vae_lightning.data.sources.celeba_files import (
    ARCHIVE,
    DOWNLOAD,
    IMAGES,
    describe_entries,
    find_below,
    list_folder,
    quoted,
)
from vae_lightning.data.sources.image_names import is_image, match_names
from vae_lightning.data.sources.source import SPLITS, DataError, FolderStore, ImageStore
from vae_lightning.data.sources.zip_store import ZipStore


@dataclass(frozen=True)
class ListedImages:
    """Where the images of a list are."""

    store: ImageStore
    names: Sequence[str | None]  # of each listed image in the store; None where it is not there
    remarks: tuple[str, ...] = ()
    num_unlisted: int = 0  # images in the store that the list does not name

    @property
    def num_missing(self) -> int:
        return sum(name is None for name in self.names)


def find_listed(root: Path, listed: Sequence[str], *, look_into_archive: bool) -> ListedImages:
    """The folder that has most of the listed images, or, where none has all of them, the zip file if there is one.

    Without `look_into_archive` a zip file is taken to have all: reading its directory takes a second, so its store
    does that with the first image, and says what it lacks.

    Raises: DataError where there are no listed images; it says what was found.
    """
    entries = list_folder(root)
    folders = [_look_into(folder, listed) for folder in _folders(root, entries)]
    best = min(folders, key=lambda found: found.num_missing, default=None)
    archive = _archive(root, entries)
    if best is None or best.num_missing == len(listed) or (best.num_missing and archive):
        if archive is None:
            raise DataError(_explain_no_images(root, entries, listed[0], best))
        found = (
            _look_into_archive(archive, listed)
            if look_into_archive
            else ListedImages(ZipStore(archive, listed), listed)
        )
        if best is None or best.num_missing == len(listed):
            return found
        remark = f"{_place(best)} lacks {best.num_missing:,} of the listed images: all are read from {archive.name}."
        return ListedImages(found.store, found.names, (remark, *found.remarks), found.num_unlisted)
    return best


def count_by_split(names: Sequence[str | None], partition: Int[np.ndarray, " rows"]) -> str:
    """`train 20 of 24, val 0 of 3, test 3 of 3`"""
    is_there = np.array([name is not None for name in names])
    counts = [
        f"{split} {is_there[partition == number].sum():,} of {(partition == number).sum():,}"
        for number, split in enumerate(SPLITS)
    ]
    return ", ".join(counts)


def _folders(root: Path, entries: list[str]) -> list[Path]:
    """Those named as the images' folder, or nearly so; Kaggle's download and file managers nest them once more."""
    outer = [root / name for name in _alike(entries)]
    nested = [folder / name for folder in outer for name in (IMAGES, folder.name)]
    return [folder for folder in dict.fromkeys([*outer, *nested]) if folder.is_dir()]


def _archive(root: Path, entries: list[str]) -> Path | None:
    """Raises: DataError where several could be meant."""
    found = [name for name in _alike(entries) if name.lower().endswith(".zip") and (root / name).is_file()]
    if len(found) > 1 and found[0] != ARCHIVE:
        raise DataError(f"{root} holds {' and '.join(found)}: name the one with the images {ARCHIVE}.")
    return root / found[0] if found else None


def _alike(entries: list[str]) -> list[str]:
    """Names that begin as that of the images' folder, as `img_align_celeba (1).zip` does; the right ones first."""
    alike = [name for name in entries if name.lower().startswith(IMAGES)]
    return sorted(alike, key=lambda name: name not in (IMAGES, ARCHIVE))


def _look_into(folder: Path, listed: Sequence[str]) -> ListedImages:
    present = set(list_folder(folder))
    names = match_names(listed, present)
    return _with_remark(FolderStore(folder), listed, names, sum(map(is_image, present)))


def _look_into_archive(archive: Path, listed: Sequence[str]) -> ListedImages:
    store = ZipStore(archive, listed, allow_missing=True)
    present = store.names
    names = [name if name in present else None for name in listed]
    return _with_remark(store, listed, names, store.num_images)


def _with_remark(
    store: ImageStore, listed: Sequence[str], names: Sequence[str | None], num_images: int
) -> ListedImages:
    others = [(name, other) for name, other in zip(listed, names, strict=True) if other not in (name, None)]
    remark = (
        f"{len(others):,} images have another extension than in the list: {others[0][1]} is taken for {others[0][0]}."
        if others
        else ""
    )
    num_there = len({name for name in names if name is not None})
    return ListedImages(store, names, (remark,) if remark else (), num_images - num_there)


def _place(found: ListedImages) -> Path:
    assert isinstance(found.store, FolderStore)
    return found.store.folder


def _explain_no_images(root: Path, entries: list[str], first: str, folder: ListedImages | None) -> str:
    if folder is not None:
        place = _place(folder)
        return (
            f"{place} does not hold {first}, nor any other image of the partition file; "
            f"{describe_entries(list_folder(place))}. Unpack {ARCHIVE} there again, or put the zip file into {root}."
        )
    below = find_below(root, (IMAGES, ARCHIVE))
    if below is not None:
        return f"{root} has the annotation files; its images lie in {below}: mv {quoted(below)} {quoted(root)}"
    return (
        f"{root} has the annotation files but no images: neither the folder {IMAGES}/ nor {ARCHIVE}; "
        f"{describe_entries(entries)}. Put one of the two there ({DOWNLOAD}); other archives have to be unpacked, and "
        f"the images have to lie in a folder of that name."
    )
