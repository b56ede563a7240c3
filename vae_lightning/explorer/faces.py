"""What a person may ask to see: a test face, a photograph, or a sample."""

from dataclasses import dataclass
from enum import StrEnum


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
