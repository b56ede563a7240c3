"""Tells photographs from the masks, label maps and the like that lie beside them."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vae_lightning.data.decoded.image_files import opened_image
from vae_lightning.data.sources.source import DataError, FolderStore
from vae_lightning.data.sources.split_folders import WORD

WORDS = frozenset(
    (
        *("mask", "masks", "seg", "segs", "segmentation", "segmentations", "label", "labels", "trimap", "trimaps"),
        *("anno", "annos", "annot", "annotation", "annotations", "gt", "groundtruth", "truth", "parsing"),
        *("segmap", "segmaps", "labelmap", "labelmaps", "matte", "mattes", "silhouette", "silhouettes"),
    )
)
SEPARATORS = re.compile(r"[-_. ]")
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")
COLOURED = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # Pillow's modes

Group = tuple[str, str, str]  # folder, word for masks at the end of the files' names, ending
Groups = Mapping[Group, Mapping[str, str]]  # from the name without folder, word and ending to the whole name


def find_masks(root: Path, names: Sequence[str]) -> list[str]:
    """Those of the images that are masks of others.

    Gray pictures and those with a palette are masks where their folder, or the end of their names, says so
    (`WORDS`), or where coloured pictures of the same names lie elsewhere.

    Raises:
        DataError: coloured pictures that are called masks, and others of the same names: both may be meant.
    """
    groups = _grouped(names)
    if len(groups) < 2:
        return []
    called = _called_masks(groups)
    others = {key: files for key, files in groups.items() if key not in called}
    if not others:  # photographs of people with and without masks
        return []
    folder = FolderStore(root)
    masks: list[str] = []
    has_colour = bool(called) and any(_is_coloured(folder, files) for files in others.values())
    for key in called:
        if has_colour and not _is_coloured(folder, groups[key]):
            masks += groups[key].values()
        elif _share_names(groups[key], others):
            raise DataError(
                f"{root}: are the images in {key[0] or '.'}/ masks of others of the same names, as in "
                f"{next(iter(others))[0] or '.'}/? Point data.root at the folder of the photographs, or rename the "
                "folder or the files if they are photographs too."
            )
    for key in _twins(folder, others):
        masks += others[key].values()
    return masks


def _grouped(names: Iterable[str]) -> Groups:
    groups: dict[Group, dict[str, str]] = defaultdict(dict)
    for name in names:
        folder, _, file = name.rpartition("/")
        stem, ending = os.path.splitext(file)  # noqa: PTH122 (pathlib is ten times slower)
        *before, last = SEPARATORS.split(stem)
        word = last.lower() if before and last.lower() in WORDS else ""
        groups[folder, word, ending.lower()][stem[: -len(last) - 1] if word else stem] = name
    return groups


def _called_masks(groups: Groups) -> list[Group]:
    """Those whose folder or files are called so; what all folders have in common does not count."""
    common = os.path.commonpath([folder for folder, _, _ in groups])
    return [key for key in groups if key[1] or any(map(_says_mask, key[0].removeprefix(common).split("/")))]


def _says_mask(folder: str) -> bool:
    return any(word.lower() in WORDS for word in WORD.findall(folder))


def _is_coloured(folder: FolderStore, files: Mapping[str, str]) -> bool:
    """Whether one of a few of these pictures has colours of its own; one that cannot be read is left to decoding."""
    names = sorted(files.values())
    for name in (names[place] for place in sorted({0, len(names) // 2, len(names) - 1})):
        try:
            with opened_image(folder.read(name)) as image:
                if image.mode in COLOURED:
                    return True
        except DataError:
            return True
    return False


def _share_names(files: Mapping[str, str], others: Groups) -> bool:
    """Whether most of these files are called like others, up to a part after the last separator: 00000_hair."""
    known = {stem for group in others.values() for stem in group}
    count = sum(any(start in known for start in _starts(stem)) for stem in files)
    return 2 * count > len(files)


def _starts(stem: str) -> list[str]:
    return [stem, *(stem[: match.start()] for match in SEPARATORS.finditer(stem))]


def _twins(folder: FolderStore, groups: Groups) -> list[Group]:
    """Groups without colour whose names are those of a coloured group."""
    with_name: dict[str, list[Group]] = defaultdict(list)
    for key, files in groups.items():
        for stem in files:
            with_name[stem].append(key)
    candidates = [key for key, files in groups.items() if len(with_name[next(iter(files))]) > 1]
    masks: list[Group] = []
    for key in (key for key in candidates if not _is_coloured(folder, groups[key])):
        alike = (other for other in with_name[next(iter(groups[key]))] if _may_mask(key, other, groups))
        if any(_is_coloured(folder, groups[other]) for other in alike):
            masks.append(key)
    return masks


def _may_mask(key: Group, other: Group, groups: Groups) -> bool:
    """Masks are hardly ever saved as JPEG, so that there the names have to be the very same."""
    mine, theirs = groups[key].keys(), groups[other].keys()
    return key != other and (mine == theirs if key[2] in LOSSY else mine <= theirs)
