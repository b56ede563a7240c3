"""Reads JSON and YAML files from untrusted sources, within limits of size, depth and numbers."""

import datetime
import json
from pathlib import Path
from typing import Any

import yaml

from vae_lightning.system.names import LONGEST_REASON, shown

MOST_BYTES = {".json": 64 * 2**20, ".yaml": 2 * 2**20}  # a card with large tables; a resolved configuration has 5 KB
MOST_VALUES = {".json": 10_000_000, ".yaml": 20_000}  # in YAML, aliases let a few lines stand for any number
DEEPEST = 100
LARGEST_NUMBER = 2**64
LARGEST_MEASURED = 1e100  # far above every sum of float32; sums and axes of larger numbers overflow


def read_plain(path: Path) -> Any:
    """The file's content: dicts with str keys, lists, str, numbers, booleans and None.

    Raises:
        ValueError: the file is damaged, too large, nested too deeply, or too large after YAML's aliases are expanded.
            The message is the reason in one line, without the file's name.
        OSError: the file cannot be opened.
    """
    size, most = path.stat().st_size, MOST_BYTES[path.suffix]
    if size > most:
        raise ValueError(f"it has {size:,} bytes, more than the {most:,} that are read")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        return _Copy(MOST_VALUES[path.suffix]).of(content, 0)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError, yaml.YAMLError) as error:
        reason = shown(str(error).strip().split("\n")[0], LONGEST_REASON)
        raise ValueError(reason or type(error).__name__) from error


class _Copy:
    """Copies a value and counts its parts; what YAML's aliases repeat counts each time."""

    def __init__(self, most_values: int) -> None:
        self._most_values = most_values
        self._num_values = 0

    def of(self, value: Any, depth: int) -> Any:
        self._num_values += 1
        if self._num_values > self._most_values or depth > DEEPEST:
            raise ValueError(f"more than {self._most_values:,} values, or more than {DEEPEST} levels")
        if isinstance(value, dict):
            return {str(name): self.of(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | set | tuple):
            return [self.of(each, depth + 1) for each in value]
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise ValueError("a whole number of more than 64 bits")
        return str(value) if isinstance(value, bytes | datetime.date) else value
