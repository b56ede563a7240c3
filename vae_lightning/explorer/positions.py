"""Checks the values of the page's controls: anybody can send anything."""

from collections.abc import Collection

HIGHEST_TEMPERATURE = 2
HIGHEST_SEED = 2**31 - 1
SHOWN = 40  # characters of a value that is refused


def number_in(value: object, what: str, low: float, high: float) -> float:
    """
    Raises:
        ValueError: empty, not a number, or out of range.
    """
    return float(_in_range(value, what, low, high, "a number"))


def whole_in(value: object, what: str, low: int, high: int) -> int:
    """
    Raises:
        ValueError: empty, not a whole number, or out of range.
    """
    number = _in_range(value, what, low, high, "a whole number")
    if number != int(number):
        raise ValueError(f"{what}: needs a whole number from {low} to {high}")
    return int(number)


def _in_range(value: object, what: str, low: float, high: float, kind: str) -> float:
    # nan is not between two numbers, either
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{what}: needs {kind} from {low:.10g} to {high:.10g}")
    return value


def word_of(value: object, what: str, choices: Collection[str]) -> str:
    """
    Raises:
        ValueError: not one of the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what}: there is no {str(value)[:SHOWN]!r}; there are {', '.join(choices) or 'none'}")
    return value


def words_of(value: object, what: str, choices: Collection[str], most: int) -> list[str]:
    """
    Raises:
        ValueError: too many, or one that is not among the choices.
    """
    words = list(value) if isinstance(value, list) else [] if value is None else [value]
    if len(words) > most:
        raise ValueError(f"{what}: at most {most}")
    return [word_of(word, what, choices) for word in words]


def as_seed(value: object) -> int:
    """
    Raises:
        ValueError: empty, negative, too large or not a whole number.
    """
    return whole_in(value, "seed", 0, HIGHEST_SEED)


def as_temperature(value: object) -> float:
    """
    Raises:
        ValueError: empty, below 0 or above HIGHEST_TEMPERATURE.
    """
    return number_in(value, "temperature", 0, HIGHEST_TEMPERATURE)
