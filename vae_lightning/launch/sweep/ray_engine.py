"""Runs the jobs of a sweep by Ray: one per GPU, several on one GPU, or on CPU cores."""

import math
import os
from typing import Any

from omegaconf import OmegaConf

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.engine import RAY_OBJECT_STORE_BYTES, Engine
from vae_lightning.system.processors import num_cores

REMOTE = "hydra.launcher.ray.remote"


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
