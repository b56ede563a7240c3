"""`vae bench`: what the whole stack costs beside a bare PyTorch loop over the same model and batches."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vae_lightning.data import FaceDataModule
from vae_lightning.module import RECORD_KEY
from vae_lightning.pixels import to_pixel_range
from vae_lightning.run_folders import checkpoint_file
from vae_lightning.runs import build_model, data_settings, read_checkpoint

TRAIN_SCRIPT = Path(__file__).parents[1] / "train.py"
WARM_UP_BATCHES = 10


@dataclass(frozen=True)
class Pair:
    """Images per second of one full run and of the bare loop right after it."""

    full_stack: float  # train.py's own figure: waiting for data, logging and callbacks included, validation left out
    full_stack_with_validation: float  # validation, pictures and checkpoints included
    bare_loop: float

    @property
    def ratio(self) -> float:
        return self.full_stack / self.bare_loop


def bench(overrides: Sequence[str], repeats: int) -> Iterator[Pair]:
    """Alternates full runs of one epoch and bare loops over as many images, so that a machine's moods cancel.

    Raises:
        ValueError: train.py is not beside the package, or a run fails.
    """
    if not TRAIN_SCRIPT.is_file():
        raise ValueError(f"{TRAIN_SCRIPT} is missing: `vae bench` needs a clone of the repository")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="vae-bench-") as folder:
            run_dir = Path(folder) / "run"
            metrics = _train_one_epoch(overrides, run_dir)
            record = read_checkpoint(checkpoint_file(run_dir))[RECORD_KEY]
            num_images = record["data"]["train_count"]
            yield Pair(
                full_stack=metrics["train/images_per_second"],
                full_stack_with_validation=num_images / metrics["seconds"],
                bare_loop=bare_loop_speed(record),
            )


def _train_one_epoch(overrides: Sequence[str], run_dir: Path) -> dict[str, float]:
    fixed = ["trainer.max_epochs=1", "test=false", f"hydra.run.dir={run_dir}"]
    command = [sys.executable, str(TRAIN_SCRIPT), *overrides, *fixed]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ValueError(f"{' '.join(command)} failed:\n{finished.stderr[-2000:]}")
    metrics: dict[str, float] = json.loads((run_dir / "metrics.json").read_text())
    return metrics


def bare_loop_speed(record: dict[str, Any]) -> float:
    """One epoch of the run's model on the run's data with nothing around it: gather, forward, backward, step.

    The loss is squared error + KL whatever the run's is: what a person would write in ten lines.
    """
    config = record["config"]
    datamodule = FaceDataModule(**data_settings(record))
    datamodule.prepare_data()
    images = datamodule.split("train").images
    device = "cuda" if torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu" else "cpu"
    precision = torch.autocast(device, torch.bfloat16, enabled=config["trainer"]["precision"] == "bf16-mixed")
    model = build_model(config["model"]).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=config["optimizer"]["lr"], fused=True)
    batch_size = config["data"]["batch_size"]
    batches = torch.randperm(len(images))[: len(images) // batch_size * batch_size].view(-1, batch_size)

    def step(rows: torch.Tensor) -> None:
        levels = torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2).to(device)
        pixels = to_pixel_range(levels, model.pixel_range)
        with precision:
            posterior = model.encode(pixels)
            reconstruction = model.decode(posterior.sample(torch.randn_like(posterior.mean)))
        kl = posterior.kl_per_latent().sum()
        loss = (F.mse_loss(reconstruction, pixels, reduction="sum") + kl) / batch_size
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for rows in batches[:WARM_UP_BATCHES]:
        step(rows)
    _synchronise(device)
    started = time.perf_counter()
    for rows in batches:
        step(rows)
    _synchronise(device)
    return batches.numel() / (time.perf_counter() - started)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def summarise(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Medians over the pairs, and every pair."""
    names = ("full_stack", "full_stack_with_validation", "bare_loop", "ratio")
    medians = {name: statistics.median(getattr(pair, name) for pair in pairs) for name in names}
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "images_per_second": medians,
        "pairs": [asdict(pair) for pair in pairs],
    }
