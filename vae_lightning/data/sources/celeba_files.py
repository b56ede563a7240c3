"""Looks at a folder: which of CelebA's files it holds, and what it holds in place of those that are missing.

Training and `vae prepare` give the same answer to the same folder, because both ask here.
"""

import difflib
import os
import shlex
import zipfile
from pathlib import Path

from vae_lightning.data.sources.found_images import find_images
from vae_lightning.data.sources.source import DataError
from vae_lightning.data.sources.zip_store import read_directory
from vae_lightning.system.names import shown
from vae_lightning.system.terminal import command

IMAGES = "img_align_celeba"
ARCHIVE = f"{IMAGES}.zip"
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
IDENTITIES = ("identity_CelebA.txt", "identity_CelebA.csv")
REQUIRED = (PARTITION, ATTRIBUTES)
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
DOWNLOAD = "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset"
PATTERNS = ("*/{}", "*/*/{}")  # how deep misplaced files are looked for
NUM_FOUND = 8  # names in a message
ALIKE = 0.85  # "list_attr_celeba (1).txt" is another name for the list, "list_bbox_celeba.txt" is another list


def find_file(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def required_file(root: Path, names: tuple[str, ...]) -> Path:
    """For a folder that `explain_folder` finds nothing wrong with."""
    path = find_file(root, names)
    assert path is not None
    return path


def list_folder(folder: Path) -> list[str]:
    """Names of all entries, sorted. Raises: DataError for a folder that cannot be read."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (pathlib is slower, and CelebA has 200,000)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def describe_entries(names: list[str]) -> str:
    """`found: A, B, …`"""
    listed = ", ".join(map(shown, names[:NUM_FOUND]))
    return f"found: {listed}{' …' if len(names) > NUM_FOUND else ''}" if names else "it is empty"


def explain_place(root: Path) -> str | None:
    """What is wrong with a path in place of CelebA's folder; None for a folder."""
    if root.is_dir():
        return None
    if root.exists():
        return f"{root} is a file, not a folder. CelebA is the folder that it lies in: {_use(root.absolute().parent)}"
    return (
        f"{root} is not a folder: there is none of that name. Point data.root (or CELEBA_ROOT) at the folder with "
        f"CelebA's files, or get them: {_check(root)} --download"
    )


def explain_folder(root: Path) -> str | None:
    """What a folder holds in place of CelebA's annotation files, and what to do; None where it lacks none of them."""
    missing = [names for names in REQUIRED if not find_file(root, names)]
    if not missing:
        return None
    for around in list(root.absolute().parents)[:2]:
        if root.absolute().name.lower().startswith(IMAGES) and any(find_file(around, names) for names in REQUIRED):
            return f"{root} is the folder of the images alone. CelebA is the folder around it: {_use(around)}"
    entries = list_folder(root)
    for names in missing:
        if set(names) & set(entries):
            return f"{root / names[0]} is there, but is no file that can be read. Replace it by the list itself."
        alike = difflib.get_close_matches(names[0].lower(), [name.lower() for name in entries], 1, ALIKE)
        if alike:
            other = next(name for name in entries if name.lower() == alike[0])
            new = root / names[0]
            return f"{root} has no {names[0]}; is it {shown(other)}? Rename it: mv {quoted(root / other)} {quoted(new)}"
    below = [path for names in missing if (path := find_below(root, names))]
    if below:
        return _explain_misplaced(root, below)
    whole = _zip_with_everything(root)
    if whole is not None:
        return (
            f"{whole.name} is Kaggle's whole download, still packed. Unpack it:\n"
            f"  unzip {quoted(whole)} -d {quoted(root)}\n  {_check(root)}"
        )
    if len(missing) == len(REQUIRED):
        return _explain_foreign(root, entries)
    return (
        f"{root} has no {missing[0][0]} (nor {missing[0][1]}); {describe_entries(entries)}. Download it: "
        f"{CELEBA_PAGE}, or {DOWNLOAD}"
    )


def _explain_misplaced(root: Path, below: list[Path]) -> str:
    """For annotation files in sub-folders of `root`: together in one, or spread as on CelebA's own page."""
    folder = below[0].parent
    if all(find_file(folder, names) for names in REQUIRED):
        return f"CelebA lies deeper, in {folder}: {_use(folder)}"
    for names in (IDENTITIES, (ARCHIVE,), (IMAGES,)):
        path = find_below(root, names)
        if path is not None and not any((root / name).exists() for name in names):
            below.append(path)
    return (
        "CelebA's files are spread over several folders. Put them into one:\n"
        f"  mv {' '.join(quoted(path) for path in below)} {quoted(root)}\n  {_check(root)}"
    )


def _explain_foreign(root: Path, entries: list[str]) -> str:
    images = root / IMAGES if (root / IMAGES).is_dir() else root
    if find_images(images, at_most=1):
        return (
            f"{root} holds images without CelebA's annotation files.\n"
            "Your own images: train on them with\n"
            f"  {command(f'python train.py data=folder data.root={quoted(images)}')}\n"
            f"CelebA's images: put {PARTITION[0]} and {ATTRIBUTES[0]} into {root}\n"
            f"({CELEBA_PAGE}, folders Eval and Anno)."
        )
    if (root / ARCHIVE).is_file():
        return (
            f"{root} holds {ARCHIVE} without the annotation files. Put {PARTITION[0]} and\n{ATTRIBUTES[0]} beside it "
            f"({CELEBA_PAGE}, folders Eval and Anno),\nor get them with: {_check(root)} --download"
        )
    return (
        f"{root} holds no CelebA ({describe_entries(entries)}).\nDownload it: {_check(root)} --download, or by hand "
        f"from\n  {CELEBA_PAGE}\n  {DOWNLOAD}\n{command('vae prepare --faces')} draws faces that need no download."
    )


def find_below(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first file or folder of these names in a sub-folder."""
    return next(
        (path for pattern in PATTERNS for name in names for path in sorted(root.glob(pattern.format(name)))), None
    )


def _zip_with_everything(root: Path) -> Path | None:
    for path in sorted(root.glob("*.zip")):
        if path.name == ARCHIVE or not zipfile.is_zipfile(path):
            continue
        if any(entry.filename.rpartition("/")[2] in PARTITION for entry in read_directory(path)):
            return path
    return None


def _use(folder: Path) -> str:
    return f"data.root={quoted(folder)} in training, and to check it\n  {_check(folder)}"


def _check(root: Path) -> str:
    return command(f"vae prepare {quoted(root)}")


def quoted(path: Path) -> str:
    return shlex.quote(str(path))
