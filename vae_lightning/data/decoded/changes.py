"""Finds what has changed in the data: since they were decoded, since a run was trained, and between two folders."""

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vae_lightning.data.decoded.checksums import content_of, read_checksums
from vae_lightning.data.decoded.decoding import CHUNK, Wanted
from vae_lightning.data.sources.source import SPLITS, DataError
from vae_lightning.system.processors import num_cores
from vae_lightning.system.progress import progress_of

logger = logging.getLogger("vae_lightning")
FILES, METADATA = "files.txt", "metadata.json"  # in a folder of the cache
SEEN = "seen-"  # in a cache's folder: an empty file for each fingerprint of files with its content
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


def known_content(cache_dir: Path, fingerprint: str) -> str | None:
    """What files of this fingerprint were found to hold, if they are known to any cache."""
    seen = next(cache_dir.glob(f"*/{SEEN}{fingerprint}"), None)
    return None if seen is None else seen.parent.name.rpartition("-")[2]


def content_now(wanted: Wanted, cache_dir: Path) -> str:
    """What the files hold, which are read only where no cache knows them. Raises: DataError."""
    known = known_content(cache_dir, wanted.source.fingerprint(wanted.rows))
    return known or content_of(files_now(wanted, "Comparing {} images"))


def remember(cache: Path, fingerprint: str) -> None:
    """Notes that files of this fingerprint hold what the cache was decoded from: they need not be read again."""
    seen = cache / f"{SEEN}{fingerprint}"
    try:
        seen.touch()
    except OSError as error:
        logger.info("%s cannot be written (%s): the images are compared again next time.", seen, error.strerror)


def files_now(wanted: Wanted, description: str) -> dict[str, str]:
    """Checksums of the files as they are; `description` of the progress bar has a gap for the split.

    Raises:
        DataError: an image that cannot be read.
    """
    names = wanted.names(0, len(wanted.rows))
    firsts = range(0, len(names), CHUNK)
    read = wanted.source.images.checksum
    files: dict[str, str] = {}
    pool = ThreadPoolExecutor(num_cores())
    try:
        with progress_of(description.format(wanted.split), len(names)) as advance:
            parts = pool.map(lambda first: [read(name) for name in names[first : first + CHUNK]], firsts)
            for first, checksums in zip(firsts, parts, strict=True):
                files.update(zip(names[first : first + CHUNK], checksums, strict=True))
                advance(len(checksums))
    finally:
        pool.shutdown(cancel_futures=True)
    return files


def check_settled(wanted: Wanted, before: str, files: Mapping[str, str]) -> str:
    """The files' fingerprint after their checksums were taken; `before` is that of before.

    Raises:
        DataError: files have changed meanwhile; names them.
    """
    now = wanted.source.fingerprint(wanted.rows)
    changed = changed_files(files, files_now(wanted, "Comparing {} images again")) if now != before else ""
    if changed:
        raise DataError(
            f"{wanted.source.root}: these {wanted.split} images changed while they were read: {changed}. Start again "
            "when nothing writes to them any more."
        )
    return now
