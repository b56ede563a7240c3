"""A cache is named after its files' names, sizes and times, which those of another folder may share: they are compared.

Archives that can be made again byte by byte give all their files one time, and images that are not compressed all have
one size.
"""

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vae_lightning.data.changes import FILES, METADATA
from vae_lightning.data.checksums import read_checksums
from vae_lightning.data.decoding import CHUNK, Wanted, num_processors, progress_of

logger = logging.getLogger("vae_lightning")


def is_of_other_images(cache: Path, wanted: Wanted) -> bool:
    """Whether a cache was decoded from another folder, whose files are not the same; each folder is compared once.

    Raises:
        DataError: an image that cannot be read.
    """
    root = str(wanted.source.root.resolve())
    try:
        built_from = json.loads((cache / METADATA).read_text(encoding="utf-8"))["root"]
    except (OSError, ValueError, LookupError, TypeError):
        return False  # of none at all: it is missing or damaged
    compared = cache / f"same-{hashlib.blake2b(root.encode(), digest_size=10).hexdigest()}"
    if built_from == root or compared.exists():
        return False
    if not _has_checksums(wanted, cache / FILES):
        logger.warning(
            "%s: these %s images are others than those of %s, whose files have the same names, sizes and times.",
            *(root, wanted.split, built_from),
        )
        return True
    try:
        compared.touch()
    except OSError as error:
        logger.info("%s cannot be written (%s): the images are compared again next time.", compared, error.strerror)
    return False


def _has_checksums(wanted: Wanted, listed: Path) -> bool:
    """Whether all files are what was listed; stops at the first that is not."""
    try:
        checksums = read_checksums(listed)
    except (OSError, ValueError):
        return False
    names = wanted.names(0, len(wanted.rows))

    def are_the_same(first: int) -> bool:
        part = names[first : first + CHUNK]
        return all(wanted.source.images.checksum(name) == checksums.get(name) for name in part)

    pool = ThreadPoolExecutor(num_processors())
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
