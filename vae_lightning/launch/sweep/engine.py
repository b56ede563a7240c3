"""What runs the jobs of one sweep: this process, Ray or SLURM."""

from dataclasses import dataclass

RAY_OBJECT_STORE_BYTES = 75 * 2**20  # the smallest that Ray accepts; a job returns only a number or two


@dataclass(frozen=True)
class Engine:
    """How the jobs of one sweep are run."""

    name: str  # basic | ray | slurm, or another launcher's class
    runs_here: bool = True  # on this machine, whose devices can then be checked
    jobs_at_once: int = 1
    trials: int | None = None  # of a search: how many are left
    arguments: tuple[str, ...] = ()  # added to the command line that Hydra gets


def num_gpus() -> int:
    """CUDA devices that PyTorch sees here."""
    import torch

    return torch.cuda.device_count()
