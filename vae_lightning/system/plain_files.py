"""Reads JSON and YAML files from untrusted sources, within limits of size, depth and numbers."""

import datetime
import json
from pathlib import Path
from typing import Any

import yaml

from vae_lightning.system.names import LONGEST_REASON, shown
from vae_lightning.system.regular_files import read_regular

MOST_BYTES = {".json": 16 * 2**20, ".yaml": 256 * 2**10}  # a card with large tables; a resolved configuration has 5 KB
MOST_VALUES = {".json": 2_000_000, ".yaml": 20_000}  # in YAML, aliases let a few lines stand for any number
MOST_LETTERS = 16 * 2**20  # of all texts
DEEPEST = 100
LONGEST_NUMBER = 40  # digits; Python takes minutes for YAML's numbers to the base of 60, `1:1:1:…`, of a megabyte
LARGEST_NUMBER = 2**64
LARGEST_MEASURED = 1e100  # far above every sum of float32; sums and axes of larger numbers overflow


def read_plain(path: Path) -> Any:
    """The file's content: dicts with str keys, lists, str, numbers, booleans and None.

    Raises:
        ValueError: the file is damaged, too large, nested too deeply, or too large after YAML's aliases are expanded.
            The message is the reason in one line, without the file's name.
        OSError: the file cannot be opened.
    """
    most_values = MOST_VALUES[path.suffix]
    content = read_regular(path, MOST_BYTES[path.suffix])
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            if sum(map(text.count, ",:[{")) > most_values:  # each begins one; parsed, they take 20 times as much
                raise ValueError(f"more than {most_values:,} values")
            return _Copy(most_values).of(json.loads(text), 0)
        return _Copy(most_values).of(_read_yaml(text), 0)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError, OverflowError, yaml.YAMLError) as error:
        reason = shown(str(error).strip().split("\n")[0], LONGEST_REASON)
        raise ValueError(reason or type(error).__name__) from error


def _read_yaml(text: str) -> Any:
    """Looks at the depth first: the loader in C overflows its stack, and the process ends."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels")
    return yaml.load(text, _Loader)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C five times as fast
    """Without what makes a few lines stand for any number of values while they are still being read."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ValueError("it merges mappings (<<), which no run writes")

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"a number of more than {LONGEST_NUMBER} digits")
        return super().construct_scalar(node)


class _Copy:
    """Copies a value and counts its parts; what YAML's aliases repeat counts each time."""

    def __init__(self, most_values: int) -> None:
        self._most_values = most_values
        self._num_values = 0
        self._num_letters = 0

    def of(self, value: Any, depth: int) -> Any:
        self._num_values += 1
        if self._num_values > self._most_values or depth > DEEPEST:
            raise ValueError(f"more than {self._most_values:,} values, or more than {DEEPEST} levels")
        if isinstance(value, str):
            self._num_letters += len(value)
            if self._num_letters > MOST_LETTERS:
                raise ValueError(f"texts of more than {MOST_LETTERS:,} letters")
        if isinstance(value, dict):
            return {str(name): self.of(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | set | tuple):
            return [self.of(each, depth + 1) for each in value]
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise ValueError("a whole number of more than 64 bits")
        return str(value) if isinstance(value, bytes | datetime.date) else value
