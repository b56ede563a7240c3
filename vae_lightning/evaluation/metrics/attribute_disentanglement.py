"""Disentanglement against CelebA's attributes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.against_factors import AgainstFactors, Known

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject


@dataclass(frozen=True)
class AttributeDisentanglement(AgainstFactors):
    """Against binary attributes. Only models on the same data compare."""

    title: ClassVar[str] = "Disentanglement against the attributes"
    place: ClassVar[int] = 60
    prefix: ClassVar[str] = "attribute_"
    unknown: ClassVar[str] = "the data have no attributes; CelebA and rendered faces do: data=celeba, data=faces"
    remark: ClassVar[str] = (
        "Attributes overlap (Male, Goatee, Wearing_Lipstick) and hold less than one bit each, so that these scores "
        "are far below those against factors; they only compare models on the same data."
    )

    def known(self, subject: "Subject", split: Split, at_most: int | None) -> Known | None:
        attributes = subject.attributes(split, at_most)
        return None if attributes is None else (tuple(subject.data.attribute_names), attributes)
