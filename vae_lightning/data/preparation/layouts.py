"""Recognises the layouts in which people have CelebA, and explains folders that have none of them."""

import shlex
import zipfile
from pathlib import Path

from vae_lightning.data.sources.celeba import (
    ATTRIBUTES,
    CELEBA_PAGE,
    DOWNLOAD,
    IDENTITIES,
    IMAGES,
    PARTITION,
    find_file,
    find_store,
)
from vae_lightning.data.sources.folder import find_images
from vae_lightning.data.sources.source import DataError, FolderStore, ImageStore
from vae_lightning.data.sources.zip_store import ZipStore, read_directory
from vae_lightning.system.terminal import command

ARCHIVE = f"{IMAGES}.zip"
ANNOTATION = (PARTITION, ATTRIBUTES, IDENTITIES)
PATTERNS = ("*/{}", "*/*/{}")  # how deep misplaced files are looked for


def describe_layout(root: Path, store: ImageStore | None) -> str:
    """One line on the annotation files, one on the images."""
    names = [path.name for each in ANNOTATION if (path := find_file(root, each))]
    kinds = {"Text files as CelebA's page has them": ".txt", "CSV files as Kaggle has them": ".csv"}
    lines = [
        f"{kind}: {', '.join(chosen)}."
        for kind, suffix in kinds.items()
        if (chosen := [name for name in names if name.endswith(suffix)])
    ]
    if isinstance(store, ZipStore):
        lines.append(f"Images in {store.path.name}, which are read from there: no need to unpack it.")
    elif isinstance(store, FolderStore):
        nested = ", nested once more as Kaggle has it" if store.folder.parent.name == IMAGES else ""
        lines.append(f"Images in the folder {store.folder.relative_to(root)}/{nested}.")
    return "\n".join(lines)


def open_store(root: Path, filenames: list[str]) -> ImageStore:
    """The store that training reads; also a folder that lacks only the first image, so that this can be reported.

    Raises: DataError.
    """
    try:
        return find_store(root, filenames[0])
    except DataError:
        for folder in (root / IMAGES, root / IMAGES / IMAGES):
            if any((folder / filename).is_file() for filename in filenames):
                return FolderStore(folder)
        raise


def image_names(store: ImageStore) -> set[str]:
    """Raises: DataError for a zip file whose directory is damaged."""
    if isinstance(store, FolderStore):
        return set(find_images(store.folder))
    assert isinstance(store, ZipStore)
    return {name for name in store.names if not name.startswith(".")}


def explain_other_folder(root: Path) -> str | None:
    """Explains a folder that lacks required files of CelebA, and what to do with it.

    None for a folder that lacks nothing, and for one with some of the annotation files and no trace of the others.
    """
    required = (PARTITION, ATTRIBUTES)
    if all(find_file(root, names) for names in required):
        return None
    if root.name == IMAGES and any(find_file(root.parent, names) for names in required):
        return f"{root} is the folder of the images alone. CelebA is the folder around it:\n  {_check(root.parent)}"
    below = [path for names in required if not find_file(root, names) and (path := _find_below(root, names))]
    if below:
        return _explain_misplaced(root, below)
    whole = _zip_with_everything(root)
    if whole is not None:
        return (
            f"{whole.name} is Kaggle's whole download, still packed. Unpack it, then check again:\n"
            f"  unzip {_quoted(whole)} -d {_quoted(root)}\n  {_check(root)}"
        )
    return None if any(find_file(root, names) for names in required) else _explain_foreign(root)


def _explain_misplaced(root: Path, below: list[Path]) -> str:
    """For annotation files in sub-folders of `root`: together in one, or spread as on CelebA's own page."""
    folder = below[0].parent
    if all(find_file(folder, names) for names in (PARTITION, ATTRIBUTES)):
        return f"CelebA lies deeper, in {folder}:\n  {_check(folder)}"
    for names in (IDENTITIES, (ARCHIVE,)):
        path = _find_below(root, names)
        if path is not None and not find_file(root, names):
            below.append(path)
    return (
        "CelebA's files are spread over several folders. Put them into one, then check again:\n"
        f"  mv {' '.join(_quoted(path) for path in below)} {_quoted(root)}\n  {_check(root)}"
    )


def _explain_foreign(root: Path) -> str:
    found = sorted(entry.name for entry in root.iterdir())
    images = root / IMAGES if (root / IMAGES).is_dir() else root
    if find_images(images, at_most=1):
        return (
            f"{root} holds images without CelebA's annotation files.\n"
            "Your own images: nothing to prepare, train on them with\n"
            f"  {command(f'python train.py data=folder data.root={_quoted(images)}')}\n"
            f"CelebA's images: put {PARTITION[0]} and {ATTRIBUTES[0]} into {root}\n"
            f"({CELEBA_PAGE}, folders Eval and Anno)."
        )
    if (root / ARCHIVE).is_file():
        return (
            f"{root} holds {ARCHIVE} without the annotation files. Put {PARTITION[0]} and\n{ATTRIBUTES[0]} beside it "
            f"({CELEBA_PAGE}, folders Eval and Anno),\nor get them with: {_check(root)} --download"
        )
    holds = f"found: {', '.join(found[:8])}{' …' if len(found) > 8 else ''}" if found else "it is empty"
    return (
        f"{root} holds no CelebA ({holds}).\nDownload it: {_check(root)} --download, or by hand from\n"
        f"  {CELEBA_PAGE}\n  {DOWNLOAD}\n{command('vae prepare --faces')} draws faces that need no download."
    )


def _find_below(root: Path, names: tuple[str, ...]) -> Path | None:
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


def _check(root: Path) -> str:
    return command(f"vae prepare {_quoted(root)}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
