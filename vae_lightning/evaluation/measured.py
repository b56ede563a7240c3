"""The contract of every metric: construct it with its settings, then measure a subject -> names and values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from vae_lightning.scores.attribute_scores import Cell

if TYPE_CHECKING:
    from vae_lightning.runs.opened import Subject
Direction = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Value:
    """One number of a card.

    `value` is None where it was not measured; `note` then says why and what to do. Otherwise `note` says what a
    reader has to know to compare the number with another's.
    """

    name: str
    value: float | None
    note: str = ""
    interval: tuple[float, float] | None = None  # 95 %
    better: Direction = ""

    @classmethod
    def missing(cls, name: str, reason: str) -> "Value":
        return cls(name, None, f"not measured: {reason}")


@dataclass(frozen=True)
class Measured:
    """All that one metric found."""

    values: Sequence[Value]
    protocol: dict[str, Any] = field(default_factory=dict)  # how: counts, seeds, sources; plain data
    remarks: Sequence[str] = ()  # verdicts, one sentence each
    tables: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)  # by name; a row is column -> cell
    # by file stem; RGB
    pictures: dict[str, UInt8[np.ndarray, "_height _width 3"]] = field(default_factory=dict)


class Metric(ABC):
    """A frozen dataclass whose fields are its settings."""

    name: ClassVar[str]  # as in --metrics
    title: ClassVar[str]  # heading in the card
    # many small matrices: several threads would wait for each other for longer than they compute
    is_faster_in_one_thread: ClassVar[bool] = False

    @abstractmethod
    def measure(self, subject: "Subject") -> Measured:
        """What can be measured of the subject; what cannot is a `Value.missing` with the reason.

        Raises:
            EvaluationError: a setting asks for what cannot be.
        """

    def settings(self) -> dict[str, Any]:
        """All that the result depends on besides the subject, as plain data; equal settings, equal results."""
        return asdict(self)  # type: ignore[call-overload]


class EvaluationError(ValueError):
    """An evaluation was asked for what cannot be; the message says what is allowed and the fix."""
