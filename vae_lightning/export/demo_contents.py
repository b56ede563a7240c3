"""The content of demo.json: where a model's latents lie, its priors, its directions, and texts for the page."""

import base64
import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from vae_lightning.data import DataError
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.latents.priors import CoarsePrior, FittedGaussian, GaussianMixture, Prior
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.models.levels import coarse_levels, latent_name, level_words, num_coarse_latents
from vae_lightning.runs.layout import RunError, run_folder
from vae_lightning.runs.run import Run
from vae_lightning.system.progress import progress
from vae_lightning.system.terminal import command

log = logging.getLogger("vae_lightning")
FORMAT = 1
FIRST_ATTRIBUTES = (
    *("Smiling", "Male", "Young", "Eyeglasses"),
    *("Blond_Hair", "Bangs", "Pale_Skin", "Mouth_Slightly_Open"),
)
PRIOR_TITLES = {  # the first that a model has is what the page begins with
    "gmm": "fitted mixture",
    "gaussian": "fitted Gaussian",
    "normal": "standard normal",
}
LATENTS_AT_ONCE = 16  # that are moved, each to both sides
LARGEST_PRIOR = 8_000_000  # bytes on the page; of 768 latents a fitted Gaussian takes 1.6 MB, a mixture ten times that
DIGITS = 6


def demo_contents(vae: Run) -> dict[str, Any]:
    """
    Raises:
        ValueError: a plain autoencoder of whose latents nothing is known.
    """
    model, source = vae.model, data_sources()[vae.record["data"]["source"]]
    kind = "VAE" if model.has_prior else "Plain autoencoder"
    beta = vae.config.get("beta") if model.has_prior else None
    statistics = _statistics(vae)
    attributes = _attributes(vae)
    return {
        "format": FORMAT,
        "title": f"Faces from a {type(model).__name__}",
        "description": f"{kind}, {level_words(model.latent_levels)}, {model.image_size}×{model.image_size} pixels"
        + ("" if beta is None else f", β = {beta:g}"),
        "data_note": f"Trained on {source.title}. {source.note}",
        "image_size": model.image_size,
        "latents": _latents(vae, statistics),
        "attributes": attributes,
        "first_attributes": sum(one["name"] in FIRST_ATTRIBUTES for one in attributes) or len(FIRST_ATTRIBUTES),
        "priors": _priors(vae, statistics),
    }


def _statistics(vae: Run) -> LatentStatistics | None:
    """None where the data is missing and the statistics were not measured before."""
    with Console(stderr=True).status("Measuring where the latents of held-out faces lie"):
        try:
            return vae.latent_statistics()
        except DataError:
            return None


def _latents(vae: Run, statistics: LatentStatistics | None) -> dict[str, Any]:
    """Their means, the units and names of their sliders, and their order on the page with its reason.

    Of a hierarchical model these are the latents of its coarse levels; `finer` says how many follow, which the page
    draws from N(0, I).
    """
    levels = vae.model.latent_levels
    count = num_coarse_latents(levels)
    if statistics is not None:
        mean, spread = statistics.mean[:count], statistics.std[:count]
        order = statistics.most_active(count, count)
        reason = "KL to the prior" if statistics.kl_nats is not None else "spread over held-out faces"
    else:
        mean, spread = _spread_of_prior(vae)
        order = _movement(vae, mean, spread).argsort(descending=True).tolist()
        reason = "effect on the picture (no held-out faces were at hand)"
    # a latent that says nothing has a mean that hardly varies, but samples of the prior that do
    unit = spread.clamp(min=1.0) if vae.model.has_prior else spread.clamp(min=1e-6)
    return {
        "mean": _plain(mean),
        "unit": _plain(unit),
        "names": [latent_name(levels, number).capitalize() for number in range(count)],
        "finer": {
            "count": vae.model.latent_dim - count,
            "levels": ", ".join(level.name for level in levels[len(coarse_levels(levels)) :]),
        },
        "order": order,
        "ordered_by": reason,
        "unit_note": "In standard deviations from the mean, of the prior or of real faces, whichever is wider."
        if vae.model.has_prior
        else "In standard deviations from the mean.",
    }


def _spread_of_prior(vae: Run) -> tuple[Float[Tensor, " latent"], Float[Tensor, " latent"]]:
    """Mean and standard deviation of the model's own prior, or of the Gaussian that was fitted to its latents."""
    if vae.model.has_prior:
        count = num_coarse_latents(vae.model.latent_levels)
        return torch.zeros(count), torch.ones(count)
    prior = _fitted_prior(vae, "gaussian")
    if not isinstance(prior, FittedGaussian):
        raise ValueError(
            f"{vae.path}: where the latents of this plain autoencoder lie is not known, because its data is missing "
            "and no prior was fitted to it. Bring the data back (CELEBA_ROOT), then: "
            + command(f"vae evaluate {run_folder(vae.path)} --metrics samplers")
        )
    return prior.mean.float(), prior.cholesky.square().sum(1).sqrt().float()


def _movement(vae: Run, mean: Float[Tensor, " latent"], spread: Float[Tensor, " latent"]) -> Float[Tensor, " latent"]:
    """How far the mean picture changes from one standard deviation below to one above; mean over pixels, in [0, 1]."""
    moved, finer = [], (0, vae.model.latent_dim - len(mean))
    with progress() as observer:
        parts = range(0, len(mean), LATENTS_AT_ONCE)
        for start in observer.track(parts, "Moving each latent", len(parts)):
            steps = torch.diag(spread)[start : start + LATENTS_AT_ONCE]
            above, below = (vae.decode(F.pad(mean + sign * steps, finer)) for sign in (1, -1))
            moved.append((above - below).abs().mean((1, 2, 3)).cpu())
    return torch.cat(moved)


def _attributes(vae: Run) -> list[dict[str, Any]]:
    """Directions between class means, well-known attributes first; empty where no directions were fitted."""
    try:
        directions = vae.directions()
    except RunError:
        return []
    names = directions.fitted_names
    first = [name for name in FIRST_ATTRIBUTES if name in names]
    found = [directions.direction(name) for name in [*first, *(name for name in names if name not in first)]]
    count = num_coarse_latents(vae.model.latent_levels)
    return [
        {
            "name": one.attribute,
            "vector": _plain(one.vector[:count]),
            "spread": _rounded(one.spread),
        }
        for one in found
    ]


def _priors(vae: Run, statistics: LatentStatistics | None) -> list[dict[str, Any]]:
    """As mixtures of Gaussians, which is what the page samples from; the flow is not offered there."""
    found = {name: prior for name in PRIOR_TITLES if (prior := _fitted_prior(vae, name)) is not None}
    count = num_coarse_latents(vae.model.latent_levels)
    priors = []
    for name, prior in found.items():
        components = _components(prior.fitted if isinstance(prior, CoarsePrior) else prior, count)
        size = sum(len(component.get("cholesky", "")) for component in components)
        if size > LARGEST_PRIOR:
            log.warning(
                f"--demo: the page leaves out the {PRIOR_TITLES[name]}, which would add {size / 1e6:.0f} MB to it"
            )
            continue
        priors.append({"name": name, "title": PRIOR_TITLES[name], "components": components})
    if priors or statistics is None:
        return priors
    component = {"weight": 1.0, "mean": _plain(statistics.mean[:count]), "spread": _plain(statistics.std[:count])}
    return [{"name": "independent", "title": "spread of each latent (no fitted prior)", "components": [component]}]


def _fitted_prior(vae: Run, name: str) -> Prior | None:
    try:
        return vae.prior(name)
    except RunError:  # not fitted; `normal`: a plain autoencoder, which has none
        return None


def _components(prior: Prior, count: int) -> list[dict[str, Any]]:
    """Of the first `count` latents, those of the coarse levels; a prior of fewer levels is completed."""
    if isinstance(prior, GaussianMixture):
        weighted = list(zip(prior.weights.tolist(), prior.components, strict=True))
    elif isinstance(prior, FittedGaussian):
        weighted = [(1.0, prior)]
    else:
        return [{"weight": 1.0, "mean": [0.0] * count, "spread": [1.0] * count}]
    more = count - prior.latent_dim
    others = torch.eye(more, dtype=torch.float64)
    return [
        {
            "weight": weight,
            "mean": _plain(F.pad(one.mean, (0, more))),
            "cholesky": _packed_triangle(torch.block_diag(one.cholesky, others)),
        }
        for weight, one in weighted
    ]


def _packed_triangle(matrix: Float[Tensor, "latent latent"]) -> str:
    """Rows of the lower triangle, float32, little-endian, base64: a mixture's would be megabytes of digits."""
    rows, columns = np.tril_indices(len(matrix))
    return base64.b64encode(matrix.numpy()[rows, columns].astype("<f4").tobytes()).decode()


def _plain(values: Float[Tensor, " values"]) -> list[float]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
