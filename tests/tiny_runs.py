"""Run folders with a checkpoint that nobody trained: any model and objective, in milliseconds."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vae_lightning.latents.directions import Directions
from vae_lightning.latents.priors import fit_prior
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.losses import ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.runs.checkpoints import EXPORT_FORMAT, FORMAT, build_model
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import (
    BEST_KEY,
    EXPORTED_CONFIG,
    EXPORTED_WEIGHTS,
    MODEL_PREFIX,
    RECONSTRUCTION_PREFIX,
    RECORD_KEY,
)
from vae_lightning.runs.parts import build_part
from vae_lightning.runs.run import Run

MODEL = {
    "_target_": "vae_lightning.models.ConvVAE",
    "image_size": 32,
    "color": "rgb",
    "latent_dim": 6,
    "posterior": "gaussian",
    "widths": [8, 8],
}
# three levels: the first two are the coarse ones, the last has 1,024 latents of its own
LADDER: dict[str, Any] = {
    "_target_": "vae_lightning.models.LadderVAE",
    "latent_dim": None,
    "sides": [4, 8, 32],
    "widths": [8, 8, 8],
    "blocks": [1, 1, 1],
    "latent_channels": [2, 1, 1],
    "logistic_components": 1,
}
# what is said of a machine that must not be seen elsewhere
PRIVATE = "/home/somebody/secret"


def write_run(
    folder: Path,
    reconstruction: str = "SquaredError",
    source: str = "celeba",
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    **model: Any,
) -> Path:
    """A run folder with checkpoints/best.ckpt.

    Args:
        folder: of the run.
        reconstruction: class of the pixel term.
        source: of its data, which are not there.
        seed: of the weights.
        settings: of the pixel term.
        model: arguments beside or instead of MODEL's.
    """
    arguments = {**MODEL, **model}
    if arguments["_target_"] != MODEL["_target_"] and "widths" not in model:
        del arguments["widths"]
    term = {"_target_": f"vae_lightning.losses.{reconstruction}", **(settings or {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = awake(build_model(arguments))
        pixel_term = build_part(ReconstructionLoss, term)
    weights = {f"{MODEL_PREFIX}{name}": value for name, value in built.state_dict().items()}
    weights |= {f"{RECONSTRUCTION_PREFIX}{name}": value for name, value in pixel_term.state_dict().items()}
    shape = {"crop": 148, "image_size": arguments["image_size"], "color": arguments["color"]}
    config = {
        "beta": 4.0,
        "seed": 0,
        "run_dir": PRIVATE + "/outputs/run",
        "data": {
            "source": source,
            "root": PRIVATE + "/celeba",
            "data_dir": PRIVATE + "/data",
            "batch_size": 8,
            **shape,
        },
        "model": arguments,
        "reconstruction": term,
        "kl": {"_target_": "vae_lightning.losses.AnalyticKL"},
        "beta_schedule": {"_target_": "vae_lightning.losses.LinearWarmup", "duration": 2, "unit": "epoch"},
        "perceptual": None,
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001},
        "lr_schedule": {"_target_": "vae_lightning.training.Constant"},
        "trainer": {"max_epochs": 5, "precision": "32-true"},
    }
    counts = {"train_count": 80, "val_count": 10, "test_count": 10}
    data = {
        "source": source,
        "root": PRIVATE + "/celeba",
        "fingerprint": "0123",
        "content": {},
        "partition": "as listed",
        **counts,
    }
    record = {
        "format": FORMAT,
        "config": config,
        "versions": {"torch": "2.15.0"},
        "data": {**data, "content": {}, **shape},
    }
    content = {"epoch": 2, "state_dict": weights, BEST_KEY: {"val/loss": 12.5}, RECORD_KEY: record}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


def awake(model: Autoencoder) -> Autoencoder:
    """A ladder begins with posteriors that are the prior; after this they are not. Other models stay as they are."""
    if not model.is_flat:
        with torch.no_grad():
            for parameters in model.parameters():
                parameters.add_(0.1 * torch.randn_like(parameters))
    return model.eval()


def run_of(model: Autoencoder, record: dict[str, Any], path: Path) -> Run:
    """A run whose checkpoint nobody wrote."""
    return Run(model, path, {RECORD_KEY: record, "epoch": 0, "state_dict": {}})


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def write_exported(folder: Path, run: Path) -> dict[str, Any]:
    """The two files of an exported run that load it; returns what config.json holds."""
    folder.mkdir(exist_ok=True)
    content = torch.load(checkpoint(run))
    save_file(content["state_dict"], folder / EXPORTED_WEIGHTS)
    described = {"format": EXPORT_FORMAT, "record": content[RECORD_KEY], "epoch": 3, BEST_KEY: None}
    (folder / EXPORTED_CONFIG).write_text(json.dumps(described))
    return described


def fit_everything(run: Path) -> tuple[Directions, LatentStatistics]:
    """Priors, directions and statistics of made-up latents, beside the checkpoint."""
    latents = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    for name in ("gaussian", "gmm"):
        prior_file(checkpoint(run)).write(name, fit_prior(name, latents, seed=0))
    means, counts = latents[:4].double(), torch.tensor([3, 1])
    spread = torch.eye(6, dtype=torch.float64)
    names = ("Smiling", "Rare")
    directions = Directions(names, means[:2], means[2:], spread[:2], spread, counts, torch.tensor([1, 3]))
    direction_file(checkpoint(run)).write(directions)
    statistics = LatentStatistics(latents.mean(0), latents.std(0), None)
    statistics_file(checkpoint(run)).write(statistics)
    return directions, statistics
