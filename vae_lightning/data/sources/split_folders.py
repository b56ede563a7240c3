"""Reads from the names of folders which images are for training, validation and testing."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from vae_lightning.data.sources.source import SPLITS, DataError, seeded_order

TRAIN, VAL, TEST = range(3)
WORDS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), VAL),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), TEST),
}
# a folder of one of these names says its split also alone; "dev" may be a person, and "valid" the opposite of invalid
HELD_OUT = frozenset({"val", "validation", "test", "testing", "holdout"})
ALONE = HELD_OUT | {"train", "training"}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # trainA, val2017 and CelebA_Test are words and more
OUTSIDE = -1
UNSAID = "at random, seeded 80/10/10"
SAID = "as its folders say"

Folder = tuple[str, ...]  # parts of its path below the root
Partition = Int8[np.ndarray, " images"]


def split_by_folders(root: Path, names: Sequence[str]) -> Partition | None:
    """What the folders of the images say: the number of the split, or OUTSIDE for images in none of these folders.

    A folder says its split where it and a folder beside it are called train and test, or the like (`WORDS`; also
    train2017 and faces_train), at any depth; a folder that is called just test says it anywhere. None where no folder
    says it.

    Raises:
        DataError: folders for validation or testing, and none for training.
    """
    folders = [tuple(name.split("/")[:-1]) for name in names]
    different = set(folders)
    said = _folders_that_say(different)
    if not said and not any(part.lower() in HELD_OUT for parts in different for part in parts):
        return None
    said |= {key: WORDS[key[-1].lower()] for key in _with_those_above(different) if key[-1].lower() in ALONE}
    by_folder = {parts: _split_of(parts, said) for parts in different}
    if TRAIN not in by_folder.values():
        held_out = sorted("/".join(key) for key in said)
        raise DataError(
            f"{root} has images in {', '.join(name + '/' for name in held_out)} and none in a folder train/: rename "
            f"the training images' to train, or {held_out[0]}/ if it means something else, or divide the images of one "
            f"folder at random: data.root={root}/{held_out[0]}"
        )
    return np.array([by_folder[parts] for parts in folders], np.int8)


def _with_those_above(folders: Iterable[Folder]) -> set[Folder]:
    return {parts[: depth + 1] for parts in folders for depth in range(len(parts))}


def _folders_that_say(folders: Iterable[Folder]) -> dict[Folder, int]:
    """Folders that say their split beside others that say another one, with its number."""
    beside: dict[Folder, set[str]] = defaultdict(set)
    for *above, name in _with_those_above(folders):
        beside[tuple(above)].add(name)
    said = {}
    for parent, names in beside.items():
        read = {name: split for name in names if (split := _split_said(name)) is not None}
        kinds: dict[str, set[str]] = defaultdict(set)  # folders whose names differ in nothing but the split
        for name in read:
            kinds["" if len(read) == len(names) else _rest(name)].add(name)
        for alike in kinds.values():
            if len({read[name] for name in alike}) > 1:
                said.update({(*parent, name): read[name] for name in alike})
    return said


def names_split(folder: str) -> bool:
    """Whether a folder is called train, test or the like, and nothing else."""
    return folder.lower() in WORDS


def _split_said(folder: str) -> int | None:
    splits = [WORDS[word.lower()] for word in WORD.findall(folder) if word.lower() in WORDS]
    return splits[0] if len(splits) == 1 else None


def _rest(folder: str) -> str:
    return "".join(word.lower() for word in WORD.findall(folder) if word.lower() not in WORDS)


def _split_of(folder: Folder, said: dict[Folder, int]) -> int:
    """The outermost folder that says it decides."""
    keys = (folder[: depth + 1] for depth in range(len(folder)))
    return next((said[key] for key in keys if key in said), OUTSIDE)


def fill_splits(root: Path, partition: Partition, seed: int, fractions: Sequence[float]) -> tuple[Partition, str]:
    """Takes what has no images, validation or testing, at random from the training images; also says how.

    Raises:
        DataError: there are too few images.
    """
    training = np.flatnonzero(partition == TRAIN)
    missing = [split for split in (VAL, TEST) if split not in partition]
    if len(training) <= len(missing):
        raise DataError(
            f"{root} has {len(training)} images for training, and {' and '.join(SPLITS[split] for split in missing)} "
            "need one each of them: add images."
        )
    order, first = training[seeded_order(len(training), "folder split", seed)], 0
    filled = partition.copy()
    for split in missing:
        count = max(1, round(len(training) * fractions[split]))
        filled[order[first : first + count]] = split
        first += count
    taken = " and ".join(f"{SPLITS[split]} a tenth of train, at random, seeded" for split in missing)
    return filled, f"{SAID}; {taken}" if taken else SAID
