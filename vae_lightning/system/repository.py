"""Where conf/ and train.py lie: at the top of a clone, or in the copy that a wheel carries."""

from pathlib import Path

_COPY = Path(__file__).parents[1] / "repository"
REPOSITORY = _COPY if _COPY.is_dir() else Path(__file__).parents[2]
