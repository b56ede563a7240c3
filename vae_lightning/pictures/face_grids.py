"""Grids of a model's reconstructions, interpolations, traversals, levels and samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.latents.paths import latents_between
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.latents.temperature import (
    Temperature,
    falling_temperatures,
    temperature_in_words,
    temperature_per_latent,
)
from vae_lightning.models import Autoencoder
from vae_lightning.models.levels import latent_name, level_slices
from vae_lightning.models.pixels import to_pixel_range, to_uint8

NOISE_SEED = 0

Faces = UInt8[Tensor, "faces channels height width"]


@dataclass(frozen=True)
class Grid:
    """Images with labels."""

    images: UInt8[Tensor, "rows columns channels height width"]
    row_labels: list[str]
    column_labels: list[str]
    title: str


def encode_mean(model: Autoencoder, faces: Faces) -> Float[Tensor, "faces latent"]:
    return model.encode(to_pixel_range(faces, model.pixel_range)).mean


def decode_uint8(
    model: Autoencoder, latents: Float[Tensor, "*lead latent"]
) -> UInt8[Tensor, "*lead channels height width"]:
    flat = latents.reshape(-1, latents.shape[-1])
    images = to_uint8(model.decode(flat), model.pixel_range)
    return images.unflatten(0, latents.shape[:-1])


def reconstruction_grid(model: Autoencoder, faces: Faces) -> Grid:
    """Originals in the upper row, the decoder's mean at the posterior mean in the lower one."""
    return Grid(
        images=torch.stack([faces, decode_uint8(model, encode_mean(model, faces))]),
        row_labels=["original", "reconstruction"],
        column_labels=[f"face {number}" for number in range(1, len(faces) + 1)],
        title="Reconstructions from the posterior mean",
    )


def interpolation_grid(model: Autoencoder, faces: Faces, num_steps: int) -> Grid:
    """One row per pair: the first face, decoded (1 - a) z1 + a z2 for a from 0 to 1, the second face."""
    # a split with an odd number of faces leaves one out; a lone face is its own partner
    faces = faces[: len(faces) // 2 * 2] if len(faces) > 1 else faces.repeat(2, 1, 1, 1)
    mean = encode_mean(model, faces)
    between = latents_between(mean[0::2], mean[1::2], num_steps)
    images = torch.cat([faces[0::2, None], decode_uint8(model, between), faces[1::2, None]], dim=1)
    return Grid(
        images=images,
        row_labels=[f"pair {number}" for number in range(1, len(images) + 1)],
        column_labels=[
            "face A",
            *(f"a = {fraction:.3g}" for fraction in torch.linspace(0, 1, num_steps).tolist()),
            "face B",
        ],
        title="Interpolations (1 - a) z(A) + a z(B)",
    )


def traversal_grid(
    model: Autoencoder,
    face: UInt8[Tensor, "channels height width"],
    dimensions: Sequence[int],
    statistics: LatentStatistics,
    limit: float,
    num_steps: int,
) -> Grid:
    """One row per latent, set to values from -limit to limit while the others keep the face's posterior mean.

    The codes of a plain autoencoder have no scale of their own: there the values are standard deviations of the
    latent over real faces, around its mean.
    """
    values = torch.linspace(-limit, limit, num_steps, device=face.device)
    latents = encode_mean(model, face[None])[0].repeat(len(dimensions), num_steps, 1)
    step = "" if model.has_prior else " std"
    activity, unit = (statistics.std, "std") if statistics.kl_nats is None else (statistics.kl_nats, "nats")
    for row, dimension in enumerate(dimensions):
        centre = 0.0 if model.has_prior else float(statistics.mean[dimension])
        scale = 1.0 if model.has_prior else float(statistics.std[dimension])
        latents[row, :, dimension] = centre + scale * values
    original = face.expand(len(dimensions), 1, *face.shape)
    return Grid(
        images=torch.cat([original, decode_uint8(model, latents)], dim=1),
        row_labels=[f"{latent_label(model, number)}\n{activity[number]:.2f} {unit}" for number in dimensions],
        column_labels=["original", *(f"{value:+.3g}{step}" if value else "0" for value in values.tolist())],
        title="Traversals of single latents",
    )


def latent_label(model: Autoencoder, number: int) -> str:
    """`z[12]`; of a hierarchical model its level and place."""
    return f"z[{number}]" if model.is_flat else latent_name(model.latent_levels, number)


def temperature_grid(model: Autoencoder, temperatures: Sequence[float], num_samples: int, device: torch.device) -> Grid:
    """One row per temperature t: decoded z = t * noise; a column has the same noise in every row and run.

    A hierarchical model has further rows, whose coarsest level stays at 1 while finer ones fall.
    """
    levels = model.latent_levels
    rows: list[Temperature] = [*temperatures, *falling_temperatures(levels)]
    noise = _noise(num_samples, model.latent_dim, device)
    which = ", τ of all levels or of each, coarse first" if len(rows) > len(temperatures) else ""
    return Grid(
        images=decode_uint8(model, torch.stack([_scale(model, row, device) * noise for row in rows])),
        row_labels=[f"τ = {temperature_in_words(row, levels)}" for row in rows],
        column_labels=[f"sample {number}" for number in range(1, num_samples + 1)],
        title=f"Samples from N(0, τ²){which}, each column from one draw of the noise",
    )


def check_has_levels(model: Autoencoder) -> None:
    """
    Raises:
        ValueError: a flat model.
    """
    if model.is_flat:
        raise ValueError(
            "the picture `levels` shows which level of a hierarchical model (model=ladder) holds what, and this model "
            "has a single level of latents: nothing finer could be drawn anew"
        )


def levels_grid(model: Autoencoder, faces: Faces, num_draws: int = 2, temperature: Temperature = 1.0) -> Grid:
    """Which level holds what: from row to row, one level more is drawn anew from N(0, temperature²), the finest first.

    What is kept are posterior means. A column has the same noise in every row; each face has `num_draws` columns.

    Raises:
        ValueError: a flat model, or there is no such temperature.
    """
    check_has_levels(model)
    levels = model.latent_levels
    columns = faces.repeat_interleave(num_draws, dim=0)
    mean = encode_mean(model, faces).repeat_interleave(num_draws, dim=0)
    redrawn = _scale(model, temperature, faces.device) * _noise(len(columns), model.latent_dim, faces.device)
    kept = [0, *(part.stop for part in level_slices(levels))][::-1]  # latents from the first, row by row
    place = torch.arange(model.latent_dim, device=faces.device)
    latents = torch.stack([torch.where(place < count, mean, redrawn) for count in kept])
    names = [level.name for level in levels]
    upto = [f"{names[0]} to {name}" if name != names[0] else name for name in names[-2::-1]]
    draw = [f", draw {number}" for number in range(1, num_draws + 1)] if num_draws > 1 else [""]
    return Grid(
        images=torch.cat([columns[None], decode_uint8(model, latents)]),
        row_labels=[
            "original",
            "all levels kept\n(reconstruction)",
            *(f"{which} kept,\nfiner redrawn" for which in upto),
            "nothing kept",
        ],
        column_labels=[f"face {face}{each}" for face in range(1, len(faces) + 1) for each in draw],
        title=f"Which level holds what: levels drawn anew at τ = {temperature_in_words(temperature, levels)}",
    )


def _noise(count: int, latent_dim: int, device: torch.device) -> Float[Tensor, "count latent"]:
    generator = torch.Generator().manual_seed(NOISE_SEED)  # on the CPU, so that the noise is the same for every device
    return torch.randn(count, latent_dim, generator=generator).to(device)


def _scale(model: Autoencoder, temperature: Temperature, device: torch.device) -> Float[Tensor, "..."]:
    values = temperature_per_latent(temperature, model.latent_levels)
    return torch.as_tensor(values, dtype=torch.float32, device=device)
