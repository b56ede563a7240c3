"""Train, validate and test one VAE, or with -m one per point of a sweep: python train.py --help."""

import logging
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from vae_lightning.building import build_module
from vae_lightning.command_line import is_sweep, prepare_command_line, remove_unused_folder
from vae_lightning.configuration import (
    CONF_DIR,
    READ_METRICS,
    SHOWN_METRICS,
    first_cause,
    optimized_metrics,
    swept_overrides,
    to_plain,
)
from vae_lightning.help_page import help_page
from vae_lightning.signatures import ConfigError

if TYPE_CHECKING:  # torch and numpy are imported inside the functions: --help and shell completion answer at once
    import lightning as L

    from vae_lightning.data import FaceDataModule
    from vae_lightning.run_module import RunModule

CTRL_C_EXIT_CODE = 130
PICTURES = ("images", "loss_curves.png", "rate_distortion.png")  # in a run folder
log = logging.getLogger("vae_lightning")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> Any:
    """One run, or one job of a sweep. Returns the metrics that a searching sweep optimises.

    Raises:
        CompactHydraException: a setting or the data cannot be used; hydra prints the message without a traceback.
            A job of a grid only logs it, because hydra would end the sweep.
    """
    from callbacks import NonFiniteLossError
    from vae_lightning.data import DataError
    from vae_lightning.run_folders import RunError
    from vae_lightning.run_status import describe_error
    from vae_lightning.sweep import release_memory

    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    if "BasicLauncher" not in hydra_config.launcher._target_:
        config.trainer.enable_progress_bar = False  # nobody sees it: the sweep shows one for all its jobs
    os.chdir(hydra_config.runtime.cwd)  # a Ray worker on another machine starts somewhere else
    try:
        return run_or_skip(config, in_sweep)
    except (ConfigError, DataError, RunError, NonFiniteLossError) as error:
        message = str(error)
    except Exception as error:
        if not in_sweep:
            raise
        log.exception("The job failed")
        message = describe_error(error)
    # after the handlers, where nothing holds the error's frames and their tensors any more
    release_memory()
    if in_sweep and "BasicSweeper" in hydra_config.sweeper._target_:
        log.error(message)
        return None
    raise CompactHydraException(message)


def run_or_skip(config: DictConfig, in_sweep: bool) -> Any:
    """Trains, unless this is a job of a sweep that is done; one that was interrupted goes on."""
    from lightning.pytorch.utilities import rank_zero_only

    from vae_lightning.identity import identity_of
    from vae_lightning.sweep import run_job, run_recorded

    def go_on() -> dict[str, Any]:
        config.ckpt_path = "last"  # also where the job once started from a named checkpoint
        return train(config)

    def fingerprint() -> str:
        return str(instantiate(to_plain(config)["data"]).fingerprint_now())

    run_dir = Path(config.run_dir)
    if rank_zero_only.rank > 0:  # the first process keeps the record for all
        metrics = train(config)
    elif in_sweep:
        metrics = run_job(run_dir, identity_of(config), fingerprint, lambda: train(config), go_on)
    else:
        metrics = run_recorded(run_dir, identity_of(config), lambda: train(config))
    values = tuple(metrics[name] for name in optimized_metrics(config))
    return values[0] if len(values) == 1 else values


def train(config: DictConfig) -> dict[str, Any]:
    """Builds everything and runs it.

    Raises:
        ConfigError: parts that do not fit each other, or an argument that its class refuses.
    """
    plain = to_plain(config)
    try:
        built = build(config, plain)
    except (ValueError, InstantiationException) as error:
        raise ConfigError(first_cause(error)) from error
    return run(config, plain, *built)


def check(config: DictConfig, runs_here: bool) -> None:
    """Builds a job's parts and throws them away; `config` is without hydra's node.

    Raises:
        ConfigError: the job cannot work.
    """
    from callbacks import quieten_lightning

    try:
        plain = to_plain(config, runs_here=runs_here)
        instantiate(plain["data"])
        quieten_lightning()
        make_callbacks(plain["callbacks"], build_module(plain))
    except (ValueError, InstantiationException) as error:
        raise ConfigError(first_cause(error)) from error


def build(config: DictConfig, plain: dict[str, Any]) -> "tuple[RunModule, FaceDataModule, L.Trainer]":
    """Instantiates everything and checks what must fit each other; no data is read.

    Raises:
        ValueError: parts that do not fit each other, or an argument that its class refuses.
    """
    from callbacks import ProgressBar, quieten_lightning
    from vae_lightning.run_module import check_trainer

    quieten_lightning()
    module = build_module(plain)
    datamodule = instantiate(plain["data"])
    callbacks = make_callbacks(plain["callbacks"], module)
    if plain["trainer"].get("enable_progress_bar", True):
        callbacks.append(ProgressBar())
    loggers = [instantiate(node) for node in plain["logger"].values()]
    trainer = instantiate(
        plain["trainer"], callbacks=callbacks, logger=loggers or False, default_root_dir=config.run_dir
    )
    check_trainer(module, trainer, bool(plain["trainer"].get("sync_batchnorm")))
    return module, datamodule, trainer


def make_callbacks(nodes: dict[str, Any], module: "RunModule") -> "list[L.Callback]":
    """The callbacks that fit what is trained, in the order in which they have to be called."""
    from callbacks import select_callbacks

    for name in (name for name, node in nodes.items() if "_target_" not in node):
        log.warning(f"callbacks.{name} is set and not chosen, so it does nothing: add it to callbacks=[…]")
    chosen = {name: instantiate(node) for name, node in nodes.items() if "_target_" in node}
    return select_callbacks(chosen, module)


def run(
    config: DictConfig,
    plain: dict[str, Any],
    module: "RunModule",
    datamodule: "FaceDataModule",
    trainer: "L.Trainer",
) -> dict[str, Any]:
    """Fits, tests the best checkpoint, writes what the run folder holds; returns the final metrics."""
    from callbacks import log_hyperparameters, times_of_fit
    from vae_lightning.checkpoints import checkpoint_to_resume
    from vae_lightning.files import replacing, write_json

    run_dir = Path(config.run_dir)
    resume_from = checkpoint_to_resume(config.ckpt_path, run_dir)
    if trainer.is_global_zero:
        with replacing(run_dir / "config.yaml") as unfinished:
            unfinished.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if trainer.local_rank == 0:
        datamodule.prepare_data()  # before Lightning announces the training: it may take a minute, and may fail
        describe(module, datamodule, trainer, run_dir)
    if trainer.is_global_zero:
        write_json(run_dir / "data.json", datamodule.record())
    started = time.perf_counter()
    fit(trainer, module, datamodule, resume_from, run_dir)
    metrics: dict[str, Any] = {"seconds": time.perf_counter() - started, "epochs": trainer.current_epoch}
    metrics |= {**times_of_fit(trainer), **module.best_validation}
    if config.test:
        best = run_dir / "checkpoints" / "best.ckpt"
        trainer.test(module, datamodule, str(best) if best.is_file() else None, verbose=False, weights_only=True)
        tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics |= {name: value for name, value in tested.items() if name.startswith("test/")}
    if trainer.is_global_zero:
        write_json(run_dir / "metrics.json", metrics)
        log_hyperparameters(plain, swept_overrides(), trainer, metrics)
        say_where_to_look(run_dir, metrics)
    return metrics


def describe(module: "RunModule", datamodule: "FaceDataModule", trainer: "L.Trainer", run_dir: Path) -> None:
    """What is about to happen, and how to watch it."""
    from callbacks import event_folders, tensorboard_command

    data = datamodule.record()
    log.info(
        f"{module.summary} on {data['train_count']:,} {data['source']} images of "
        f"{data['image_size']}x{data['image_size']} ({data['val_count']:,} for validation) · "
        f"{trainer.strategy.root_device.type} {trainer.precision} · {run_dir}"
    )
    for folder in event_folders(trainer.loggers):
        log.info(f"Watch it with: {tensorboard_command(folder)}")


def fit(
    trainer: "L.Trainer", module: "RunModule", datamodule: "FaceDataModule", resume_from: Path | None, run_dir: Path
) -> None:
    """Trains; Ctrl-C and SIGTERM leave a checkpoint and say how to go on."""
    from callbacks import StopAfterBatch, queue_again, under_submitit

    try:
        trainer.fit(module, datamodule, ckpt_path=resume_from, weights_only=True)
    except SystemExit as stopped:
        if not trainer.interrupted:
            raise
        last = run_dir / "checkpoints" / "last.ckpt"
        alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
        folder = shlex.quote(f"hydra.run.dir={run_dir}")
        how = f"Go on with: python train.py ckpt_path=last {folder}" if last.is_file() and alone else ""
        log.warning(f"Interrupted after {trainer.global_step} steps. {how}")
        asked_by = [each.asked_by for each in trainer.callbacks if isinstance(each, StopAfterBatch) and each.asked_by]  # type: ignore[attr-defined]
        # Lightning ends with 1 after Ctrl-C and with 0 after SIGTERM
        signum = asked_by[0] if asked_by else signal.SIGINT if stopped.code == 1 else signal.SIGTERM
        if signum != signal.SIGINT and under_submitit():
            queue_again()
        raise SystemExit(128 + signum) from None


def say_where_to_look(run_dir: Path, metrics: dict[str, Any]) -> None:
    """The last words of a run: the numbers that compare runs, and the commands that show the pictures."""
    from callbacks import tensorboard_command

    for split, name in (("val", "validation, best epoch"), ("test", "test, best epoch")):
        if f"{split}/loss" in metrics:
            shown = [key for key in dict.fromkeys((*SHOWN_METRICS, *READ_METRICS)) if f"{split}/{key}" in metrics]
            values = (f"{key} {metrics[f'{split}/{key}']:.4g}" for key in shown)
            log.info(f"{name + ':':24}{', '.join(values)}")
    here = Path.cwd()
    run_dir = run_dir.relative_to(here) if run_dir.is_relative_to(here) else run_dir
    pictures = [str(path) for name in PICTURES if (path := run_dir / name).exists()]
    folder = shlex.quote(str(run_dir))
    draws = "sample" if "val/kl_nats" in metrics else "reconstruct"
    uses = f"vae {draws} {folder}  and  vae evaluate {folder}  and  vae explore {folder}"
    if not {"val/mse", "test/mse"} & set(metrics):
        uses = f"vae edit guide RUN ATTRIBUTE --classifier {folder}  or  vae edit score RUN ATTRIBUTE --judge {folder}"
    has_events = any(run_dir.glob("events.out.tfevents.*"))
    log.info(
        f"\nPictures    {'  and  '.join(pictures) or 'none: callbacks=[…] draws none'}\n"
        f"Dashboard   {tensorboard_command(run_dir) if has_events else 'none: logger=[…] is without tensorboard'}\n"
        f"Use it      {uses}"
    )


def start(typed: list[str]) -> int:
    """The whole program: a run, a sweep, or what hydra prints about them. Returns the exit code."""
    sys.argv[1:] = prepare_command_line(typed, CONF_DIR)
    if {"-h", "--help"} & set(typed):
        try:
            sys.stdout.write(help_page(typed, CONF_DIR))
        except HydraException as error:
            sys.stderr.write(f"{error}\n")
            return 1
        return 0
    if not is_sweep(typed):
        try:
            main()
        finally:
            remove_unused_folder(sys.argv[1:], typed)
        return 0
    from vae_lightning.sweep import conduct

    return conduct(sys.argv[1:], typed, CONF_DIR, check, main)


if __name__ == "__main__":
    try:
        sys.exit(start(sys.argv[1:]))
    except KeyboardInterrupt:  # before or after the fit, which handles it itself
        sys.stderr.write("Interrupted; what was half done is thrown away, the same command starts again.\n")
        sys.exit(CTRL_C_EXIT_CODE)
