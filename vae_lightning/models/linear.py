"""The fully connected VAE and autoencoder: one hidden layer on each side."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.base import Autoencoder
from vae_lightning.models.blocks import make_activation


class LinearVAE(Autoencoder):
    """Pixels -> hidden -> latents -> hidden -> pixels. Takes images of any size; knows no neighbours.

    Args:
        hidden_dim: width of the hidden layer, the same in encoder and decoder.
        activation: non-linearity of the hidden layers: "relu", "leaky_relu", "elu", "silu" or "gelu".
        others: see `Autoencoder`.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    def __init__(self, hidden_dim: int = 512, activation: str = "relu", **others: Any) -> None:
        super().__init__(**others)
        if hidden_dim < 1:
            raise ValueError(f"model.hidden_dim={hidden_dim}: at least 1 hidden unit is needed")
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(self.num_pixels, hidden_dim),
            make_activation(activation),
            nn.Linear(hidden_dim, self.num_posterior_parameters),
        )
        self.decoder = nn.Sequential(
            nn.Linear(self.latent_dim, hidden_dim),
            make_activation(activation),
            nn.Linear(hidden_dim, self.num_pixel_maps * self.image_size**2),
            nn.Unflatten(1, (self.num_pixel_maps, self.image_size, self.image_size)),
        )

    def posterior_parameters(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch parameters"]:
        parameters: Tensor = self.encoder(images)
        return parameters

    def pixel_parameters(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps height width"]:
        maps: Tensor = self.decoder(latents)
        return maps
