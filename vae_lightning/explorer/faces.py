"""What a person may ask to see: a test face, a photograph, or a sample."""

import math
from dataclasses import dataclass
from enum import StrEnum

HIGHEST_TEMPERATURE = 2.0
HIGHEST_SEED = 2**31 - 1


class ExplorerError(ValueError):
    """Something was asked of the page that cannot be; the message says what can."""


class Source(StrEnum):
    TEST = "Test face"
    PHOTOGRAPH = "Photograph"
    SAMPLE = "Sample"


@dataclass(frozen=True)
class Face:
    """Which face, whatever the run.

    Args:
        source: decides which of the others count.
        number: of a test face, from 1.
        photograph: the token of an uploaded one.
        name: of its file.
        seed: of a sample.
        temperature: of a sample.
    """

    source: Source
    number: int = 1
    photograph: str = ""
    name: str = ""
    seed: int = 0
    temperature: float = 1.0

    @property
    def words(self) -> str:
        return {
            Source.TEST: f"test face {self.number}",
            Source.PHOTOGRAPH: self.name or "photograph",
            Source.SAMPLE: f"sample, seed {self.seed}, temperature {self.temperature:g}",
        }[self.source]


def as_seed(value: float | None) -> int:
    """
    Raises:
        ExplorerError: empty, negative, too large or no whole number.
    """
    if value is None or not 0 <= value <= HIGHEST_SEED or value != int(value):
        raise ExplorerError(f"seed: needs a whole number from 0 to {HIGHEST_SEED}")
    return int(value)


def as_temperature(value: float | None) -> float:
    """
    Raises:
        ExplorerError: empty, below 0 or above HIGHEST_TEMPERATURE.
    """
    if value is None or not math.isfinite(value) or not 0 <= value <= HIGHEST_TEMPERATURE:
        raise ExplorerError(f"temperature: needs a number from 0 to {HIGHEST_TEMPERATURE:g}")
    return float(value)
