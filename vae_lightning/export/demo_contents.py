"""The content of demo.json: where a model's latents lie, its priors, its directions, and texts for the page."""

import base64
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from vae_lightning.data import DataError
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.latents.priors import FittedGaussian, GaussianMixture, Prior
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.runs.layout import RunError, run_folder
from vae_lightning.runs.run import Run
from vae_lightning.system.progress import progress
from vae_lightning.system.terminal import command

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
        "description": f"{kind}, {model.latent_dim} latents, {model.image_size}×{model.image_size} pixels"
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
    """Their means, the units of their sliders, and their order on the page with its reason."""
    num_latents = vae.model.latent_dim
    if statistics is not None:
        mean, spread = statistics.mean, statistics.std
        order = statistics.most_active(num_latents)
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
        "order": order,
        "ordered_by": reason,
        "unit_note": "In standard deviations from the mean, of the prior or of real faces, whichever is wider."
        if vae.model.has_prior
        else "In standard deviations from the mean.",
    }


def _spread_of_prior(vae: Run) -> tuple[Float[Tensor, " latent"], Float[Tensor, " latent"]]:
    """Mean and standard deviation of the model's own prior, or of the Gaussian that was fitted to its latents."""
    if vae.model.has_prior:
        return torch.zeros(vae.model.latent_dim), torch.ones(vae.model.latent_dim)
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
    moved = []
    with progress() as observer:
        parts = range(0, len(mean), LATENTS_AT_ONCE)
        for start in observer.track(parts, "Moving each latent", len(parts)):
            steps = torch.diag(spread)[start : start + LATENTS_AT_ONCE]
            moved.append((vae.decode(mean + steps) - vae.decode(mean - steps)).abs().mean((1, 2, 3)).cpu())
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
    return [
        {
            "name": one.attribute,
            "vector": _plain(one.vector),
            "spread": _rounded(one.spread),
        }
        for one in found
    ]


def _priors(vae: Run, statistics: LatentStatistics | None) -> list[dict[str, Any]]:
    """As mixtures of Gaussians, which is what the page samples from; the flow is not offered there."""
    found = [(name, _fitted_prior(vae, name)) for name in PRIOR_TITLES]
    priors = [
        {"name": name, "title": PRIOR_TITLES[name], "components": _components(prior)} for name, prior in found if prior
    ]
    if priors or statistics is None:
        return priors
    component = {"weight": 1.0, "mean": _plain(statistics.mean), "spread": _plain(statistics.std)}
    return [{"name": "independent", "title": "spread of each latent (no fitted prior)", "components": [component]}]


def _fitted_prior(vae: Run, name: str) -> Prior | None:
    try:
        return vae.prior(name)
    except RunError:  # not fitted; `normal`: a plain autoencoder, which has none
        return None


def _components(prior: Prior) -> list[dict[str, Any]]:
    if isinstance(prior, GaussianMixture):
        weighted = list(zip(prior.weights.tolist(), prior.components, strict=True))
    elif isinstance(prior, FittedGaussian):
        weighted = [(1.0, prior)]
    else:
        zeros, ones = [0.0] * prior.latent_dim, [1.0] * prior.latent_dim
        return [{"weight": 1.0, "mean": zeros, "spread": ones}]
    return [
        {"weight": weight, "mean": _plain(one.mean), "cholesky": _packed_triangle(one.cholesky)}
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
