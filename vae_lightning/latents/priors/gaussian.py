"""Gaussian priors: N(0, I), which a VAE is trained with, and the Gaussian of its latents."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vae_lightning.latents.priors.base import NamedPrior, PriorError
from vae_lightning.system.progress import Track, untracked

SMALLEST_SHRINKAGE = 1e-6  # Ledoit and Wolf's is 0 for two images, whose covariance has rank 1


def standard_normal_log_prob(noise: Float[Tensor, "samples latent"]) -> Float64[Tensor, " samples"]:
    """log N(noise; 0, I) in nats, summed over latents."""
    return -0.5 * (noise.double().square().sum(1) + noise.shape[1] * math.log(2 * math.pi))


def draw_noise(num_samples: int, latent_dim: int, generator: torch.Generator) -> Float64[Tensor, "samples latent"]:
    return torch.randn(num_samples, latent_dim, generator=generator, dtype=torch.float64)


class StandardNormal(NamedPrior):
    """N(0, I), to which the KL term draws a VAE's posteriors. There is nothing to fit."""

    name: ClassVar[str] = "normal"
    fewest_latents: ClassVar[int] = 0
    scales_each_latent: ClassVar[bool] = True

    @classmethod
    def fit(cls, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> "StandardNormal":
        return cls(latents.shape[1])

    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        return temperature * draw_noise(num_samples, self.latent_dim, generator)

    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        return standard_normal_log_prob(latents)

    def settings(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim}

    def tensors(self) -> dict[str, Tensor]:
        return {}

    @classmethod
    def from_tensors(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> "StandardNormal":
        return cls(settings["latent_dim"])


class FittedGaussian(NamedPrior):
    """N(mean, C C^T) with the full covariance of the latents.

    Args:
        mean: of the latents.
        cholesky: C, lower triangular with a positive diagonal.
        fit_settings: how it was fitted, as plain data.
    """

    name: ClassVar[str] = "gaussian"
    fewest_latents: ClassVar[int] = 2

    def __init__(
        self,
        mean: Float[Tensor, " latent"],
        cholesky: Float[Tensor, "latent latent"],
        fit_settings: dict[str, Any] | None = None,
    ) -> None:
        if mean.ndim != 1 or cholesky.shape != (len(mean), len(mean)):
            raise PriorError(
                f"a mean of {tuple(mean.shape)} with a matrix of {tuple(cholesky.shape)} is not a Gaussian"
            )
        super().__init__(len(mean))
        self.mean = mean.double()
        self.cholesky = cholesky.double()
        self.log_volume = float(self.cholesky.diagonal().log().sum())  # log |det C|
        self._fit_settings = fit_settings or {}

    @classmethod
    def fit(cls, latents: Float[Tensor, "images latent"], seed: int = 0, track: Track = untracked) -> "FittedGaussian":
        """Mean and shrunk covariance (1 - s) S + s tr(S)/d I, positive definite however few images there are.

        The shrinkage s is the one with the least expected squared error: about 0.01 or less for thousands of images.
        Source: Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
        """
        from sklearn.covariance import empirical_covariance, ledoit_wolf_shrinkage, shrunk_covariance

        points = latents.double().numpy()
        covariance = empirical_covariance(points)
        if not covariance.trace() > 0:
            raise PriorError(f"all {len(points)} latents are the same, so they have no density; was the model trained?")
        shrinkage = max(float(ledoit_wolf_shrinkage(points)), SMALLEST_SHRINKAGE)
        cholesky = torch.linalg.cholesky(torch.from_numpy(shrunk_covariance(covariance, shrinkage)))
        return cls(torch.from_numpy(points.mean(0)), cholesky, {"latents": len(points), "shrinkage": shrinkage})

    def whiten(self, latents: Float[Tensor, "samples latent"]) -> Float64[Tensor, "samples latent"]:
        """C^-1 (z - mean): standard normal where z has this density."""
        return torch.linalg.solve_triangular(self.cholesky, (latents.double() - self.mean).T, upper=False).T

    def colour(self, noise: Float[Tensor, "samples latent"]) -> Float64[Tensor, "samples latent"]:
        """The inverse of `whiten`."""
        return self.mean + noise.double() @ self.cholesky.T

    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        return self.colour(temperature * draw_noise(num_samples, self.latent_dim, generator))

    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        return standard_normal_log_prob(self.whiten(latents)) - self.log_volume

    def settings(self) -> dict[str, Any]:
        return self._fit_settings

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "cholesky": self.cholesky}

    @classmethod
    def from_tensors(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> "FittedGaussian":
        return cls(tensors["mean"], tensors["cholesky"], settings)
