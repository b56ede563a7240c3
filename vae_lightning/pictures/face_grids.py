"""Grids of a model's reconstructions, interpolations, traversals and samples, for training, evaluation and reports."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vae_lightning.latents.paths import latents_between
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.models import Autoencoder
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
        row_labels=[f"z[{number}]\n{activity[number]:.2f} {unit}" for number in dimensions],
        column_labels=["original", *(f"{value:+.3g}{step}" if value else "0" for value in values.tolist())],
        title="Traversals of single latents",
    )


def temperature_grid(model: Autoencoder, temperatures: Sequence[float], num_samples: int, device: torch.device) -> Grid:
    """One row per temperature t: decoded z = t * noise; a column has the same noise in every row and run."""
    generator = torch.Generator().manual_seed(NOISE_SEED)  # on the CPU, so that the noise is the same for every device
    noise = torch.randn(num_samples, model.latent_dim, generator=generator).to(device)
    scales = torch.tensor(list(temperatures), device=device)
    return Grid(
        images=decode_uint8(model, scales[:, None, None] * noise),
        row_labels=[f"τ = {temperature:g}" for temperature in temperatures],
        column_labels=[f"sample {number}" for number in range(1, num_samples + 1)],
        title="Samples from N(0, τ²), each column from one draw of the noise",
    )
