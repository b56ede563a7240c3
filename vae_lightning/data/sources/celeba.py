"""Reads CelebA: annotation in torchvision's text files or Kaggle's CSV files, images in a folder or a zip file.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild", arXiv:1411.7766.
"""

import os
from pathlib import Path

import numpy as np

from vae_lightning.data.sources.folder import find_images
from vae_lightning.data.sources.source import (
    DataError,
    DataSource,
    FolderStore,
    ImageSource,
    ImageStore,
    SourceSettings,
)
from vae_lightning.data.sources.tables import Table, first_repeated, read_table
from vae_lightning.data.sources.zip_store import ZipStore
from vae_lightning.system.names import LONGEST_NAME, REPLACEMENT, explain_encoding, is_a_name, shown

IMAGES = "img_align_celeba"
PARTITION = ("list_eval_partition.txt", "list_eval_partition.csv")
ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
IDENTITIES = ("identity_CelebA.txt", "identity_CelebA.csv")
NUM_ATTRIBUTES = 40
CELEBA_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
DOWNLOAD = "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset"
LICENCE = (
    f"CelebA is for non-commercial research only, and so is this model: no commercial use of either, see {CELEBA_PAGE}."
)


def read_celeba(root: Path) -> ImageSource:
    """Read CelebA's annotation files; the images themselves are not touched.

    The partition file decides which images there are and in which order; attributes (required) and identities
    (when the file is there) are joined to it by file name.

    Raises: DataError for a missing, damaged or mismatching file.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point data.root (or CELEBA_ROOT) at the folder with CelebA's files.")
    partition = read_table(_require(root, PARTITION), columns=1, allowed=(0, 1, 2))
    attributes = read_table(_require(root, ATTRIBUTES), allowed=(-1, 1))
    if len(attributes.column_names) != NUM_ATTRIBUTES:
        raise DataError(
            f"{attributes.path}: the header names {len(attributes.column_names)} attributes, expected "
            f"{NUM_ATTRIBUTES}. The file was edited: download it again ({DOWNLOAD})."
        )
    filenames = names_of_images(partition)
    identity_path = find_file(root, IDENTITIES)
    identities = None
    if identity_path is not None:
        table = read_table(identity_path, columns=1)
        identities = table.aligned_to(partition.filenames, partition.path)[:, 0]
    return ImageSource(
        kind="celeba",
        root=root,
        filenames=filenames,
        partition=partition.values[:, 0].astype(np.int8),
        images=find_store(root, filenames[0]),
        attribute_names=attributes.column_names,
        attributes=attributes.aligned_to(partition.filenames, partition.path) > 0,
        identities=identities,
    )


def names_of_images(partition: Table, *, allow_repeated: bool = False) -> tuple[str, ...]:
    """Raises: DataError for a name that cannot be a file in the folder of the images, or that is listed twice."""
    text = b"\n".join(partition.filenames).decode(errors="replace")
    filenames = tuple(text.split("\n"))
    # checked all at once, since CelebA has 200,000: none of them may lead out of the folder
    is_clean = text.replace("\n", "").isprintable() and not {"/", "\\", REPLACEMENT} & set(text)
    if not is_clean or max(map(len, filenames)) > LONGEST_NAME:
        bad = next(name for name in filenames if not is_a_name(name))
        raise DataError(
            f"{partition.path} lists {shown(bad)!r}, which cannot name an image in {IMAGES}. The file was edited: "
            "download it again."
        )
    if not allow_repeated and len(set(filenames)) < len(filenames):
        raise DataError(f"{partition.path} lists {first_repeated(filenames)} more than once. Remove the repeated rows.")
    return filenames


def celeba_root(settings: SourceSettings) -> Path | None:
    """data.root, then CELEBA_ROOT of the environment, then the folder `celeba` in the data folder, if it is there."""
    if settings.root is not None:
        return settings.root
    if os.environ.get("CELEBA_ROOT"):
        problem = explain_encoding([f"CELEBA_ROOT={os.environ['CELEBA_ROOT']}"])
        if problem is not None:
            raise DataError(problem)
        return Path(os.environ["CELEBA_ROOT"]).expanduser()
    place = settings.data_dir / "celeba"
    return place if place.is_dir() else None


def has_celeba_files(root: Path) -> bool:
    return find_file(root, PARTITION + ATTRIBUTES) is not None


def find_store(root: Path, first: str) -> ImageStore:
    """The images' folder (Kaggle's download nests it once more) or, without one, the zip file."""
    folders = [root / IMAGES, root / IMAGES / IMAGES]
    for folder in folders:
        if (folder / first).is_file():
            return FolderStore(folder)
    archive = root / f"{IMAGES}.zip"
    if archive.is_file():
        return ZipStore(archive)
    for folder in reversed(folders):
        if folder.is_dir():
            raise DataError(
                f"{folder} does not hold {first}, the first image of the partition file. "
                f"Unpack {IMAGES}.zip there again, or put the zip file itself into {root}."
            )
    raise DataError(
        f"{root} has the annotation files but no images: neither the folder {IMAGES}/ nor {IMAGES}.zip. "
        f"Put one of the two there ({DOWNLOAD})."
    )


def find_file(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _require(root: Path, names: tuple[str, ...]) -> Path:
    """The first of these files that exists, or an error with the likeliest fix."""
    path = find_file(root, names)
    if path is not None:
        return path
    found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    fix = f"Download it ({DOWNLOAD})"
    if has_celeba_files(root / "celeba"):
        fix = f"Point data.root (or CELEBA_ROOT) at {root / 'celeba'}"
    elif not has_celeba_files(root) and find_images(root, at_most=1):
        fix = f"For a plain folder of images without annotation files say data=folder data.root={root}"
    raise DataError(f"{root} has no {names[0]} (nor {names[1]}); found: {found}. {fix}.")


def _read_source(settings: SourceSettings) -> ImageSource:
    root = celeba_root(settings)
    if root is None:
        raise DataError(
            "data=celeba needs to know where CelebA is: set CELEBA_ROOT=/path/to/celeba or data.root=…, "
            f"or put it into {settings.data_dir / 'celeba'}. data=faces trains on the built-in rendered faces."
        )
    return read_celeba(root)


SOURCE = DataSource(
    title="CelebA",
    read=_read_source,
    has_root=True,
    about="Photographs of celebrities, found on the web by the makers of CelebA (Liu et al. 2015, arXiv:1411.7766), "
    "aligned by eyes and mouth. They are real people, who were not asked. Celebrities are no sample of mankind: "
    "most are young, made up, photographed for the public and of light skin, and who is rare in the data is drawn "
    "worse. The attributes were judged by others, without a common rule, as yes or no: `Attractive`, `Young`, "
    "`Male` say what somebody thought of a picture, and nothing of the person.",
    uses="non-commercial research on representations and on face models, and teaching",
    note=f"Its pictures are photographs of celebrities. {LICENCE} These faces are nobody's, but one may look like "
    "somebody.",
    licence=LICENCE,
)
