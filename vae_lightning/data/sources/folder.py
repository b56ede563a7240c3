"""A plain folder of images without annotation files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_lightning.data.sources.image_names import EXTENSIONS, is_image
from vae_lightning.data.sources.source import (
    DataError,
    DataSource,
    FolderStore,
    ImageSource,
    SourceSettings,
    seeded_order,
)
from vae_lightning.system.names import RENAMING, UNDECODED, shown

NUM_NAMED = 5  # in a message
UNLISTABLE = re.compile(f"[\0-\x1f\x7f-\x9f]|{UNDECODED.pattern}")


def read_folder(root: Path, seed: int = 0, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> ImageSource:
    """Every image in the folder and its sub-folders, sorted by path, split at random by `seed`.

    The split depends on the sorted names' positions and the seed only, so it is the same on every machine;
    each part gets at least one image.

    Raises: DataError for no folder or fewer than three images.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point data.root at a folder of images.")
    filenames = find_images(root)
    check_names(root, filenames)
    if len(filenames) < 3:
        raise DataError(
            f"{root} holds {len(filenames)} images ({', '.join(EXTENSIONS)}; sub-folders included), and "
            "train, validation and test need one each at least. Point data.root at a folder with more images."
        )
    num_val, num_test = (max(1, round(len(filenames) * fraction)) for fraction in fractions[1:])
    order = seeded_order(len(filenames), "folder split", seed)
    partition = np.zeros(len(filenames), np.int8)
    partition[order[:num_val]] = 1
    partition[order[num_val : num_val + num_test]] = 2
    return ImageSource("folder", root, tuple(filenames), partition, FolderStore(root), divided="seeded 80/10/10")


def check_names(root: Path, filenames: Sequence[str]) -> None:
    """Raises: DataError for names that lists and records, which are lines of UTF-8, cannot hold."""
    bad = [name for name in filenames if UNLISTABLE.search(name)]
    if bad:
        names = ", ".join(shown(os.fsencode(name).decode(errors="backslashreplace")) for name in bad[:NUM_NAMED])
        raise DataError(
            f"{root} holds {len(bad):,} images whose names are not UTF-8, as after unpacking an archive of Windows, or "
            f"have control characters: {names}{' …' if len(bad) > NUM_NAMED else ''}. Rename them; {RENAMING}."
        )


def find_images(root: Path, at_most: int | None = None) -> list[str]:
    """Paths relative to `root`, with forward slashes, sorted; hidden files and folders are left out."""
    found: list[str] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        prefix = Path(folder).relative_to(root).as_posix() + "/"
        prefix = "" if prefix == "./" else prefix
        found += [prefix + name for name in names if is_image(name)]
        if at_most is not None and len(found) >= at_most:
            break
    return sorted(found)[:at_most]


def _read_source(settings: SourceSettings) -> ImageSource:
    return read_folder(settings.required_root())


SOURCE = DataSource(
    title="a folder of images",
    read=_read_source,
    has_root=True,
)
