"""The contract of every metric: construct it with its settings, then measure a model with its data."""

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from vae_lightning.scores.result import Result
from vae_lightning.system.found import stem_of

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject


class Metric(ABC):
    """A frozen dataclass in a file of its own in `evaluation/metrics/`, which gives the metric its name.

    Its fields are its settings, with defaults. A field with the name of an argument of `Request` (samples,
    weights, …) takes the request's value.
    """

    name: ClassVar[str]  # as in --metrics: that of the file
    title: ClassVar[str]  # heading in the card
    place: ClassVar[int] = 100  # in the card, lowest first
    # many small matrices: several threads would wait for each other for longer than they compute
    is_faster_in_one_thread: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        cls.name = stem_of(cls)

    @abstractmethod
    def measure(self, subject: "Subject") -> Result:
        """Measures the subject; a value that cannot be measured is a `Value.missing` with the reason.

        Raises:
            EvaluationError: these data or settings do not allow it.
        """

    def settings(self) -> dict[str, Any]:
        """All that the result depends on besides the subject, as plain data; equal settings, equal results."""
        return asdict(self)  # type: ignore[call-overload]


class EvaluationError(ValueError):
    """An evaluation cannot be done as asked; the message says what is allowed and the fix."""
