"""Chooses what runs the jobs of a sweep, checks that it can be used here, and how many jobs it runs at once."""

import shutil
from collections.abc import Sequence
from typing import Any

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.engine import Engine, num_gpus
from vae_lightning.launch.trainer_settings import check_devices
from vae_lightning.system.extras import check_extra
from vae_lightning.system.terminal import command

EXTRAS = {"ray": "hydra_ray_launcher", "slurm": "hydra_submitit_launcher", "optuna": "hydra_optuna_sweeper"}
NEEDED_BY = {
    "hydra/launcher=local_gpus": "ray",
    "hydra/launcher=share_gpu": "ray",
    "hydra/launcher=ray_cluster": "ray",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=slurm": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hparams_search=rate_distortion": "optuna",
    "hydra/sweeper=optuna": "optuna",
}
SHORTEST_SLURM_MINUTES = 60  # submitit reads a preemption in the last ten minutes as a time-out


def check_extras(arguments: Sequence[str]) -> None:
    """Checks that the plugin of the chosen launcher or sweeper is installed.

    Raises:
        MissingExtraError: it is not; the message names the extra to install.
    """
    for choice, extra in NEEDED_BY.items():
        if choice in arguments:
            check_extra(extra, choice, f"hydra_plugins.{EXTRAS[extra]}")


def choose_engine(base: Any, num_jobs: int | None) -> Engine:
    """The engine that the configuration names.

    Args:
        base: composed configuration with Hydra's node, and with the defaults of swept keys.
        num_jobs: in the sweep; None for a search.

    Raises:
        ConfigError: the engine would hang, or use the wrong device.
    """
    target = str(base.hydra.launcher._target_).rpartition(".")[2]
    if target == "RayLauncher":
        from vae_lightning.launch.sweep.ray_engine import ray_engine

        engine = ray_engine(base.hydra.launcher.ray, base.trainer, num_jobs)
    elif target == "SlurmLauncher":
        engine = slurm_engine(base.hydra.launcher)
    elif target == "LocalLauncher":
        raise ConfigError(
            "hydra/launcher=submitit_local starts all jobs at once, on the first GPU; "
            "hydra/launcher=local_gpus gives each its own, one after another where there are more jobs than GPUs"
        )
    else:
        engine = Engine("basic" if target == "BasicLauncher" else target)
    return engine


def refuse_several_devices(trainer: Any) -> None:
    """Checks that a job of a sweep needs one process only.

    Raises:
        ConfigError: Lightning would start more, each with the command line of the whole sweep; or as `check_devices`.
    """
    check_devices(trainer)
    count = _num_processes(trainer)
    if count > 1:
        raise ConfigError(
            f"trainer.devices={trainer['devices']}, trainer.num_nodes={trainer.get('num_nodes', 1)} together with -m: "
            f"Lightning would start {count} processes per job, each with the command line of the whole sweep. "
            "Give each job one device (trainer=default with hydra/launcher=local_gpus), or train one after "
            f"another without -m: for beta in 1 4 10; do {command('python train.py trainer=ddp beta=$beta')}; done"
        )


def _num_processes(trainer: Any) -> int:
    nodes = trainer.get("num_nodes")
    nodes = nodes if isinstance(nodes, int) else 1  # another type is refused later, by `check_arguments`
    devices = trainer.get("devices", 1)
    if isinstance(devices, str) and "," in devices:
        return nodes * len([part for part in devices.split(",") if part.strip()])
    if not isinstance(devices, int | str):
        return nodes * len(devices)
    if str(devices) in ("auto", "-1"):
        return nodes * (max(1, num_gpus()) if trainer["accelerator"] in ("auto", "gpu", "cuda") else 1)
    return nodes * int(devices)


def slurm_engine(launcher: Any) -> Engine:
    """SLURM, by job arrays.

    Raises:
        ConfigError: there is no SLURM here, or preempted jobs would not be queued again.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm: there is no sbatch here; start the sweep where SLURM's commands are. "
            "On one machine hydra/launcher=local_gpus uses all its GPUs"
        )
    if launcher.timeout_min < SHORTEST_SLURM_MINUTES:
        raise ConfigError(
            f"hydra.launcher.timeout_min={launcher.timeout_min}: must be {SHORTEST_SLURM_MINUTES} or more, because "
            "submitit does not queue a job again that is preempted in its last ten minutes; a job that ends earlier "
            "frees its place"
        )
    return Engine("slurm", runs_here=False, jobs_at_once=int(launcher.array_parallelism))
