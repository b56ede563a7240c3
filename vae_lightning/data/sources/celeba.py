"""Reads CelebA: annotation in torchvision's text files or Kaggle's CSV files, images in a folder or a zip file.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild", arXiv:1411.7766.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from vae_lightning.data.sources.celeba_files import (
    ATTRIBUTES,
    CELEBA_PAGE,
    DOWNLOAD,
    IDENTITIES,
    IMAGES,
    PARTITION,
    explain_folder,
    explain_place,
    find_file,
    required_file,
)
from vae_lightning.data.sources.celeba_images import ListedImages, count_by_split, find_listed
from vae_lightning.data.sources.image_names import ALLOW_MISSING
from vae_lightning.data.sources.source import DataError, DataSource, ImageSource, SourceSettings
from vae_lightning.data.sources.tables import Table, first_repeated, read_table
from vae_lightning.system.names import LONGEST_NAME, REPLACEMENT, explain_encoding, is_a_name, shown

NUM_ATTRIBUTES = 40
LICENCE = (
    f"CelebA is for non-commercial research only, and so is this model: no commercial use of either, see {CELEBA_PAGE}."
)


def read_celeba(root: Path, *, allow_missing: bool = False) -> ImageSource:
    """Read CelebA's annotation files; the images themselves are not touched.

    The partition file decides which images there are and in which order; attributes (required) and identities
    (when the file is there) are joined to it by file name. With `allow_missing` images that are listed and not there
    are left out.

    Raises: DataError for a missing, damaged or mismatching file.
    """
    problem = explain_place(root) or explain_folder(root)
    if problem is not None:
        raise DataError(problem)
    partition = read_table(required_file(root, PARTITION), columns=1, allowed=(0, 1, 2))
    attributes = read_table(required_file(root, ATTRIBUTES), allowed=(-1, 1))
    if len(attributes.column_names) != NUM_ATTRIBUTES:
        raise DataError(
            f"{attributes.path}: the header names {len(attributes.column_names)} attributes, expected "
            f"{NUM_ATTRIBUTES}. The file was edited: download it again ({DOWNLOAD})."
        )
    identity_path = find_file(root, IDENTITIES)
    identities = None
    if identity_path is not None:
        table = read_table(identity_path, columns=1)
        identities = table.aligned_to(partition.filenames, partition.path)[:, 0]
    listed = names_of_images(partition)
    found = find_listed(root, listed, look_into_archive=allow_missing)
    source = ImageSource(
        kind="celeba",
        root=root,
        filenames=listed,
        partition=partition.values[:, 0].astype(np.int8),
        images=found.store,
        attribute_names=attributes.column_names,
        attributes=attributes.aligned_to(partition.filenames, partition.path) > 0,
        identities=identities,
        remarks=found.remarks,
    )
    return _those_that_are_there(source, found, allow_missing)


def _those_that_are_there(source: ImageSource, found: ListedImages, allow_missing: bool) -> ImageSource:
    """Only the images that were found, under the names that they have there.

    Raises: DataError for missing images, unless they are allowed; then where a whole split is missing.
    """
    there = [row for row, name in enumerate(found.names) if name is not None]
    names = tuple(name for name in found.names if name is not None)
    if not found.num_missing:
        return replace(source, filenames=names)
    counts = count_by_split(found.names, source.partition)
    if not allow_missing:
        first = next(one for one, name in zip(source.filenames, found.names, strict=True) if name is None)
        raise DataError(
            f"{source.root} lacks {found.num_missing:,} of the {len(found.names):,} listed images (the first: {first}) "
            f"and has {counts}. Unpack or download the images again; {ALLOW_MISSING}."
        )
    partition = source.partition[there]
    if set(partition) < set(source.partition):
        raise DataError(
            f"data.allow_missing=true: {source.root} has {counts} of the listed images, and each split needs some. "
            "data=folder with data.root=… at the folder of the images divides those that are there at random."
        )
    return replace(
        source,
        filenames=names,
        partition=partition,
        attributes=None if source.attributes is None else source.attributes[there],
        identities=None if source.identities is None else source.identities[there],
        divided=f"as listed, {found.num_missing:,} of {len(found.names):,} images missing",
        remarks=(*source.remarks, f"data.allow_missing=true: of the listed images there are {counts}."),
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


def _read_source(settings: SourceSettings) -> ImageSource:
    root = celeba_root(settings)
    if root is None:
        raise DataError(
            "data=celeba needs to know where CelebA is: set CELEBA_ROOT=/path/to/celeba or data.root=…, "
            f"or put it into {settings.data_dir / 'celeba'}. data=faces trains on the built-in rendered faces."
        )
    return read_celeba(root, allow_missing=settings.allow_missing)


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
