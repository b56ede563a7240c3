"""Checks names from files and command lines, makes text safe to print, and suggests allowed names."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

LONGEST_NAME = 200
LONGEST_STEM_BYTES = 40  # file systems allow 255 for a name, and unfinished files have longer names
LONGEST_REASON = 300  # of text from a file or a library, in a message
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # in place of bytes that are not UTF-8
UNDECODED = re.compile("[\ud800-\udfff]")  # what Python makes of bytes in file names that are not UTF-8
RENAMING = "convmv -r -f latin1 -t utf8 --notest FOLDER renames all such names in a folder"


def is_a_name(value: object) -> bool:
    """Whether a value is a short text that is printable (without control characters) and not a path."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    return value.isprintable() and not {"/", "\\", REPLACEMENT} & set(value) and value.strip(". ") != ""


def shown(text: str, longest: int = 80) -> str:
    """The text, cut if it is long, and escaped if it holds control characters, which terminals obey."""
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return short if short.isprintable() else repr(short)


def explain_encoding(names: Iterable[str]) -> str | None:
    """Says which of these file names or words is not UTF-8, and how to rename it; None if all are."""
    bad = next((name for name in names if UNDECODED.search(name)), None)
    if bad is None:
        return None
    bytes_shown = os.fsencode(bad).decode(errors="backslashreplace")
    return (
        f"{shown(bytes_shown, LONGEST_REASON)}: this name is not UTF-8, as after unpacking an archive of Windows. "
        f"Rename it; {RENAMING}."
    )


def short_stem(file: Path) -> str:
    """A file's name without its suffix, cut so that three of them fit into the name of another file."""
    return file.stem.encode()[:LONGEST_STEM_BYTES].decode(errors="ignore")


def as_markdown(text: str) -> str:
    """The text escaped for a line or a table cell of Markdown, so that it starts no tag, link, code or column."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    escaped = re.sub(r"([\\`|\[\]])", r"\\\1", line)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the most similar known name, or nothing; of a shared first letter if there is one."""
    by_lower = {candidate.lower(): candidate for candidate in reversed(list(known))}
    order = list(reversed(by_lower))
    near = difflib.get_close_matches(name.lower(), order, n=3)
    near.sort(key=lambda each: (each[:1] != name[:1].lower(), -_similarity(name.lower(), each), order.index(each)))
    nearest = [by_lower[each] for each in near]
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def not_allowed(key: str, value: object, allowed: Iterable[object]) -> str:
    """`KEY=VALUE (did you mean X?): allowed are A, B, C`, for the message of an error."""
    names = [str(name) for name in allowed]
    return f"{key}={value}{did_you_mean(str(value), names)}: allowed are {', '.join(names)}"
