"""The nearest word that is known, for messages about one that is not."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known name, empty when none is near; a shared first letter decides ties."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = [by_lower[match] for match in difflib.get_close_matches(name.lower(), list(by_lower), n=3)]
    nearest.sort(key=lambda candidate: candidate[:1].lower() != name[:1].lower())
    return f" (did you mean {nearest[0]}?)" if nearest else ""
