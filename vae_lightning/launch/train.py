"""Trains one model, or one for each job of a sweep: `python train.py` and `vae train` start here."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate

from vae_lightning.launch.building import build_module, build_part, build_trainer, chosen, try_trainer
from vae_lightning.launch.command_line import (
    help_page,
    is_sweep,
    prepare_command_line,
    resume_command,
)
from vae_lightning.launch.configuration import CONF_DIR, first_cause, optimized_metrics, to_plain
from vae_lightning.launch.folders import no_empty_folder
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.training_run import is_own_checkpoint, run
from vae_lightning.runs.identity import identity_of
from vae_lightning.system.interruption import stop_by_exception
from vae_lightning.system.terminal import make_output_safe
from vae_lightning.system.whole_files import storage_error

if TYPE_CHECKING:  # torch and numpy are imported inside the functions: --help and shell completion answer at once
    import lightning as L

    from vae_lightning.data import FaceDataModule
    from vae_lightning.training.run_module import RunModule

CTRL_C_EXIT_CODE = 130
log = logging.getLogger("vae_lightning")


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")
def main(config: Any) -> Any:
    """Trains one run, or one job of a sweep. Returns the metrics that a searching sweep optimises.

    Raises:
        SystemExit: a setting or the data cannot be used; the message is one line. A job of a grid only logs it.
        CompactHydraException: the same in a job of a search, which counts the job as failed.
    """
    from callbacks import NonFiniteLossError, quieten_event_writer
    from vae_lightning.data import DataError
    from vae_lightning.launch.job import has_checkpoint, release_memory
    from vae_lightning.runs.layout import RunError
    from vae_lightning.runs.status import describe_error

    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    if "BasicLauncher" not in hydra_config.launcher._target_:
        config.trainer.enable_progress_bar = False  # the sweep shows one bar for all its jobs
    os.chdir(hydra_config.runtime.cwd)  # a Ray worker on another machine starts somewhere else
    quieten_event_writer()
    stuck = None
    try:
        return values_to_optimize(config, train_unless_done(config, in_sweep))
    except (ConfigError, DataError, RunError, NonFiniteLossError) as error:
        message = str(error)
    except Exception as error:
        stuck = storage_error(error, Path(config.run_dir))
        if stuck is None and not in_sweep:
            raise
        if stuck is None:
            log.exception("The job failed")
        message = str(stuck or describe_error(error))
    if stuck and not in_sweep and has_checkpoint(Path(config.run_dir)):
        message += f". Then resume it with: {resume_command(config.run_dir)}"
    # only here, after the handlers: until then the error's frames hold tensors
    release_memory()
    if in_sweep and "BasicSweeper" in hydra_config.sweeper._target_:
        log.error(message)
        if stuck and "BasicLauncher" in hydra_config.launcher._target_:
            sys.exit(1)  # no other job could write there either
        return None
    if in_sweep:
        raise CompactHydraException(message)
    sys.stderr.write(f"{message}\n")
    sys.exit(1)


def train_unless_done(config: Any, in_sweep: bool) -> dict[str, Any]:
    """Trains while no other process can use the run folder; resumes an interrupted run, and keeps a finished one.

    Raises:
        RunError: another process uses the folder, or it holds another run.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from vae_lightning.launch.job import (
        finished_metrics,
        has_checkpoint,
        nothing_left_if_refused,
        say_where_it_starts,
        session_of,
    )
    from vae_lightning.runs.status import claimed, recorded
    from vae_lightning.runs.versions import made_with

    run_dir, identity = Path(config.run_dir), identity_of(config)
    is_first = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # one of several processes writes the record
    with claimed(run_dir) if is_first else nullcontext(), nothing_left_if_refused(run_dir, in_sweep):
        if in_sweep or not is_own_checkpoint(config.ckpt_path, run_dir):
            metrics = finished_metrics(run_dir, identity, config)
            if metrics is not None:
                if is_first:
                    say_done(config, metrics, in_sweep)
                return metrics
            if is_first:
                say_where_it_starts(run_dir, in_sweep)
            if has_checkpoint(run_dir):
                config.ckpt_path = "last"  # also where the job once started from a named checkpoint
        with recorded(run_dir, identity, session_of(run_dir), made_with()) if is_first else nullcontext():
            return train(config)


def say_done(config: Any, metrics: dict[str, Any], in_sweep: bool) -> None:
    """Tells about a run that was finished before: its results, and what has changed since."""
    from callbacks import say_where_to_look
    from vae_lightning.launch.job import has_checkpoint, warn_of_changes

    run_dir = Path(config.run_dir)
    log.info(f"{run_dir.name} is done already")
    warn_of_changes(run_dir, lambda: dict(instantiate(to_plain(config)["data"]).marks_now()))
    if not in_sweep:
        say_where_to_look(run_dir, metrics)
        if has_checkpoint(run_dir):
            log.info(f"Train longer  {resume_command(run_dir)} trainer.max_epochs=…")


def values_to_optimize(config: Any, metrics: dict[str, Any]) -> Any:
    """The metric, or the tuple of several, that a searching sweep optimises."""
    values = tuple(metrics.get(name) for name in optimized_metrics(config))
    if None in values:
        log.warning("Training ended before its first validation, so a search has no value of this job")
    return values[0] if len(values) == 1 else values


def train(config: Any) -> dict[str, Any]:
    """Builds model, data and trainer, and runs the training.

    Raises:
        ConfigError: parts that do not fit each other, or an argument that its class refuses.
    """
    plain = to_plain(config)
    try:
        built = build(config, plain)
    except (ValueError, InstantiationException) as error:
        raise ConfigError(first_cause(error)) from error
    return run(config, plain, *built)


def check(config: Any, runs_here: bool) -> None:
    """Checks a job of a sweep by building its parts, which are thrown away.

    Args:
        config: without a node `hydra`; a composed configuration, or its resolved content.
        runs_here: whether this machine's devices are those of the job.

    Raises:
        ConfigError: the job cannot work.
    """
    from callbacks import quieten_lightning

    try:
        plain = to_plain(config, runs_here=runs_here)
        build_part(plain["data"])
        quieten_lightning()
        module = build_module(plain)
        try_trainer(plain["trainer"], module, make_callbacks(plain, module), runs_here=runs_here)
    except (ValueError, InstantiationException) as error:
        raise ConfigError(first_cause(error)) from error


def build(config: Any, plain: dict[str, Any]) -> "tuple[RunModule, FaceDataModule, L.Trainer]":
    """Builds model, data and trainer, and checks that they fit each other; no data is read.

    Raises:
        ValueError: parts that do not fit each other, or an argument that its class refuses.
    """
    from callbacks import Continuation, LastValidation, ProgressBar, WholeCheckpoints, quieten_lightning, shown_progress

    quieten_lightning()
    module = build_module(plain)
    datamodule = instantiate(plain["data"])
    callbacks = [Continuation(), LastValidation(), *make_callbacks(plain, module)]
    if plain["trainer"].get("enable_progress_bar", True):
        callbacks.append(shown_progress())
    has_bar = isinstance(callbacks[-1], ProgressBar)  # else Lightning would add its own
    settings = {**plain["trainer"], "enable_progress_bar": has_bar}
    loggers = [instantiate(node) for node in chosen(plain["logger"], "logger").values()]
    trainer = build_trainer(settings, module, callbacks, loggers, [WholeCheckpoints()], config.run_dir)
    return module, datamodule, trainer


def make_callbacks(plain: dict[str, Any], module: "RunModule") -> "list[L.Callback]":
    """The chosen callbacks in the order in which they must be called, without those of another kind of model."""
    from callbacks import select_callbacks

    built = {name: build_part(node) for name, node in chosen(plain["callbacks"], "callbacks").items()}
    return select_callbacks(built, module, plain["trainer"])


def start(typed: list[str]) -> int:
    """Runs the whole program: a run, a sweep, or a question that Hydra answers. Returns the exit code."""
    stop_by_exception()
    make_output_safe()
    try:
        return run_command_line(typed)
    except KeyboardInterrupt:  # before or after the fit, which handles it itself
        sys.stderr.write("Interrupted before training began, or after it had ended. The same command starts again.\n")
        return CTRL_C_EXIT_CODE
    except OSError as error:
        stuck = storage_error(error, Path())
        if stuck is None:
            raise
        sys.stderr.write(f"{stuck}\n")
        return 1


def run_command_line(typed: list[str]) -> int:
    sys.argv[1:] = prepare_command_line(typed, CONF_DIR)
    if {"-h", "--help"} & set(typed):
        try:
            sys.stdout.write(help_page(typed, CONF_DIR))
        except HydraException as error:
            sys.stderr.write(f"{error}\n")
            return 1
        return 0
    with no_empty_folder(sys.argv[1:], typed):
        if is_sweep(sys.argv[1:]):
            from vae_lightning.launch.sweep import run_sweep

            return run_sweep(sys.argv[1:], typed, CONF_DIR, check, main)
        main()
    return 0
