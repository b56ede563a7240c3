"""What single latents do to one held-out face."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import ImageGrid
from vae_lightning.face_grids import Grid, decode_uint8
from vae_lightning.models import Autoencoder
from vae_lightning.pixels import to_pixel_range

# Faces over which a latent's KL is averaged when the most active ones are looked for
NUM_FACES_FOR_ACTIVITY = 64


class TraversalGrid(ImageGrid):
    """One row per latent, set to values from -limit to limit while the others keep the face's posterior mean.

    The codes of a plain autoencoder have no scale of their own: there the values are standard deviations of the
    latent over held-out faces, around its mean.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        dimensions: which latents; None takes those with the largest KL (an autoencoder's: largest variance).
        num_dimensions: how many, where `dimensions` is None.
        limit: the largest value.
        num_steps: number of values.
    """

    kind = "traversal"
    num_faces = NUM_FACES_FOR_ACTIVITY

    def __init__(
        self,
        run_dir: str,
        every_n_epochs: int = 5,
        dimensions: Sequence[int] | None = None,
        num_dimensions: int = 8,
        limit: float = 3.0,
        num_steps: int = 9,
    ) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_dimensions < 1 or num_steps < 2 or limit <= 0 or (dimensions is not None and not dimensions):
            raise ValueError(
                f"callbacks.traversal: dimensions={dimensions}, num_dimensions={num_dimensions}, limit={limit}, "
                f"num_steps={num_steps}: needed are 1 dimension, a limit above 0 and 2 steps at least"
            )
        self.dimensions = None if dimensions is None else list(dimensions)
        self.num_dimensions = num_dimensions
        self.limit = limit
        self.num_steps = num_steps

    def check_model(self, model: Autoencoder) -> None:
        wrong = [number for number in self.dimensions or [] if not 0 <= number < model.latent_dim]
        if wrong:
            raise ValueError(
                f"callbacks.traversal.dimensions={self.dimensions}: {wrong} are not among the latents "
                f"0 to {model.latent_dim - 1} (model.latent_dim={model.latent_dim})"
            )

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        posterior = model.encode(to_pixel_range(faces, model.pixel_range))
        if model.has_prior:
            activity, unit, step = posterior.kl_per_latent().mean(0), "nats", ""
            centre, scale = torch.zeros_like(activity), torch.ones_like(activity)
        else:
            activity, unit, step = posterior.mean.std(0, correction=0), "std", " std"
            centre, scale = posterior.mean.mean(0), activity
        chosen = self.dimensions
        if chosen is None:
            chosen = activity.topk(min(self.num_dimensions, model.latent_dim)).indices.tolist()
        values = torch.linspace(-self.limit, self.limit, self.num_steps, device=faces.device)
        latents = posterior.mean[0].repeat(len(chosen), self.num_steps, 1)
        for row, dimension in enumerate(chosen):
            latents[row, :, dimension] = centre[dimension] + scale[dimension] * values
        original = faces[0].expand(len(chosen), 1, *faces.shape[1:])
        return Grid(
            images=torch.cat([original, decode_uint8(model, latents)], dim=1),
            row_labels=[f"z[{number}]\n{activity[number]:.2f} {unit}" for number in chosen],
            column_labels=["original", *(f"{value:+.3g}{step}" if value else "0" for value in values.tolist())],
            title="Traversals of single latents" + ("" if self.dimensions else ", most active first"),
        )
