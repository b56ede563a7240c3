"""Types the root keys of the configuration, and checks a composed configuration before anything is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.launch.hardware import best_precision, check_accelerator, check_compile, check_precision
from vae_lightning.launch.inheritance import with_inherited
from vae_lightning.launch.signatures import GROUPS_OF_ONE, ConfigError, check_arguments
from vae_lightning.launch.trainer_settings import check_trainer_settings
from vae_lightning.runs.identity import job_folder
from vae_lightning.system.names import not_allowed
from vae_lightning.system.repository import REPOSITORY

CONF_DIR = REPOSITORY / "conf"
OF_HYDRA = (Path("hydra/help"), Path("hydra/job_logging"), Path("hydra/hydra_logging"))  # groups with nothing to choose
LISTS = ("callbacks", "logger")  # groups of which several are chosen
NEEDED = ("data", "optimizer", "lr_schedule", "trainer")  # by every training
LARGEST_SEED = 2**32 - 1  # NumPy takes no other


@dataclass
class RootConfig:
    """Types of the root keys: hydra refuses other keys, and values of other types."""

    beta: float = 1.0
    posterior: str = "gaussian"
    seed: int = 0
    compile: str = "off"
    ckpt_path: str | None = None
    test: bool = True
    sweep: str | None = None
    optimized_metric: Any = "val/loss"
    run_dir: str = MISSING
    data: Any = MISSING
    model: Any = None
    reconstruction: Any = None
    kl: Any = None
    beta_schedule: Any = None
    perceptual: Any = None
    recognizer: Any = None
    optimizer: Any = MISSING
    lr_schedule: Any = MISSING
    trainer: Any = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


def register_configuration() -> None:
    """Registers the root schema and the resolvers of conf/ with Hydra."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("choices", list_choices, replace=True)
    OmegaConf.register_new_resolver("choose", choose, replace=True)


def choose(value: Any, results: dict[Any, Any], otherwise: Any) -> Any:
    """`${choose:${beta},{1:10},5}` is 10 at beta=1, else 5: a setting of a preset that depends on another one."""
    return results.get(value, otherwise)


def run_folder() -> str:
    """The folder that Hydra has made for this run, or would make (`--cfg job --resolve` makes none)."""
    hydra: Any = HydraConfig.get()
    return str(hydra.runtime.get("output_dir") or hydra.run.dir)


def swept_overrides() -> dict[str, str]:
    """The overrides in which this job differs from others of its sweep; empty outside of a sweep."""
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
    """Resolves and checks a composed configuration; returns dicts, lists and numbers, without `trainer.precision=auto`.

    Of a configuration that is resolved already, a dict, only the precision is set.

    Raises:
        ConfigError: a value that no run can use. This machine's devices are checked only if the run `runs_here`.
    """
    plain = {str(name): value for name, value in (config if isinstance(config, dict) else resolved(config)).items()}
    check_groups(plain)
    plain = with_inherited(plain)
    if not 0 <= plain["seed"] <= LARGEST_SEED:
        raise ConfigError(f"seed={plain['seed']}: must be a whole number from 0 to {LARGEST_SEED}")
    for name in optimized_metrics(plain):
        if name not in measured_metrics(plain):
            raise ConfigError(not_allowed("optimized_metric", name, measured_metrics(plain)))
    if runs_here:
        check_accelerator(plain["trainer"].get("accelerator", "auto"))
    accelerator = plain["trainer"].get("accelerator", "auto")
    if plain["trainer"].get("precision") == "auto":
        plain["trainer"] = {**plain["trainer"], "precision": best_precision(accelerator)}
    check_precision(str(plain["trainer"].get("precision", "32-true")), accelerator, runs_here=runs_here)
    check_compile(plain["compile"], accelerator, runs_here=runs_here)
    check_arguments(plain)
    check_trainer_settings(plain["trainer"])
    check_loggers(plain)
    return plain


def resolved(config: Any) -> dict[Any, Any]:
    """A composed configuration as dicts, lists and plain values.

    Raises:
        ConfigError: a missing value, or a reference to one.
    """
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key), str(error).splitlines()[0]
        raise ConfigError(f"{key}: {f'allowed are {choices_of(key)}' if key in NEEDED else reason}") from error
    assert isinstance(container, dict)
    return container


def choices_of(group: str) -> str:
    return ", ".join(path.stem for path in sorted((CONF_DIR / group).glob("*.yaml")))


def check_groups(plain: Mapping[str, Any]) -> None:
    """Checks that every group holds what can be built.

    Raises:
        ConfigError: null or one value in place of a part, or in place of the list of callbacks or loggers.
    """
    for group in {*GROUPS_OF_ONE, *NEEDED, *LISTS}:
        node = plain.get(group)
        choices = choices_of(group)
        none = f"; {group}=[] for none" if group in LISTS else ""
        if (node is None and group in NEEDED) or not isinstance(node, Mapping | None):
            raise ConfigError(f"{group}={'null' if node is None else node}: allowed are {choices}{none}")
        for name, child in (node or {}).items() if group in LISTS else ():
            if not isinstance(child, Mapping):
                shown = "null" if child is None else child
                raise ConfigError(
                    f"{group}.{name}={shown}: leave {name} out of {group}=[…]; allowed are {choices}{none}"
                )


def check_loggers(plain: Mapping[str, Any]) -> None:
    """Checks that metrics.csv is written if its curves are to be drawn.

    Raises:
        ConfigError: it is not.
    """
    chosen, loggers = ([node.get("_target_") for node in plain[group].values()] for group in ("callbacks", "logger"))
    if "callbacks.LossCurves" in chosen and "callbacks.MetricsCsv" not in loggers:
        raise ConfigError("callbacks=[loss_curves] draws metrics.csv: add csv to logger=[…], or leave it out")


def measured_metrics(plain: Mapping[str, Any]) -> list[str]:
    """The metrics that the run will measure, which a search may optimise."""
    from vae_lightning.training.statistics import METRICS_OF_KL, READ_METRICS, SHOWN_METRICS

    if plain["recognizer"]:
        reads_factors = plain["recognizer"].get("target") == "factors"
        metrics = [name for name in READ_METRICS if name == "loss" or (name == "r_squared") == reads_factors]
    else:
        is_vae = plain["model"] and plain["model"].get("posterior") != "deterministic"
        metrics = [metric for metric in SHOWN_METRICS if is_vae or metric not in METRICS_OF_KL]
    splits = ("val", "test") if plain["test"] else ("val",)
    return [f"{split}/{metric}" for split in splits for metric in metrics]


def optimized_metrics(plain: Mapping[str, Any]) -> list[str]:
    """The metrics that a search optimises: one, or several as a trade-off."""
    names = plain["optimized_metric"]
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else [str(names)]


def first_cause(error: BaseException) -> str:
    """The message at the root of hydra's `Error in call to target …`."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return str(error)


register_configuration()  # on import: a Ray worker composes nothing, but needs the resolvers
