"""Facts about the official CelebA: how many images and people, and the checksums of its files."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vae_lightning.data.sources.celeba_files import ATTRIBUTES, IDENTITIES, PARTITION
from vae_lightning.data.sources.source import Split
from vae_lightning.system.progress import Track, untracked

SPLIT_COUNTS: dict[Split, int] = {"train": 162_770, "val": 19_867, "test": 19_962}
NUM_IMAGES = 202_599
NUM_PEOPLE = 10_177
IMAGE_SIZE = (178, 218)  # width, height
ARCHIVE_BYTES = 1_443_490_838  # of img_align_celeba.zip
PIECE_BYTES = 2**20

Verdict = Literal["same", "another file", "no official checksum"]


@dataclass(frozen=True)
class OfficialFile:
    name: str
    md5: str
    drive_id: str


def official_files() -> list[OfficialFile]:
    """The zip file of the images and the annotation files, from torchvision's list."""
    from torchvision.datasets import CelebA  # takes a second to import

    return [OfficialFile(name, md5, drive_id) for drive_id, md5, name in CelebA.file_list]


def compare_checksums(root: Path, track: Track = untracked) -> dict[str, Verdict]:
    """Compares each of CelebA's files in `root` with the official one."""
    official = {file.name: file.md5 for file in official_files()}
    names = [*official, *(name for names in (PARTITION, ATTRIBUTES, IDENTITIES) for name in names)]
    verdicts: dict[str, Verdict] = {}
    for name in dict.fromkeys(names):
        if not (root / name).is_file():
            continue
        if name not in official:
            verdicts[name] = "no official checksum"
            continue
        verdicts[name] = "same" if md5_of(root / name, track) == official[name] else "another file"
    return verdicts


def md5_of(path: Path, track: Track = untracked) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    num_pieces = -(-path.stat().st_size // PIECE_BYTES)
    for _ in track(_feed(digest.update, path), f"Checksum of {path.name} (MiB)", num_pieces):
        pass
    return digest.hexdigest()


def _feed(update: Callable[[bytes], None], path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            update(piece)
            yield len(piece)
