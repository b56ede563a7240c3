"""Held-out faces above their reconstructions."""

from jaxtyping import UInt8
from torch import Tensor

from callbacks.image_grid import ImageGrid
from vae_lightning.face_grids import Grid, reconstruction_grid
from vae_lightning.models import Autoencoder


class ReconstructionGrid(ImageGrid):
    """Originals in the upper row, the decoder's mean at the posterior mean in the lower one.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw.
        num_faces: number of faces.
    """

    kind = "reconstruction"

    def __init__(self, run_dir: str, every_n_epochs: int = 5, num_faces: int = 10) -> None:
        super().__init__(run_dir, every_n_epochs)
        if num_faces < 1:
            raise ValueError(f"callbacks.reconstruction.num_faces={num_faces}: must be at least 1")
        self.num_faces = num_faces

    def draw(self, model: Autoencoder, faces: UInt8[Tensor, "faces channels height width"]) -> Grid:
        return reconstruction_grid(model, faces)
