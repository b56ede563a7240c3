"""Autoencoders: one file per architecture, one contract (`Autoencoder`)."""

from vae_lightning.models.base import Autoencoder, ModelError
from vae_lightning.models.conv import ConvVAE

__all__ = ["Autoencoder", "ConvVAE", "ModelError"]
