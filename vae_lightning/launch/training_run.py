"""One run from its built parts to its metrics: resumes, trains, tests, and stops when a signal asks for it."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from vae_lightning.launch.command_line import resume_command
from vae_lightning.launch.configuration import swept_overrides
from vae_lightning.system.interruption import sigterm_of_the_system

if TYPE_CHECKING:  # torch is imported inside the functions: --help answers at once
    import lightning as L

    from vae_lightning.data import FaceDataModule
    from vae_lightning.training.resuming import Start
    from vae_lightning.training.run_module import RunModule

log = logging.getLogger("vae_lightning")


def run(
    config: Any,
    plain: dict[str, Any],
    module: "RunModule",
    datamodule: "FaceDataModule",
    trainer: "L.Trainer",
) -> dict[str, Any]:
    """Trains, tests the best checkpoint, and writes the files of the run folder; returns the final metrics.

    Raises:
        RunError: training cannot resume from the checkpoint, or not one step was taken.
    """
    from callbacks import log_hyperparameters, say_where_to_look, times_of_fit
    from vae_lightning.runs.layout import METRICS_JSON, RunError, checkpoint_path
    from vae_lightning.system.whole_files import write_json

    run_dir = Path(config.run_dir)
    resume_from = find_start(config, plain, module, trainer)
    with stoppable(trainer, run_dir):
        open_data(config, plain, module, datamodule, trainer, resume_from)
        started = time.perf_counter()
        # several processes stop together, as Lightning arranges it
        with sigterm_of_the_system() if trainer.world_size > 1 else nullcontext():
            trainer.fit(module, datamodule, ckpt_path=resume_from and resume_from.path, weights_only=True)
        check_not_asked_to_stop(trainer)
        if trainer.global_step == 0:
            raise RunError("nothing was trained: not one step was taken, so there is nothing to test and to keep")
        metrics: dict[str, Any] = {"seconds": time.perf_counter() - started, "epochs": trainer.current_epoch}
        metrics |= {**times_of_fit(trainer), **module.best_validation}
        if config.test:
            best = checkpoint_path(run_dir, "best")
            has_best = best.is_file() and bool(module.best_validation)  # else best.ckpt belongs to another objective
            trainer.test(module, datamodule, str(best) if has_best else None, verbose=False, weights_only=True)
            tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
            metrics |= {name: value for name, value in tested.items() if name.startswith("test/")}
            check_not_asked_to_stop(trainer)
    if trainer.is_global_zero:
        write_json(run_dir / METRICS_JSON, metrics)
        log_hyperparameters(plain, swept_overrides(), trainer, metrics)
        say_where_to_look(run_dir, metrics)
    return metrics


def find_start(config: Any, plain: dict[str, Any], module: "RunModule", trainer: "L.Trainer") -> "Start | None":
    """Where training resumes, None for a new one; says so. No data is read.

    Raises:
        RunError: training cannot resume there with these settings.
    """
    from vae_lightning.runs.checkpoints import checkpoint_to_resume
    from vae_lightning.training.resuming import check_architecture, check_start, read_start

    run_dir = Path(config.run_dir)
    path = checkpoint_to_resume(config.ckpt_path, run_dir)
    if path is None:
        return None
    start = read_start(path)
    check_architecture(start, plain, module.state_dict())
    is_own = is_own_checkpoint(config.ckpt_path, run_dir)
    check_start(start, plain, is_own=is_own, num_processes=trainer.world_size)
    if trainer.is_global_zero:
        log.info(start.in_words(plain["trainer"]))
    return start


def is_own_checkpoint(ckpt_path: str | None, run_dir: Path) -> bool:
    """Whether a checkpoint is one of this run itself, which may then be resumed with other settings."""
    from vae_lightning.runs.layout import CHECKPOINTS

    own = (run_dir / CHECKPOINTS).resolve()
    return ckpt_path == "last" or (ckpt_path is not None and Path(ckpt_path).expanduser().resolve().parent == own)


def open_data(
    config: Any,
    plain: dict[str, Any],
    module: "RunModule",
    datamodule: "FaceDataModule",
    trainer: "L.Trainer",
    resume_from: "Start | None",
) -> None:
    """Decodes the data and records them and the settings in the run folder.

    Raises:
        DataError: they cannot be used, or are not those that the run, or the epoch under way, was trained on.
    """
    from callbacks import describe
    from vae_lightning.runs.layout import CONFIG_YAML, DATA_JSON
    from vae_lightning.system.whole_files import write_json

    run_dir = Path(config.run_dir)
    if trainer.is_global_zero and not (run_dir / CONFIG_YAML).is_file():
        write_settings(run_dir, plain, config)
    if trainer.local_rank == 0:
        datamodule.prepare_data()  # may take a minute, or fail: so before Lightning announces the training
        if resume_from is not None:
            is_bound = config.ckpt_path == "last" or resume_from.position.batches is not None
            datamodule.check_unchanged(resume_from.data, resume_from.path, is_same_run=is_bound)
        describe(module, datamodule, trainer, run_dir)
    if trainer.is_global_zero:  # not before: a resumed run whose data cannot be used keeps its record
        write_settings(run_dir, plain, config)
        write_json(run_dir / DATA_JSON, datamodule.record())


def write_settings(run_dir: Path, plain: dict[str, Any], config: Any) -> None:
    """Writes the resolved settings, and Hydra's own record of the run: config, overrides, and settings of Hydra.

    Hydra would write its record before anybody knows whether the run can start, and over the one of an earlier run.
    """
    from vae_lightning.runs.layout import CONFIG_YAML, HYDRA
    from vae_lightning.system.whole_files import replacing

    with replacing(run_dir / CONFIG_YAML) as unfinished:
        unfinished.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if not HydraConfig.initialized():
        return
    hydra: Any = HydraConfig.get()
    (run_dir / HYDRA).mkdir(exist_ok=True)
    record = {"config": config, "hydra": {"hydra": hydra}, "overrides": hydra.overrides.task}
    for name, content in record.items():
        with replacing(run_dir / HYDRA / f"{name}.yaml") as unfinished:
            unfinished.write_text(OmegaConf.to_yaml(content), encoding="utf-8")


def check_not_asked_to_stop(trainer: "L.Trainer") -> None:
    """Stops where a signal came too late for a phase of the trainer to notice it.

    Raises:
        SystemExit: with the exit code of the signal.
    """
    if trainer.received_sigterm or signals_to(trainer):
        raise SystemExit(128 + (signals_to(trainer) or [signal.SIGTERM])[0])


def signals_to(trainer: "L.Trainer") -> list[int]:
    """The signal that has asked to stop after a step, if there was one."""
    from callbacks import StopAfterBatch

    return [each.asked_by for each in trainer.callbacks if isinstance(each, StopAfterBatch) and each.asked_by]  # type: ignore[attr-defined]


@contextmanager
def stoppable(trainer: "L.Trainer", run_dir: Path) -> Iterator[None]:
    """After Ctrl-C or SIGTERM: says how to resume, and ends with the exit code that shells give these signals."""
    from callbacks import requeue, under_submitit
    from vae_lightning.runs.layout import checkpoint_path

    try:
        yield
    except SystemExit as stopped:
        asked_by = signals_to(trainer)
        if not (trainer.interrupted or asked_by or stopped.code == 128 + signal.SIGTERM):
            raise
        last = checkpoint_path(run_dir)
        alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
        how = f"Resume it with: {resume_command(run_dir)}" if last.is_file() and alone else ""
        log.warning(f"Interrupted after {trainer.global_step} steps. {how}")
        # Lightning ends with 1 after Ctrl-C and with 0 after SIGTERM
        signum = asked_by[0] if asked_by else signal.SIGINT if stopped.code == 1 else signal.SIGTERM
        if signum != signal.SIGINT and under_submitit():
            requeue()
        raise SystemExit(128 + signum) from None
