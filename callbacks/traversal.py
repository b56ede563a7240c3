"""What single latents do to one held-out face."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import ImageGrid
from vae_lightning.face_grids import Grid, traversal_grid
from vae_lightning.latent_statistics import latent_statistics
from vae_lightning.models import Autoencoder
from vae_lightning.pixels import to_pixel_range

# Faces over which a latent's KL is averaged when the most active ones are looked for
NUM_FACES_FOR_ACTIVITY = 64


class TraversalGrid(ImageGrid):
    """What `face_grids.traversal_grid` draws.

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
        statistics = latent_statistics([model.encode(to_pixel_range(faces, model.pixel_range))])
        chosen = self.dimensions or statistics.most_active(self.num_dimensions)
        grid = traversal_grid(model, faces[0], chosen, statistics, self.limit, self.num_steps)
        return grid if self.dimensions else replace(grid, title=f"{grid.title}, most active first")
