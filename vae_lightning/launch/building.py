"""Builds from a resolved configuration what it trains: a VAE with its objective, or a classifier or regressor."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from vae_lightning.launch.configuration import first_cause
from vae_lightning.launch.parts_in_common import built_once, is_only_planned
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.system.processors import memory_bytes
from vae_lightning.system.terminal import command

if TYPE_CHECKING:  # torch is imported inside the functions: --help answers at once
    import lightning as L
    from lightning.pytorch.loggers import Logger
    from torch.optim import Optimizer

    from vae_lightning.losses import ReconstructionLoss
    from vae_lightning.models import Autoencoder
    from vae_lightning.recognition.module import RecognizerModule
    from vae_lightning.recognition.network import Recognizer
    from vae_lightning.training.run_module import RunModule
    from vae_lightning.training.vae_module import VAEModule

log = logging.getLogger("vae_lightning")

NO_MEMORY = re.compile(r"not enough memory|allocate|[Oo]verflow|out of memory")  # PyTorch has no class for this error
PARTS_OF_A_VAE = ("model", "reconstruction", "kl", "beta_schedule", "perceptual")
NOT_NEGATIVE = ("lr", "weight_decay", "eps")  # of an optimizer
OF_THE_WHOLE_PROCESS = ("benchmark", "deterministic")  # a Trainer sets these for good when it is made
ENVIRONMENT = "lightning.fabric.plugins.environments.lightning.LightningEnvironment"
NEEDED_BY_A_VAE = ("model", "reconstruction", "kl", "beta_schedule")


def build_module(plain: dict[str, Any]) -> "RunModule":
    """Builds what is trained, with initial weights that `seed` decides; no data is read.

    Raises:
        ConfigError: as `check_parts`.
        ValueError: an argument that its class refuses, or parts that do not fit each other.
    """
    import lightning as L

    check_parts(plain)
    L.seed_everything(plain["seed"], workers=True, verbose=False)
    return build_recognizer(plain) if plain["recognizer"] else build_vae(plain)


def check_parts(plain: dict[str, Any]) -> None:
    """Checks that the parts of a VAE, or a recognizer, are chosen.

    Raises:
        ConfigError: both are chosen, or a part of a VAE is missing.
    """
    chosen = [name for name in PARTS_OF_A_VAE if plain[name]]
    if plain["recognizer"] and chosen:
        raise ConfigError(
            f"recognizer=… trains an attribute classifier or a factor regressor, and "
            f"{', '.join(f'{name}=…' for name in chosen)} are parts of a VAE: choose "
            "experiment=attribute_classifier or factor_regressor, without them"
        )
    missing = [name for name in NEEDED_BY_A_VAE if not plain[name]]
    if missing and not plain["recognizer"]:
        raise ConfigError(f"{missing[0]}=null: a VAE needs one; {command('python train.py --help')} lists the choices")


def build_vae(plain: dict[str, Any]) -> "VAEModule":
    from vae_lightning.losses import KLTerm, Objective
    from vae_lightning.runs.checkpoints import record_of
    from vae_lightning.runs.parts import find_class
    from vae_lightning.training.vae_module import VAEModule

    model = build_model(plain["model"])
    find_class(KLTerm, plain["kl"]["_target_"])  # a model card names it by its class
    objective = Objective(
        reconstruction=build_reconstruction(plain["reconstruction"]),
        beta=plain["beta"],
        beta_schedule=build_part(plain["beta_schedule"]),
        kl=build_part(plain["kl"]),
        perceptual=build_part(plain["perceptual"]),
    )
    warn_about_ignored(plain, model)
    return VAEModule(
        model,
        objective,
        build_optimizer(plain["optimizer"]),
        plain["seed"],
        record_of(plain),
        compile=plain["compile"],
        lr_schedule=build_part(plain["lr_schedule"]),
    )


@built_once
def build_part(config: Any) -> Any:
    """Builds what `_target_` names; None of null."""
    return instantiate(config)


@built_once
def build_reconstruction(config: dict[str, Any]) -> "ReconstructionLoss":
    from vae_lightning.losses import ReconstructionLoss
    from vae_lightning.runs.parts import check_can_be_loaded

    reconstruction: ReconstructionLoss = instantiate(config)
    check_can_be_loaded(reconstruction, ReconstructionLoss, config)
    return reconstruction


@built_once
def build_model(config: dict[str, Any]) -> "Autoencoder":
    """Builds the network of a VAE, in a plan without its weights.

    Raises:
        ConfigError: the weights do not fit into memory.
        InstantiationException: an argument that the class refuses.
        RunError: its checkpoint could not be loaded again.
    """
    import torch

    from vae_lightning.models import Autoencoder
    from vae_lightning.runs.parts import check_can_be_loaded

    try:
        with torch.device("meta") if is_only_planned() else nullcontext():
            model: Autoencoder = instantiate(config)
    except InstantiationException as error:
        reason = first_cause(error).partition("\n")[0].rpartition("Allocator: ")[2]
        if not NO_MEMORY.search(reason):
            raise
        raise ConfigError(_do_not_fit(config, reason)) from error
    needed, there = sum(tensor.nbytes for tensor in model.state_dict().values()), memory_bytes()
    if is_only_planned() and needed > there:  # nothing was allocated
        reason = f"they take {needed / 2**30:,.0f} GiB, this machine has {there / 2**30:,.0f} GiB"
        raise ConfigError(_do_not_fit(config, reason))
    check_can_be_loaded(model, Autoencoder, config, on_meta=True)
    return model


def _do_not_fit(config: dict[str, Any], reason: str) -> str:
    named = [name for name in ("latent_dim", "latent_channels", "widths", "decoder_widths") if config.get(name)]
    sizes = ", ".join(f"model.{name}={config[name]}" for name in named)
    return f"{sizes}: the weights do not fit into memory ({reason})"


def build_recognizer(plain: dict[str, Any]) -> "RecognizerModule":
    from vae_lightning.recognition.module import RecognizerModule
    from vae_lightning.recognition.network import check_source, find_weights
    from vae_lightning.runs.checkpoints import record_of

    config = plain["recognizer"]
    check_source(config["target"], plain["data"]["source"])
    ignored = [f"beta={plain['beta']:g}"] if plain["beta"] != 1.0 else []
    ignored += [f"posterior={plain['posterior']}"] if plain["posterior"] != "gaussian" else []
    if ignored:
        log.warning(f"recognizer=… trains no VAE, so this has no effect: {', '.join(ignored)}")
    network = build_network(config)
    start = find_weights(config["weights"])
    log.info(f"The recognizer starts from {start or 'random weights'}")
    config["weights"] = str(start or "none")  # the record names the file that was used
    return RecognizerModule(
        network,
        build_optimizer(plain["optimizer"]),
        record_of(plain),
        compile=plain["compile"],
        lr_schedule=build_part(plain["lr_schedule"]),
    )


@built_once
def build_network(config: dict[str, Any]) -> "Recognizer":
    from vae_lightning.recognition.network import Recognizer
    from vae_lightning.runs.parts import check_can_be_loaded

    network: Recognizer = instantiate(config)
    check_can_be_loaded(network, Recognizer, {**config, "weights": "none"})
    return network


@built_once
def build_optimizer(config: Any) -> "Callable[..., Optimizer]":
    """Returns what makes an optimizer of parameters, after a trial on one: bad settings fail before data are read.

    Raises:
        ConfigError: a value that the optimizer refuses, or that makes every weight nan.
    """
    import torch

    for key, number in _numbers("optimizer", config):
        is_signed = key.rpartition(".")[2] not in NOT_NEGATIVE
        if not math.isfinite(number) or (number < 0 and not is_signed):
            raise ConfigError(f"{key}={number}: must be a finite number{'' if is_signed else ', 0 or larger'}")
    make_optimizer: Callable[..., Optimizer] = instantiate(config)
    try:
        make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError, LookupError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(f"optimizer=…: {config['_target_']} refuses its settings: {first_line}") from error
    return make_optimizer


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """All numbers in nested dicts and lists, with their keys."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _numbers(f"{key}.{name}", each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(key, each)
    elif isinstance(value, int | float):
        yield key, value


def build_trainer(
    settings: dict[str, Any],
    module: "RunModule",
    callbacks: "list[L.Callback]",
    loggers: "list[Logger]",
    plugins: list[Any],
    run_dir: str,
) -> "L.Trainer":
    """Builds the trainer from the configuration's `trainer`; `plugins` are added to those that it names.

    Raises:
        ConfigError: Lightning refuses a setting.
        ValueError: as `check_trainer`.
    """
    from vae_lightning.launch.trainer_settings import check_trainer

    trainer = _make_trainer(settings, callbacks, loggers, plugins, run_dir)
    check_trainer(module, trainer, bool(settings.get("sync_batchnorm")))
    return trainer


@built_once
def _make_trainer(
    settings: dict[str, Any], callbacks: "list[L.Callback]", loggers: "list[Logger]", plugins: list[Any], run_dir: str
) -> "L.Trainer":
    try:
        trainer: L.Trainer = instantiate(
            settings,
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[*plugins, *instantiate(settings.get("plugins") or [])],
            default_root_dir=run_dir,
        )
    except InstantiationException as error:
        raise ConfigError(f"trainer=…: Lightning refuses its settings: {first_cause(error)}") from error
    return trainer


def try_trainer(
    settings: dict[str, Any], module: "RunModule", callbacks: "list[L.Callback]", *, runs_here: bool
) -> None:
    """Checks settings by building a trainer, which is thrown away; devices only if the job `runs_here`.

    Raises:
        ConfigError, ValueError: as `build_trainer`.
    """
    tried = {name: value for name, value in settings.items() if name not in OF_THE_WHOLE_PROCESS}
    plugins = []
    if not runs_here:
        tried |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}
        tried.pop("plugins", None)
        # else the SLURM job that a sweep is started in would be checked
        plugins.append(build_part({"_target_": ENVIRONMENT}))
    build_trainer({**tried, "enable_progress_bar": False}, module, callbacks, [], plugins, "")


def chosen(nodes: dict[str, Any], group: str) -> dict[str, Any]:
    """The callbacks or loggers that are chosen; a preset may set those of another choice."""
    for name in (name for name, node in nodes.items() if "_target_" not in node):
        log.warning(f"{group}.{name} is set but not chosen, so it does nothing: add {name} to {group}=[…]")
    return {name: node for name, node in nodes.items() if "_target_" in node}


def warn_about_ignored(plain: dict[str, Any], model: "Autoencoder") -> None:
    """Warns about settings of the KL term of a model without one, a deterministic autoencoder."""
    if model.has_prior:
        return
    charges = {name: str(plain[name]["_target_"]).rpartition(".")[2] for name in ("kl", "beta_schedule")}
    ignored = [f"beta={plain['beta']:g}"] if plain["beta"] != 1.0 else []
    ignored += [f"{name} ({target})" for name, target in charges.items() if target not in ("AnalyticKL", "Constant")]
    if ignored:
        log.warning(f"posterior=deterministic has no KL, so this has no effect: {', '.join(ignored)}")
