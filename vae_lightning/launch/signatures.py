"""The constructor's signature is the schema: arguments in YAML and on the command line are held against it."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from vae_lightning.system.names import did_you_mean

GROUPS_OF_ONE = (
    *("model", "reconstruction", "kl", "beta_schedule", "perceptual", "recognizer"),
    *("optimizer", "lr_schedule"),
)


class ConfigError(ValueError):
    """The command line or a YAML file asks for what cannot be; the message says what can."""


def check_arguments(config: Mapping[str, Any]) -> None:
    """Holds every `_target_` in `config` against its constructor.

    Raises:
        ConfigError: an argument that the constructor does not take (with the nearest that it does), or a
            value of a type or a choice that its annotation does not allow.
    """
    for group in GROUPS_OF_ONE:
        node = config.get(group)
        if node and "_target_" not in node:
            raise ConfigError(f"{group}.{next(iter(node))}: nothing is chosen that takes it; choose {group}=… first")
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
                hint = did_you_mean(name, parameters)
                raise ConfigError(
                    f"{key}: {target.__name__} takes no such argument{hint}; it takes {', '.join(parameters)}. "
                    f"Where a preset sets it, ~{key} takes it out"
                )
            if not _fits(value, parameters[name]):
                raise ConfigError(f"{key}={value}: {target.__name__} takes {describe_type(parameters[name])} here")


def _class_of(node: Mapping[str, Any], path: str) -> type:
    """
    Raises:
        ConfigError: there is no such class; functions (os.system) are never called.
    """
    try:
        return get_class(node["_target_"])
    except (ValueError, ImportError, TypeError, AttributeError) as error:
        key = f"{path}._target_" if path else "_target_"
        raise ConfigError(f"{key}={node['_target_']}: needed is a class ({str(error).splitlines()[0]})") from error


def _target_nodes(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        yield path, node
    for name, child in node.items():
        yield from _target_nodes(child, f"{path}.{name}" if path else str(name))


def _parameters(target: type) -> dict[str, Any] | None:
    """Names and annotations of all arguments, those that `**others` passes to a base class included."""
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
    """Whether a plain YAML value can be what the annotation asks for; annotations that YAML cannot say pass."""
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
    # an object: YAML says it as a node with a _target_, or a path as a string
    return isinstance(value, Mapping) or annotation is Any or not _is_plain(value) or annotation is Path


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def describe_type(annotation: Any) -> str:
    """An annotation in words that a person at a command line reads: `null or one of rgb, gray`."""
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
