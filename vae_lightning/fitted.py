"""What was fitted to the latents of a checkpoint: files beside it, of no use to another one."""

import hashlib
from functools import lru_cache
from pathlib import Path

from vae_lightning.directions import DirectionFile
from vae_lightning.latent_statistics import LatentStatisticsFile
from vae_lightning.priors.file import PriorFile


def prior_file(checkpoint: Path) -> PriorFile:
    """Its priors."""
    return PriorFile(checkpoint.with_suffix(".priors.pt"), digest_of(checkpoint))


def direction_file(checkpoint: Path) -> DirectionFile:
    """Its attribute directions."""
    return DirectionFile(checkpoint.with_suffix(".directions.pt"), digest_of(checkpoint))


def statistics_file(checkpoint: Path) -> LatentStatisticsFile:
    """Where the latents of held-out faces lie."""
    return LatentStatisticsFile(checkpoint.with_suffix(".latents.pt"), digest_of(checkpoint))


def digest_of(file: Path) -> str:
    """A hash of a file's content; read once as long as the file does not change."""
    status = file.stat()
    return _digest(file, status.st_ino, status.st_mtime_ns, status.st_size)  # a clock may say the same twice


@lru_cache(64)
def _digest(file: Path, number: int, modified: int, size: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
