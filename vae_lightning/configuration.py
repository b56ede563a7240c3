"""What a configuration may say: typed root keys, and arguments that are checked against constructors."""

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import MISSING, OmegaConf

from vae_lightning.identity import job_folder

# of a run, most telling first; those that need a KL are missing for a plain autoencoder
SHOWN_METRICS = ("loss", "elbo_nats", "reconstruction_nats", "kl_nats", "bits_per_dim", "active_units", "mse")
CONF_DIR = Path(__file__).parents[1] / "conf"
OF_HYDRA = (Path("hydra/help"), Path("hydra/job_logging"), Path("hydra/hydra_logging"))  # groups with nothing to choose
METRICS_OF_KL = ("elbo_nats", "kl_nats", "bits_per_dim")


class ConfigError(ValueError):
    """The command line or a YAML file asks for what cannot be; the message says what can."""


@dataclass
class RootConfig:
    """Types of the root keys: hydra refuses other keys, and values of other types."""

    beta: float = 1.0
    posterior: str = "gaussian"
    seed: int = 0
    ckpt_path: str | None = None
    test: bool = True
    sweep: str | None = None
    optimized_metric: Any = "val/loss"
    run_dir: str = MISSING
    data: Any = MISSING
    model: Any = MISSING
    reconstruction: Any = MISSING
    kl: Any = MISSING
    beta_schedule: Any = MISSING
    perceptual: Any = None
    optimizer: Any = MISSING
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_configuration() -> None:
    """Makes the root schema and the resolvers of folder names known to hydra; may be called twice."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("choices", list_choices, replace=True)


def run_folder() -> str:
    """The folder that hydra has made for this run, or would make: `--cfg job --resolve` only looks."""
    hydra: Any = HydraConfig.get()
    return str(hydra.runtime.get("output_dir") or hydra.run.dir)


def swept_overrides() -> dict[str, str]:
    """What tells this job of a sweep from the others; empty outside of a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    hydra: Any = HydraConfig.get()
    shared = {*hydra.job.config.override_dirname.exclude_keys, "sweep"}
    pairs = (str(override).lstrip("+").partition("=") for override in hydra.overrides.task)
    return {key: value for key, _, value in pairs if key not in shared}


def list_choices() -> str:
    """Every group with its choices, for the help page."""
    groups: dict[Path, list[str]] = {}
    for path in sorted(CONF_DIR.glob("*/**/*.yaml")):
        groups.setdefault(path.parent.relative_to(CONF_DIR), []).append(path.stem)
    return "\n".join(f"{group}: {', '.join(choices)}" for group, choices in groups.items() if group not in OF_HYDRA)


def to_plain(config: Any, *, runs_here: bool = True) -> dict[str, Any]:
    """A composed config, resolved, as dicts, lists and numbers, with `trainer.precision=auto` made definite.

    Raises:
        ConfigError: something in it cannot be; the accelerator is looked for only where the run `runs_here`.
    """
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    plain = {str(name): value for name, value in container.items()}
    for name in optimized_metrics(plain):
        check_optimized_metric(name, measured_metrics(plain))
    if runs_here:
        check_accelerator(plain["trainer"].get("accelerator", "auto"))
    if plain["trainer"].get("precision") == "auto":
        plain["trainer"]["precision"] = best_precision(plain["trainer"].get("accelerator", "auto"))
    check_arguments(plain)
    return plain


def check_accelerator(accelerator: str) -> None:
    """Refuses a GPU that is not there, in words that name the way out.

    Raises:
        ConfigError: PyTorch sees no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = there["cuda"] or there["mps"]
    if not there.get(accelerator, True):
        raise ConfigError(
            f"trainer.accelerator={accelerator}: PyTorch sees no such device here; "
            "trainer=default takes the best there is"
        )


def measured_metrics(plain: Mapping[str, Any]) -> list[str]:
    """The names of what the run will measure and a sweep may search by."""
    is_vae = plain["model"].get("posterior") != "deterministic"
    metrics = [metric for metric in SHOWN_METRICS if is_vae or metric not in METRICS_OF_KL]
    splits = ("val", "test") if plain["test"] else ("val",)
    return [f"{split}/{metric}" for split in splits for metric in metrics]


def optimized_metrics(plain: Mapping[str, Any]) -> list[str]:
    """What a sweep searches by: one metric, or several that are traded against each other."""
    names = plain["optimized_metric"]
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else [str(names)]


def check_optimized_metric(name: str, measured: Sequence[str]) -> None:
    """Refuses a name that the run will not measure: a sweep would search for nothing.

    Raises:
        ConfigError: with the names that there are.
    """
    if name not in measured:
        hint = did_you_mean(name, measured)
        raise ConfigError(f"optimized_metric={name}{hint}: this run measures {', '.join(measured)}")


def best_precision(accelerator: str) -> str:
    """bf16-mixed where the accelerator that Lightning will choose computes in bfloat16, else 32-true."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        has_bfloat16 = torch.cpu._is_avx512_bf16_supported()
    else:
        has_bfloat16 = False  # Apple's GPUs: float32 is as fast
    return "bf16-mixed" if has_bfloat16 else "32-true"


def first_cause(error: BaseException) -> str:
    """The message at the root of hydra's `Error in call to target …`."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return str(error)


# ---- the constructor's signature is the schema


def check_arguments(config: Mapping[str, Any]) -> None:
    """Holds every `_target_` in `config` against its constructor.

    Raises:
        ConfigError: an argument that the constructor does not take (with the nearest that it does), or a
            value of a type or a choice that its annotation does not allow.
    """
    for group in ("model", "reconstruction", "kl", "beta_schedule", "perceptual", "optimizer"):
        node = config.get(group)
        if node and "_target_" not in node:
            raise ConfigError(f"{group}.{next(iter(node))}: nothing is chosen that takes it; choose {group}=… first")
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
                    f"{key}: {target.__name__} takes no such argument{hint}; it takes {', '.join(parameters)}. "
                    f"Where a preset sets it, ~{key} takes it out"
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


register_configuration()  # on import, because a Ray worker composes nothing itself and still needs the resolvers
