"""From vae_lightning/sweep/engines.py."""

from dataclasses import dataclass

RAY_OBJECT_STORE_BYTES = 75 * 2**20  # the least that Ray takes; jobs hand over a number or two


@dataclass(frozen=True)
class Engine:
    """How the jobs of one sweep are run."""

    name: str  # basic | ray | slurm, or another launcher's class
    runs_here: bool = True  # on this machine, so that what it lacks can be refused
    jobs_at_once: int = 1
    trials: int | None = None  # of a search, those that are left
    arguments: tuple[str, ...] = ()  # for hydra


def num_gpus() -> int:
    """CUDA devices that PyTorch sees here."""
    import torch

    return torch.cuda.device_count()
