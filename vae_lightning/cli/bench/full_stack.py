"""Images per second of train.py itself, alone or with other runs on the same device."""

import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vae_lightning.cli.bench.benched import Benched, run_train
from vae_lightning.runs.layout import METRICS_JSON
from vae_lightning.system.processors import num_cores

FEWEST_BATCHES = 3


@dataclass(frozen=True)
class FullStack:
    """Images per second."""

    training: float  # waiting for data, logging and callbacks included
    whole_fit: float | None  # validation, pictures and checkpoints included; None where an epoch was cut short


def full_stack_speed(benched: Benched, num_batches: int, **environment: str) -> FullStack:
    """One run of train.py over so many batches, in whole epochs or in the first part of one."""
    per_epoch = max(1, len(benched.datamodule.split("train")) // benched.batch_size)
    epochs = max(1, round(num_batches / per_epoch))
    limit = []
    if num_batches < per_epoch:
        limit = [f"trainer.limit_train_batches={max(num_batches, FEWEST_BATCHES)}", "trainer.limit_val_batches=1"]
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as folder:
        run_dir = Path(folder) / "run"
        fixed = [f"trainer.max_epochs={epochs}", *limit, "test=false", f"hydra.run.dir={run_dir}"]
        run_train([*benched.overrides, *fixed], **environment)
        metrics: dict[str, float] = json.loads((run_dir / METRICS_JSON).read_text())
    whole_fit = None if limit else epochs * per_epoch * benched.batch_size / metrics["seconds"]
    return FullStack(metrics["train/images_per_second"], whole_fit)


def sharing_speed(benched: Benched, num_jobs: int, num_batches: int) -> float:
    """Images per second of `num_jobs` runs at the same time on the one device, added up.

    Each gets an equal part of the CPU cores, as the engines of sweeps divide them.
    """
    cores = num_cores()
    threads = str(max(1, cores // num_jobs))
    with ThreadPoolExecutor(num_jobs) as starters:
        jobs = [
            starters.submit(full_stack_speed, benched, num_batches, OMP_NUM_THREADS=threads) for _ in range(num_jobs)
        ]
        return sum(job.result().training for job in jobs)


def sharing_speeds(benched: Benched, counts: Sequence[int], num_batches: int) -> dict[str, float]:
    return {str(count): sharing_speed(benched, count, num_batches) for count in counts}
