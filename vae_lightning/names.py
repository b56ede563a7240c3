"""Words that files from anywhere use as names, and that people see in terminals, pages and pictures."""

LONGEST_NAME = 200
LONGEST_REASON = 300  # of a stranger's words, or a library's, in a message
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # where bytes were no UTF-8


def is_a_name(value: object) -> bool:
    """A short word that can be printed (no control characters, which terminals obey) and is no path."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    return value.isprintable() and not {"/", "\\", REPLACEMENT} & set(value) and value.strip(". ") != ""


def shown(text: str, longest: int = 80) -> str:
    """The text, but not the whole of a long line, and nothing in it that a terminal would obey."""
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return short if short.isprintable() else repr(short)
