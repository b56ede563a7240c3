"""Chooses what runs the jobs of a sweep, checks that it can be used here, and how many jobs it runs at once."""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.trainer_settings import check_devices
from vae_lightning.system.extras import check_extra
from vae_lightning.system.processors import num_cores
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
RAY_OBJECT_STORE_BYTES = 75 * 2**20  # the smallest that Ray accepts; a job returns only a number or two
REMOTE = "hydra.launcher.ray.remote"


@dataclass(frozen=True)
class Engine:
    """What runs the jobs of one sweep, this process, Ray or SLURM, and how."""

    name: str  # basic | ray | slurm, or another launcher's class
    runs_here: bool = True  # on this machine, whose devices can then be checked
    jobs_at_once: int = 1
    trials: int | None = None  # of a search: how many are left
    arguments: tuple[str, ...] = ()  # added to the command line that Hydra gets


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
        import torch

        return nodes * (max(1, torch.cuda.device_count()) if trainer["accelerator"] in ("auto", "gpu", "cuda") else 1)
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


def ray_engine(settings: Any, trainer: Any, num_jobs: int | None) -> Engine:
    """Starts or joins Ray, and divides its GPUs and CPU cores among the jobs.

    Args:
        settings: `hydra.launcher.ray`: `init` for ray.init, `remote` for each job; null means that it is chosen here.
        trainer: the configuration's.
        num_jobs: in the sweep; None for a search.

    Raises:
        ConfigError: no machine of the cluster has what a job asks for, so the jobs would wait for ever.
    """
    nodes = start_ray(OmegaConf.to_container(settings.init, resolve=True))
    gpus, asked = [node.get("GPU", 0.0) for node in nodes], settings.remote.get("num_gpus")
    share = asked if asked is not None else float(max(gpus) > 0 and trainer.accelerator not in ("cpu", "mps"))
    if share > max(gpus):
        raise ConfigError(
            f"{REMOTE}.num_gpus={share:g}: Ray sees {max(gpus):g} GPUs on the largest machine, so the jobs would wait "
            "for ever. hydra/launcher=local_gpus takes the GPUs that there are, or CPU cores if there are none"
        )
    if share == 0 and max(gpus) > 0 and trainer.accelerator not in ("cpu", "mps"):
        raise ConfigError(
            f"{REMOTE}.num_gpus=0: all jobs would use the first GPU. Set {REMOTE}.num_gpus=1 (or 0.25), or trainer=cpu"
        )
    cores = [node.get("CPU", 0.0) for node in nodes]
    slots = sum(_slots(count, share) for count in gpus) if share else _enough(num_jobs, int(sum(cores)))
    threads = settings.remote.get("num_cpus") or max(1, math.floor(sum(cores) / max(1, slots)))
    if threads > max(cores):
        raise ConfigError(f"{REMOTE}.num_cpus={threads}: Ray sees {max(cores):g} cores on the largest machine")
    at_once = min(slots, sum(int(count // threads) for count in cores))
    is_local = settings.init.get("address") is None
    arguments = (f"++{REMOTE}.num_gpus={share:g}", f"++{REMOTE}.num_cpus={threads}")
    return Engine("ray", runs_here=is_local, jobs_at_once=_enough(num_jobs, at_once), arguments=arguments)


def _slots(num_gpus: float, share: float) -> int:
    """How many jobs fit on one machine's GPUs; with a share of 0.25 these are four per GPU."""
    return int(num_gpus) * int(1 / share + 1e-9) if share <= 1 else int(num_gpus // share)


def _enough(num_jobs: int | None, most: int) -> int:
    return max(1, most if num_jobs is None else min(num_jobs, most))


def start_ray(settings: Any) -> list[dict[str, float]]:
    """Joins the cluster at `address`, or starts one here; returns the resources of each machine.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray sends statistics to its makers
    import ray

    if not ray.is_initialized():
        settings = {name: value for name, value in settings.items() if value is not None}
        if "address" not in settings:
            settings = {"num_cpus": num_cores(), "object_store_memory": RAY_OBJECT_STORE_BYTES, **settings}
        try:
            ray.init(**settings)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.ray.init.address={settings.get('address')}: no Ray cluster answers there ({error}). "
                "Start one with: ray start --head, and on the others: ray start --address=HEAD:6379"
            ) from error
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
