"""Small runs for the browser demo: random weights, and around them what `vae` fits to a trained one."""

from pathlib import Path

import torch
from tiny_runs import LADDER, awake, run_of
from torch import Tensor

from vae_lightning.latents.directions import Directions
from vae_lightning.latents.priors import CoarsePrior, FittedGaussian, GaussianMixture
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.models import Autoencoder, ConvVAE, LadderVAE
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.run import Run

LATENTS = 14
ATTRIBUTES = ("Bald", "Never", "Young", "Smiling")


def random_numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bare_run(folder: Path, posterior: str = "gaussian") -> Run:
    """A model whose data is gone, and nothing fitted to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ConvVAE(32, [8, 16, 16], latent_dim=LATENTS, posterior=posterior)
        with torch.no_grad():
            for parameters in model.decoder.parameters():
                parameters.mul_(3)  # pictures with some contrast
    file = folder / "best.ckpt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")  # only their digest is asked for
    data = {"source": "folder", "root": str(folder / "gone")}
    return run_of(model, {"config": {"beta": 4.0, "data": data}, "data": {**data, "content": {}}}, file)


def ladder_run(folder: Path) -> Run:
    """Three levels, of which the last is a finer one; a Gaussian is fitted to the first."""
    settings = {name: value for name, value in LADDER.items() if name != "_target_"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = awake(LadderVAE(image_size=32, **settings))
    coarse = model.latent_levels[0].size
    file = folder / "best.ckpt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")
    fitted = FittedGaussian(random_numbers(coarse), torch.eye(coarse, dtype=torch.float64) / 2)
    prior_file(file).write("gaussian", CoarsePrior(fitted, ["4x4"], model.latent_dim))
    data = {"source": "folder", "root": str(folder / "gone")}
    return run_of(model, {"config": {"beta": 1.0, "data": data}, "data": {**data, "content": {}}}, file)


def fitted_run(folder: Path) -> Run:
    run = bare_run(folder)
    statistics_file(run.path).write(statistics())
    direction_file(run.path).write(directions())
    prior_file(run.path).write("gaussian", gaussian())
    prior_file(run.path).write("gmm", mixture())
    return run


def statistics() -> LatentStatistics:
    """The last latent says the most; the first ones hardly vary."""
    return LatentStatistics(
        random_numbers(LATENTS).float(), torch.linspace(0.1, 2, LATENTS), torch.linspace(0.01, 3, LATENTS)
    )


def directions() -> Directions:
    count = torch.full((len(ATTRIBUTES),), 10)
    return Directions(
        ATTRIBUTES,
        random_numbers(len(ATTRIBUTES), LATENTS, seed=1),
        random_numbers(len(ATTRIBUTES), LATENTS, seed=2),
        torch.nn.functional.normalize(random_numbers(len(ATTRIBUTES), LATENTS, seed=3)),
        torch.eye(LATENTS, dtype=torch.float64),
        count * torch.tensor([1, 0, 1, 1]),
        count,
    )


def gaussian(seed: int = 4) -> FittedGaussian:
    factor = random_numbers(LATENTS, LATENTS, seed=seed) / LATENTS**0.5
    covariance = factor @ factor.T + 0.1 * torch.eye(LATENTS, dtype=torch.float64)
    return FittedGaussian(random_numbers(LATENTS, seed=seed + 1), torch.linalg.cholesky(covariance))


def mixture() -> GaussianMixture:
    parts = [gaussian(seed) for seed in (6, 8, 10)]
    means, choleskys = torch.stack([part.mean for part in parts]), torch.stack([part.cholesky for part in parts])
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), means, choleskys)


def picture_movement(model: Autoencoder, latent: int) -> float:
    """From one unit below 0 to one above, one latent at a time."""
    step = torch.zeros(1, LATENTS)
    step[0, latent] = 1
    with torch.no_grad():
        return float((model.decode(step) - model.decode(-step)).abs().mean())
