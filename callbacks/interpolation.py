"""From one held-out face to another in straight lines through the latents."""

from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import ImageGrid
from vae_lightning.face_grids import Grid, interpolation_grid
from vae_lightning.models import Autoencoder


class InterpolationGrid(ImageGrid):
    """One row per pair: the first face, decoded (1 - a) z1 + a z2 for a from 0 to 1, the second face.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        num_pairs: number of rows.
        num_steps: number of values of a, both ends counted.
    """

    kind = "interpolation"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_pairs: int = 4, num_steps: int = 9) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_pairs < 1 or num_steps < 2:
            raise ValueError(
                f"callbacks.interpolation: num_pairs={num_pairs}, num_steps={num_steps}: "
                "at least 1 pair and 2 steps are needed"
            )
        self.num_faces = 2 * num_pairs
        self.num_steps = num_steps

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return interpolation_grid(model, faces, self.num_steps)
