"""Checks whether a CelebA folder is complete; finds all problems, not only the first."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vae_lightning.data.decoded.image_files import opened_image
from vae_lightning.data.decoded.preprocessing import Crop, Preprocessing, load_jpeg_decoder
from vae_lightning.data.preparation.official import (
    IMAGE_SIZE,
    NUM_IMAGES,
    NUM_PEOPLE,
    SPLIT_COUNTS,
    Verdict,
    compare_checksums,
)
from vae_lightning.data.rendering.dataset import MANIFEST
from vae_lightning.data.sources.celeba import NUM_ATTRIBUTES, names_of_images, read_celeba
from vae_lightning.data.sources.celeba_files import (
    ATTRIBUTES,
    CELEBA_PAGE,
    DOWNLOAD,
    IDENTITIES,
    IMAGES,
    PARTITION,
    explain_folder,
    find_file,
    required_file,
)
from vae_lightning.data.sources.celeba_images import ListedImages, count_by_split, find_listed
from vae_lightning.data.sources.image_names import ALLOW_MISSING
from vae_lightning.data.sources.source import SPLITS, DataError, FolderStore, ImageStore
from vae_lightning.data.sources.tables import Table, read_table
from vae_lightning.data.sources.zip_store import ZipStore
from vae_lightning.system.processors import num_cores
from vae_lightning.system.progress import Track, untracked

NUM_NAMED = 5  # in a note
CHUNK = 64  # images per task of a thread
SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Problem:
    title: str
    fix: str = ""
    names: tuple[str, ...] = ()  # of all files that it is about, each with its reason if they differ


@dataclass(eq=False)
class Check:
    """What was found; the data can be used if there are no problems."""

    root: Path
    layout: str = ""
    verdict: str = ""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # what -> here, officially
    checksums: dict[str, Verdict] = field(default_factory=dict)
    num_decoded: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, title: str, fix: str = "", names: list[str] | None = None) -> None:
        self.problems.append(Problem(title, fix, tuple(names or ())))


def check_celeba(
    root: Path, crop: Crop, sample: int | None = None, track: Track = untracked, *, allow_missing: bool = False
) -> Check:
    """Checks all files of a folder with CelebA's annotation files; of the images only `sample`, if that is given.

    Raises: DataError for a folder without the annotation files.
    """
    explanation = explain_folder(root)
    if explanation is not None:
        raise DataError(explanation)
    check = Check(root, layout=_describe_lists(root))
    partition = _read(check, required_file(root, PARTITION), columns=1, allowed=(0, 1, 2))
    attributes = _read(check, required_file(root, ATTRIBUTES), columns=None, allowed=(-1, 1))
    identity_path = find_file(root, IDENTITIES)
    identities = _read(check, identity_path, columns=1, allowed=None) if identity_path else None
    if attributes is not None and len(attributes.column_names) != NUM_ATTRIBUTES:
        title = f"{attributes.path.name} names {len(attributes.column_names)} attributes, expected {NUM_ATTRIBUTES}."
        check.add(title, _other_table(attributes.path))
    check.checksums = compare_checksums(root, track)
    if partition is None:
        return check
    try:
        filenames = list(names_of_images(partition, allow_repeated=True))
    except DataError as error:
        check.add(str(error))
        return check
    _count(check, filenames, partition, attributes, identities)
    _compare_rows(check, filenames, partition, [table for table in (attributes, identities) if table])
    found = _find_images(check, filenames)
    if found is not None:
        _report_missing(check, found, filenames, partition, allow_missing)
        chosen = _evenly_spaced([name for name in dict.fromkeys(found.names) if name is not None], sample)
        looked_at = dict(_look_at_all(found.store, chosen, track))
        check.num_decoded = len(chosen)
        _judge_images(check, found.store, looked_at, crop)
    if not check.problems:
        _read_as_training(check, allow_missing)
    return check


def _read_as_training(check: Check, allow_missing: bool) -> None:
    """What training refuses is never called whole."""
    try:
        read_celeba(check.root, allow_missing=allow_missing)
    except DataError as error:
        check.add(str(error))


def _describe_lists(root: Path) -> str:
    """A line on the text files, one on the CSV files."""
    names = [path.name for each in (PARTITION, ATTRIBUTES, IDENTITIES) if (path := find_file(root, each))]
    kinds = {"Text files as CelebA's page has them": ".txt", "CSV files as Kaggle has them": ".csv"}
    lines = [
        f"{kind}: {', '.join(chosen)}."
        for kind, suffix in kinds.items()
        if (chosen := [name for name in names if name.endswith(suffix)])
    ]
    return "\n".join(lines)


def _describe_store(root: Path, store: ImageStore) -> str:
    if isinstance(store, ZipStore):
        return f"Images in {store.path.name}, which are read from there: no need to unpack it."
    assert isinstance(store, FolderStore)
    nested = ", nested once more as Kaggle has it" if store.folder.parent.name == IMAGES else ""
    return f"Images in the folder {store.folder.relative_to(root)}/{nested}."


def _read(check: Check, path: Path, columns: int | None, allowed: tuple[int, ...] | None) -> Table | None:
    try:
        return read_table(path, columns, allowed=allowed)
    except DataError as error:
        check.add(str(error), _other_table(path))
        return None


def _other_table(path: Path) -> str:
    return f"Take {path.name} from the download again: {CELEBA_PAGE}, or {DOWNLOAD}"


def _count(
    check: Check, filenames: list[str], partition: Table, attributes: Table | None, identities: Table | None
) -> None:
    """Fills in the table of counts and the verdict."""
    per_split = np.bincount(partition.values[:, 0], minlength=len(SPLITS)).tolist()
    for split, count in zip(SPLITS, per_split, strict=True):
        check.counts[SPLIT_WORDS[split]] = (count, SPLIT_COUNTS[split])
        if count == 0:
            number = SPLITS.index(split)
            check.add(
                f"There are no {SPLIT_WORDS[split]} images: {partition.path.name} has no row with {number}.",
                f"Training needs all three splits. Give a tenth of the rows a {number}.",
            )
    check.counts["all images"] = (len(filenames), NUM_IMAGES)
    if identities is None:
        check.notes.append(f"No usable {IDENTITIES[0]}: only what compares people needs it.")
    else:
        check.counts["people"] = (len(np.unique(identities.values)), NUM_PEOPLE)
    if attributes is not None:
        check.counts["attributes"] = (len(attributes.column_names), NUM_ATTRIBUTES)
    check.verdict = _verdict(check, filenames, per_split == list(SPLIT_COUNTS.values()))


def _verdict(check: Check, filenames: list[str], split_as_officially: bool) -> str:
    if (check.root / MANIFEST).is_file():
        return "The built-in rendered faces, not CelebA."
    if not all(re.fullmatch(r"\d{6}\.(jpg|png)", name) for name in filenames):
        return "Not CelebA's names of images: another set in CelebA's layout."
    if len(filenames) < NUM_IMAGES:
        return f"A subset: {len(filenames):,} of CelebA's {NUM_IMAGES:,} images. That is fine."
    if len(filenames) > NUM_IMAGES:
        return f"More images than CelebA's {NUM_IMAGES:,}: not the official set."
    return "All of CelebA, split " + ("as officially." if split_as_officially else "in another way than officially.")


def _compare_rows(check: Check, filenames: list[str], partition: Table, tables: list[Table]) -> None:
    repeated = [name for name, count in Counter(filenames).items() if count > 1]
    if repeated:
        check.add(
            f"Listed more than once in {partition.path.name}: {_images(len(repeated))}", "Remove the rows.", repeated
        )
    for table in tables:
        known = set(table.filenames)
        without = [name.decode(errors="replace") for name in partition.filenames if name not in known]
        if without:
            check.add(
                f"Without a row in {table.path.name}: {_images(len(without))}",
                f"Take {table.path.name} and {partition.path.name} from the same download.",
                without,
            )


def _find_images(check: Check, filenames: list[str]) -> ListedImages | None:
    try:
        found = find_listed(check.root, filenames, look_into_archive=True)
    except DataError as error:
        check.add(str(error))
        return None
    check.layout += f"\n{_describe_store(check.root, found.store)}"
    check.notes += found.remarks
    if found.num_unlisted:
        check.notes.append(f"Not used, because the partition file does not list them: {_images(found.num_unlisted)}.")
    return found


def _report_missing(
    check: Check, found: ListedImages, filenames: list[str], partition: Table, allow_missing: bool
) -> None:
    missing = [name for name, other in zip(filenames, found.names, strict=True) if other is None]
    if not missing:
        return
    counts = count_by_split(found.names, partition.values[:, 0])
    if allow_missing:
        check.notes.append(f"data.allow_missing=true: of the listed images there are {counts}.")
        return
    check.add(
        f"Listed in the partition file, but not there: {_images(len(missing))}; there are {counts}",
        f"{_again(found.store)}; {ALLOW_MISSING} (here: --allow-missing).",
        list(dict.fromkeys(missing)),
    )


def _evenly_spaced(names: list[str], count: int | None) -> list[str]:
    if count is None or count >= len(names):
        return names
    return [names[row] for row in np.linspace(0, len(names) - 1, count).round().astype(int).tolist()]


def _look_at_all(store: ImageStore, names: list[str], track: Track) -> Iterator[tuple[str, str | Size]]:
    """Each image's name, with its size or the reason why it cannot be decoded; one thread per processor."""
    load_jpeg_decoder()  # imports in this thread, before several ask for it
    pool = ThreadPoolExecutor(num_cores())
    chunks = [names[first : first + CHUNK] for first in range(0, len(names), CHUNK)]
    try:
        looks = (
            look
            for chunk in pool.map(lambda chunk: [_look_at(store, name) for name in chunk], chunks)
            for look in chunk
        )
        for row in track(range(len(names)), "Decoding images", len(names)):
            yield names[row], next(looks)
    finally:
        pool.shutdown(cancel_futures=True)


def _look_at(store: ImageStore, name: str) -> str | Size:
    # official images are not resized by this: their width is the side of their largest square
    decode = Preprocessing(crop=None, image_size=IMAGE_SIZE[0])
    try:
        encoded = store.read(name)
        decode(encoded)  # by what training decodes with
        with opened_image(encoded) as image:
            return image.size
    except DataError as error:
        return str(error)


def _judge_images(check: Check, store: ImageStore, looked_at: dict[str, str | Size], crop: Crop) -> None:
    damaged = [f"{name}: {reason}" for name, reason in looked_at.items() if isinstance(reason, str)]
    if damaged:
        check.add(f"Cannot be decoded: {_images(len(damaged))}", f"{_again(store)}.", damaged)
    sizes = {name: size for name, size in looked_at.items() if not isinstance(size, str)}
    if not sizes:
        return
    usual = Counter(sizes.values()).most_common(1)[0][0]
    if usual != IMAGE_SIZE:
        check.notes.append(f"The images have {_pixels(usual)} pixels; CelebA's have {_pixels(IMAGE_SIZE)}.")
    others = [f"{name}: {_pixels(size)}" for name, size in sizes.items() if size != usual]
    if others:
        named = f"{', '.join(others[:NUM_NAMED])}{' …' if len(others) > NUM_NAMED else ''}"
        check.notes.append(f"Of another size than the {_pixels(usual)} of most: {_images(len(others))} ({named}).")
    width, height = (crop, crop) if isinstance(crop, int) else (0, 0) if crop is None else crop[2:]
    small = [f"{name}: {_pixels(size)}" for name, size in sizes.items() if size[0] < width or size[1] < height]
    if small:
        check.add(
            f"Too small for the crop {crop}: {_images(len(small))}",
            f"{_again(store)}, or take the largest square: --crop null here, data.crop=null in training.",
            small,
        )


def _again(store: ImageStore) -> str:
    if isinstance(store, ZipStore):
        return f"Move {store.path.name} away and download it again"
    return "Copy or unpack these images again"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
