"""What a command line may say: typed root keys, arguments checked against constructors, names of sweep folders."""

import difflib
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from hydra.utils import get_class
from omegaconf import MISSING, OmegaConf

from vae_lightning.run_folders import RunError, newest_run


class ConfigError(ValueError):
    """The command line or a YAML file asks for what cannot be; the message says what can."""


@dataclass
class RootConfig:
    """Types of the root keys: hydra refuses other keys, and values of other types."""

    beta: float = 1.0
    seed: int = 0
    ckpt_path: str | None = None
    test: bool = True
    optimized_metric: str = "val/loss"
    run_dir: str = MISSING
    data: Any = MISSING
    model: Any = MISSING
    reconstruction: Any = MISSING
    beta_schedule: Any = MISSING
    optimizer: Any = MISSING
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_configuration() -> None:
    """Makes the root schema and the resolver of folder names known to hydra; may be called twice."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def folder_name(overrides: str) -> str:
    """`beta=4,data.root=/faces` -> `beta=4,data.root=-faces`: one path component, whatever was swept."""
    return overrides.replace(os.sep, "-").strip(". ") or "job"


# ---- the constructor's signature is the schema


def check_arguments(config: Mapping[str, Any]) -> None:
    """Holds every `_target_` in `config` against its constructor.

    Raises:
        ConfigError: an argument that the constructor does not take (with the nearest that it does), or a
            value of a type or a choice that its annotation does not allow.
    """
    for path, node in _target_nodes(config, ""):
        target = get_class(node["_target_"])
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
                    f"{key}: {target.__name__} takes no such argument{hint}; it takes {', '.join(parameters)}"
                )
            if not _fits(value, parameters[name]):
                raise ConfigError(f"{key}={value}: {target.__name__} takes {describe_type(parameters[name])} here")


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


def did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """` (did you mean X?)` for the nearest known name, empty when none is near; a shared first letter decides ties."""
    nearest = difflib.get_close_matches(name, list(known), n=3)
    nearest.sort(key=lambda candidate: candidate[:1] != name[:1])
    return f" (did you mean {nearest[0]}?)" if nearest else ""


# ---- the command line, before hydra sees it


def explain_unknown_key(arguments: Sequence[str], conf_dir: Path) -> str | None:
    """The known root key or group nearest to a misspelt one, for the first override that names an unknown one."""
    groups = [path.name for path in conf_dir.iterdir() if path.is_dir()]
    known = sorted({*groups, *(entry.name for entry in fields(RootConfig))})
    for argument in arguments:
        key = re.split(r"[./@=]", argument)[0]
        if "=" in argument and not key.startswith(("-", "+", "~")) and key not in known:
            hint = did_you_mean(key, known)
            return f"{key}: there is no such key{hint}; the root keys and groups are {', '.join(known)}"
    return None


def name_jobs_by_what_is_swept(arguments: Sequence[str]) -> list[str]:
    """Adds to a `-m` command line the keys that all jobs share, so that hydra leaves them out of folder names."""
    if not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    assignments = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(assignments)
    except CompactHydraException:
        return list(arguments)  # hydra parses them again and says what is wrong
    shared = [override.key_or_group for override in overrides if not override.is_sweep_override()]
    if len(shared) == len(overrides) or not shared:
        return list(arguments)
    quoted = ",".join(f"'{key}'" for key in shared if not key.startswith("hydra"))
    return [*arguments, f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"]


def continue_last_run(arguments: Sequence[str]) -> list[str]:
    """Makes `ckpt_path=last` go on in the folder, and with the overrides, of the newest run that can be continued.

    What is typed beside it counts more than what the run was started with (`trainer.max_epochs=20`).

    Raises:
        ConfigError: `-m` is asked for at once, or the named folder has no last checkpoint.
        RunError: there is no run to continue.
    """
    if "ckpt_path=last" not in arguments:
        return list(arguments)
    if {"-m", "--multirun"} & set(arguments):
        raise ConfigError("ckpt_path=last continues one run, -m starts many: leave one of them out")
    named = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("hydra.run.dir=")]
    run_dir = Path(named[0].strip("'\"")) if named else newest_run()
    if not (run_dir / "checkpoints" / "last.ckpt").is_file():
        raise ConfigError(f"ckpt_path=last: {run_dir} has no checkpoints/last.ckpt; name another hydra.run.dir=…")
    earlier = yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text()) or []
    typed = {argument.split("=")[0].lstrip("+~") for argument in arguments}
    kept = [override for override in earlier if override.split("=")[0].lstrip("+~") not in typed]
    folder = [] if named else [f"hydra.run.dir='{run_dir}'"]
    return [*kept, *arguments, *folder]


def prepare_command_line(arguments: Sequence[str], conf_dir: Path) -> list[str]:
    """The command line that hydra gets; ends the program with one clear line where it cannot be run."""
    problem = explain_unknown_key(arguments, conf_dir)
    if problem is None:
        try:
            return name_jobs_by_what_is_swept(continue_last_run(arguments))
        except (ConfigError, RunError) as error:
            problem = str(error)
    sys.stderr.write(f"{problem}\n")
    raise SystemExit(2)
