"""Autoencoders: one file per architecture, one contract (`Autoencoder`)."""

from vae_lightning.models.base import Autoencoder
from vae_lightning.models.conv import ConvVAE
from vae_lightning.models.ladder import LadderVAE
from vae_lightning.models.linear import LinearVAE
from vae_lightning.models.patch import PatchVAE
from vae_lightning.models.residual import ResidualVAE

__all__ = ["Autoencoder", "ConvVAE", "LadderVAE", "LinearVAE", "PatchVAE", "ResidualVAE"]
