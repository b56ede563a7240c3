"""Finds classes by the names of their files, so that a new one needs no entry in a list."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def stem_of(part: type) -> str:
    """The name of the file that holds a class, without its suffix."""
    return part.__module__.rpartition(".")[2]


def files_in(folder: Path) -> tuple[str, ...]:
    """Names of the modules in a package's folder, sorted; nothing is imported."""
    return tuple(sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")))


def classes_in(package: str, names: Sequence[str], base: type[T]) -> list[type[T]]:
    """The concrete subclasses of `base` that these modules of a package define."""
    modules = [import_module(f"{package}.{name}") for name in names]
    return [
        part
        for module in modules
        for part in vars(module).values()
        if isinstance(part, type) and issubclass(part, base) and part.__module__ == module.__name__
        if not inspect.isabstract(part)
    ]
