"""Disentanglement against the continuous factors that drew rendered faces."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.against_factors import AgainstFactors, Known

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject


@dataclass(frozen=True)
class Disentanglement(AgainstFactors):
    """Against the continuous factors that drew rendered faces."""

    title: ClassVar[str] = "Disentanglement against the known factors"
    place: ClassVar[int] = 50
    prefix: ClassVar[str] = ""
    unknown: ClassVar[str] = "the data have no known factors; rendered faces do: data=faces"
    remark: ClassVar[str] = (
        "Some factors of rendered faces go together (smile and mouth_open, masculinity and beard), "
        "so that even a perfect code does not reach 1."
    )

    def known(self, subject: "Subject", split: Split, at_most: int | None) -> Known | None:
        return subject.factors(split, at_most)
