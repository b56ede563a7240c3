"""Parts that are found by the name of their file: a class in a file of its own is all that a new one needs."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def stem_of(part: type) -> str:
    """The name of the file that a class stands in."""
    return part.__module__.rpartition(".")[2]


def files_in(folder: Path) -> tuple[str, ...]:
    """Names of the modules in a package's folder, in the order of the alphabet; nothing is imported."""
    return tuple(sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")))


def classes_in(package: str, names: Sequence[str], base: type[T]) -> list[type[T]]:
    """The concrete subclasses of `base` that stand in these modules of a package."""
    modules = [import_module(f"{package}.{name}") for name in names]
    return [
        part
        for module in modules
        for part in vars(module).values()
        if isinstance(part, type) and issubclass(part, base) and part.__module__ == module.__name__
        if not inspect.isabstract(part)
    ]
