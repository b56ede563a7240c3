"""Finds what has changed in the data: since they were decoded, since a run was trained, and between two folders."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae_lightning.data.decoded.checksums import read_checksums
from vae_lightning.data.decoded.decoding import CHUNK, Wanted
from vae_lightning.data.sources.source import SPLITS, DataError
from vae_lightning.system.processors import num_cores
from vae_lightning.system.progress import progress_of

logger = logging.getLogger("vae_lightning")
FILES, METADATA = "files.txt", "metadata.json"  # in a folder of the cache
NAMES_SHOWN = 5
SETTINGS = ("source", "crop", "image_size", "color", "train_count", "val_count", "test_count")


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Names the files that are in both lists with another content; empty where there are none."""
    names = [name for name, checksum in now.items() if before.get(name, checksum) != checksum]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def cached_files(cache_dir: Path, **described: Any) -> dict[str, str] | None:
    """Checksums of the files that the newest such cache was decoded from; None where there is no such cache."""
    found = [folder for folder, metadata in _caches(cache_dir) if described.items() <= metadata.items()]
    newest = max(found, key=lambda folder: (folder / METADATA).stat().st_mtime_ns, default=None)
    try:
        return None if newest is None else read_checksums(newest / FILES)
    except (OSError, ValueError):  # it could only have named files
        return None


def _caches(cache_dir: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(cache_dir.glob(f"*/{METADATA}")):
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(metadata, dict):
            yield path.parent, metadata


def changed_images(before: Mapping[str, Any], now: Mapping[str, Any], cache_dir: Path) -> list[str]:
    """How the images of two records (`FaceDataModule.record`) differ, in words; names the files if they are known."""
    changes = [f"{name} {before.get(name)} then, {now[name]} now" for name in SETTINGS if before.get(name) != now[name]]
    if changes:
        return changes
    for split in SPLITS:
        then, today = before.get("content", {}).get(split), now["content"][split]
        if then != today:
            files = [cached_files(cache_dir, content=content) for content in (then, today)]
            names = changed_files(*files) if None not in files else ""  # type: ignore[arg-type]
            changes.append(f"other {split} images" + (f": {names}" if names else ""))
    return changes


def check_unchanged(
    before: Mapping[str, Any], now: Mapping[str, Any], cache_dir: Path, checkpoint: Path, *, is_same_run: bool
) -> None:
    """Compares the data of a resumed training, `now`, with those that its checkpoint was trained on.

    Changed attributes or identities give a warning only. So does every change where a new run starts from the
    checkpoint of another.

    Raises:
        DataError: the images of the same run have changed; names what differs.
    """
    changes = changed_images(before, now, cache_dir)
    if changes and is_same_run:
        raise DataError(
            f"The data are not those that {checkpoint} was trained on: {'; '.join(changes)}. Put them back as they "
            f"were, or start a new run; ckpt_path={checkpoint}, by its name, resumes with the data as they are now."
        )
    if before.get("annotation") != now["annotation"]:
        changes.append("other attributes or identities")
    if changes:
        logger.warning("Not the data that %s was trained on: %s.", checkpoint, "; ".join(changes))


def is_of_other_images(cache: Path, wanted: Wanted) -> bool:
    """Whether a cache was decoded from other files, in another folder; each folder is compared once.

    Raises:
        DataError: an image that cannot be read.
    """
    root = str(wanted.source.root.resolve())
    try:
        built_from = json.loads((cache / METADATA).read_text(encoding="utf-8"))["root"]
    except (OSError, ValueError, LookupError, TypeError):
        return False  # it is missing or damaged
    compared = cache / f"same-{hashlib.blake2b(root.encode(), digest_size=10).hexdigest()}"
    if built_from == root or compared.exists():
        return False
    if not _has_checksums(wanted, cache / FILES):
        logger.warning(
            "%s: these %s images differ from those of %s, whose files have the same names, sizes and times.",
            *(root, wanted.split, built_from),
        )
        return True
    try:
        compared.touch()
    except OSError as error:
        logger.info("%s cannot be written (%s): the images are compared again next time.", compared, error.strerror)
    return False


def _has_checksums(wanted: Wanted, listed: Path) -> bool:
    """Whether all files have the listed checksums; stops at the first that differs."""
    try:
        checksums = read_checksums(listed)
    except (OSError, ValueError):
        return False
    names = wanted.names(0, len(wanted.rows))

    def are_the_same(first: int) -> bool:
        part = names[first : first + CHUNK]
        return all(wanted.source.images.checksum(name) == checksums.get(name) for name in part)

    pool = ThreadPoolExecutor(num_cores())
    try:
        with progress_of(f"Comparing {wanted.split} images with decoded ones", len(names)) as advance:
            firsts = range(0, len(names), CHUNK)
            for first, is_same in zip(firsts, pool.map(are_the_same, firsts), strict=True):
                if not is_same:
                    return False
                advance(len(names[first : first + CHUNK]))
    finally:
        pool.shutdown(cancel_futures=True)
    return True
