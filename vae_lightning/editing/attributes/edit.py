"""The contract of a way to add an attribute; each is a file of this folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from vae_lightning.runs.subject import Subject
from vae_lightning.system.found import classes_in, files_in, stem_of
from vae_lightning.system.names import not_allowed

Latents = Float[Tensor, "images latent"]
Method = Callable[[Latents, float], Latents]  # latents and a strength -> edited latents


class AttributeEdit(ABC):
    """A way to add one attribute to faces, fitted to a model. The name of its file is its name.

    `vae edit attribute RUN ATTRIBUTE --method NAME` shows it, `vae edit score` scores it beside all the others.

    Args:
        subject: the model with its data.
        attribute: as the data call it.

    Raises:
        ValueError: it cannot be fitted to this model, these data or this attribute.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = stem_of(cls)

    @abstractmethod
    def __init__(self, subject: Subject, attribute: str) -> None: ...

    @abstractmethod
    def __call__(self, latents: Latents, strength: float) -> Latents:
        """The edited latents, on the host: 0 changes nothing, a negative strength takes the attribute away."""


def attribute_edits() -> dict[str, type[AttributeEdit]]:
    """By name."""
    names = files_in(Path(__file__).parent)
    edits = classes_in("vae_lightning.editing.attributes", names, AttributeEdit)
    return {edit.name: edit for edit in edits}


def attribute_edit(name: str, others: Sequence[str]) -> type[AttributeEdit]:
    """The edit of this name; `others` are allowed besides, for the message.

    Raises:
        ValueError: there is no such edit.
    """
    edits = attribute_edits()
    if name not in edits:
        raise ValueError(not_allowed("method", name, [*others, *edits]))
    return edits[name]
