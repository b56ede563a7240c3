"""Checks names that come from files or command lines, and makes text safe to show."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

LONGEST_NAME = 200
LONGEST_STEM_BYTES = 40  # file systems allow 255 for a name, with what a file is called while it is written
LONGEST_REASON = 300  # of a stranger's words, or a library's, in a message
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # where bytes were no UTF-8


def is_a_name(value: object) -> bool:
    """A short word that can be printed (no control characters, which terminals obey) and is no path."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    return value.isprintable() and not {"/", "\\", REPLACEMENT} & set(value) and value.strip(". ") != ""


def shown(text: str, longest: int = 80) -> str:
    """The text, cut where it is long and escaped where it has characters that a terminal would obey."""
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return short if short.isprintable() else repr(short)


def short_stem(file: Path) -> str:
    """A file's name without its suffix, cut so that three of them make another file's name."""
    return file.stem.encode()[:LONGEST_STEM_BYTES].decode(errors="ignore")


def as_markdown(text: str) -> str:
    """The text escaped for a line or a cell of Markdown, so that it begins no tag, link, code or column."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    escaped = re.sub(r"([\\`|\[\]])", r"\\\1", line)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known name, empty when none is near; a shared first letter decides ties."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = [by_lower[match] for match in difflib.get_close_matches(name.lower(), list(by_lower), n=3)]
    nearest.sort(key=lambda candidate: candidate[:1].lower() != name[:1].lower())
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def not_allowed(key: str, value: object, allowed: Iterable[object]) -> str:
    """`KEY=VALUE (did you mean X?): allowed are A, B, C`, for the message of an error."""
    names = [str(name) for name in allowed]
    return f"{key}={value}{did_you_mean(str(value), names)}: allowed are {', '.join(names)}"
