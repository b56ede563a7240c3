"""Results of single metrics on disk, keyed by everything that they depend on, so that each is measured once."""

import hashlib
import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vae_lightning.evaluation.card import Section
from vae_lightning.evaluation.metric import Metric
from vae_lightning.pictures.grids import write_picture
from vae_lightning.scores.result import Result
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.whole_files import replacing, write_json

FOLDER = "measured"
RESULT = "result.json"


class ResultStore:
    """The folder `measured/` below an evaluation's folder, a subfolder per result.

    Args:
        folder: the evaluation's.
        subject: identifies model, data and the way they are evaluated, as plain data.
    """

    def __init__(self, folder: Path, subject: dict[str, Any]) -> None:
        self.folder = folder
        self.subject = {**subject, "code": code_digest(), "torch": torch.__version__}

    def read(self, metric: Metric) -> Section | None:
        """The stored result for the metric's settings; None where there is none, or where it is damaged."""
        place = self._place(metric)
        try:
            section = Section.from_plain(read_plain(place / RESULT))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None  # it is measured again
        if not all((place / picture).is_file() for picture in section.pictures):
            return None
        self._copy_pictures(place, section)
        return section

    def write(self, metric: Metric, measured: Result, seconds: float) -> Section:
        place = self._place(metric)
        section = Section.of(metric, measured, seconds)
        for stem, picture in measured.pictures.items():
            write_picture(place / f"{stem}.png", picture)
        write_json(place / RESULT, asdict(section))  # last: without it the result does not count
        self._copy_pictures(place, section)
        return section

    def _place(self, metric: Metric) -> Path:
        key = json.dumps([metric.name, metric.settings(), self.subject], sort_keys=True, default=str)
        return self.folder / FOLDER / f"{metric.name}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"

    def _copy_pictures(self, place: Path, section: Section) -> None:
        """Copies a section's pictures to where the card will lie."""
        for picture in section.pictures:
            with replacing(self.folder / picture) as unfinished:
                shutil.copyfile(place / picture, unfinished)


@cache
def code_digest() -> str:
    """A hash of the package's code: results of other code are measured again."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
