"""Checks the arguments of each `_target_` against the signature of its class, which is the schema."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.utils import _locate
from omegaconf import OmegaConf

from vae_lightning.system.names import did_you_mean

GROUPS_OF_ONE = (
    *("model", "reconstruction", "kl", "beta_schedule", "perceptual", "recognizer"),
    *("optimizer", "lr_schedule"),
)

ROOTS = ("vae_lightning", "callbacks", "torch", "lightning")  # in which a class of nearly that name is looked for


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what is allowed."""


def check_arguments(config: Mapping[str, Any]) -> None:
    """Checks the arguments of every `_target_` in `config` against its constructor.

    Raises:
        ConfigError: an argument that the constructor does not take, or a value that its annotation does not allow.
    """
    for group in GROUPS_OF_ONE:
        node = config.get(group)
        if node and "_target_" not in node:
            raise ConfigError(
                f"{group}.{next(iter(node))}: no {group} is chosen that has this setting; choose {group}=… first"
            )
    for path, node in _target_nodes(config, ""):
        target = _class_of(node, path)
        parameters = _parameters(target)
        if parameters is None:
            continue
        for name, value in node.items():
            if name.startswith("_"):
                continue
            key = f"{path}.{name}" if path else name
            if name not in parameters:
                _, taken = taken_by(node)
                problem = unknown_argument(key, target.__name__, taken, did_you_mean(name, taken))
                raise ConfigError(f"{problem}. If a preset sets it, ~{key} removes it")
            if not _fits(value, parameters[name]):
                raise ConfigError(f"{key}={value}: {target.__name__} takes {describe_type(parameters[name])} here")


def unknown_argument(key: str, target: str, taken: Sequence[str], hint: str) -> str:
    """The message for an argument that a class does not take."""
    return f"{key}: {target} takes no such argument{hint}; it takes {', '.join(taken)}"


def taken_by(node: Mapping[str, Any], path: str = "") -> tuple[type | None, list[str]]:
    """The class of a node, and the arguments that it takes, first those that the YAML file names."""
    if "_target_" not in node:
        return None, [str(name) for name in node]
    target = _class_of(node, path)
    parameters = _parameters(target) or {}
    named = [str(name) for name in node if name in parameters]
    return target, [*named, *(name for name in parameters if name not in named)]


def takes(config: Any, key: str) -> bool:
    """Whether the class of the node at a dotted key takes its last part as an argument."""
    place, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, place) if place else None
    return isinstance(node, Mapping) and "_target_" in node and name in taken_by(node)[1]


def _class_of(node: Mapping[str, Any], path: str) -> type:
    """The class that `_target_` names.

    Raises:
        ConfigError: there is no such class; functions (os.system) are never called.
    """
    target = node["_target_"]
    try:
        found = _locate(target)
    except (ValueError, ImportError, TypeError, AttributeError):
        found = None
    if isinstance(found, type):
        return found
    key = f"{path}._target_" if path else "_target_"
    raise ConfigError(f"{key}={target}: must be the full name of a class{_nearest_class(str(target))}")


def _nearest_class(target: str) -> str:
    module, _, name = target.rpartition(".")
    try:
        there = vars(importlib.import_module(module)) if module.split(".")[0] in ROOTS else {}
    except ImportError:
        return f", and there is no module {module}"
    near = did_you_mean(name, (each for each, value in there.items() if isinstance(value, type)))
    return near.replace("mean ", f"mean {module}.")


def _target_nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield path, node
    for name, child in node.items():
        yield from _target_nodes(child, f"{path}.{name}" if path else str(name))


@cache
def _parameters(target: type) -> dict[str, Any] | None:
    """Names and annotations of all arguments, also of those that `**others` passes to a base class."""
    parameters: dict[str, Any] = {}
    for base in target.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None or base is object:
            continue
        hints = _resolved_hints(constructor)
        takes_others = False
        for name, parameter in list(inspect.signature(constructor).parameters.items())[1:]:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                takes_others = True
            else:
                parameters.setdefault(name, hints.get(name, Any))
        if not takes_others:
            return parameters
    return None


def _resolved_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # a library's annotation that only its type checker can read
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a plain YAML value fits the annotation; annotations that YAML cannot express always fit."""
    if isinstance(value, str) and value.startswith("${"):
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(annotation))
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool):
        return isinstance(value, annotation)
    if annotation is type(None):
        return value is None
    if origin is not None and issubclass(origin, Sequence):
        item = typing.get_args(annotation)[0]
        return isinstance(value, list | tuple) and all(_fits(entry, item) for entry in value)
    # an object: in YAML a node with a _target_, or for a path a string
    return annotation in (Any, Path) or not isinstance(value, bool | int | float | str | None)


def describe_type(annotation: Any) -> str:
    """An annotation in words: `null or one of rgb, gray`."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(choice) for choice in typing.get_args(annotation))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if annotation is type(None):
        return "null"
    if origin is not None and issubclass(origin, Sequence):
        return f"[a list of {describe_type(typing.get_args(annotation)[0])}]"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))
