"""A mixture of Gaussians fitted to the latents after training.

Source: Ghosh et al. 2020, section 4 ("ex-post density estimation"), arXiv:1903.12436.
"""

import warnings
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.latents.priors.base import NamedPrior, PriorError
from vae_lightning.latents.priors.gaussian import FittedGaussian, draw_noise
from vae_lightning.system.progress import Track, untracked

NUM_COMPONENTS = 10
MOST_ITERATIONS = 100
MOST_LATENTS = (
    1_024  # an iteration takes time by the cube of their number: with 4,096 half a minute, and several GB of memory
)
ADDED_VARIANCE = 0.01  # to each component's, where the whole of the latents has variance 1
SHARED_IMAGES_PER_LATENT = 4  # weight of the components' mean covariance in each: as of so many images per latent


class GaussianMixture(NamedPrior):
    """sum_k weights_k N(mean_k, C_k C_k^T) with full covariances; scikit-learn fits it and is not needed afterwards."""

    name: ClassVar[str] = "gmm"
    fewest_latents: ClassVar[int] = 2 * NUM_COMPONENTS

    def __init__(
        self,
        weights: Float[Tensor, " components"],
        means: Float[Tensor, "components latent"],
        choleskys: Float[Tensor, "components latent latent"],
        fit_settings: dict[str, Any] | None = None,
    ) -> None:
        if not (weights.ndim == 1 and weights.min() >= 0 and weights.sum() > 0 and len(weights) == len(means)):
            raise PriorError(f"weights of shape {tuple(weights.shape)} for {len(means)} means are not a mixture")
        super().__init__(means.shape[1])
        self.weights = weights.double()
        self.components = [FittedGaussian(mean, cholesky) for mean, cholesky in zip(means, choleskys, strict=True)]
        self._fit_settings = fit_settings or {}

    @classmethod
    def fit(cls, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> "GaussianMixture":
        """By expectation maximisation from a k-means start, in coordinates where the latents are white.

        White coordinates make the result independent of the latents' scale, which the added variance is not.

        Raises:
            PriorError: too many latents for full covariances.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Estimator

        if latents.shape[1] > MOST_LATENTS:
            raise PriorError(
                f"a mixture with full covariances of {latents.shape[1]:,} latents takes hours; up to {MOST_LATENTS:,} "
                "are fitted; take the prior 'gaussian'"
            )
        whole = FittedGaussian.fit(latents)
        estimator = Estimator(
            NUM_COMPONENTS, reg_covar=ADDED_VARIANCE, max_iter=MOST_ITERATIONS, random_state=seed % 2**32
        )
        for _ in track(range(1), f"Fitting a mixture of {NUM_COMPONENTS} Gaussians", 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early, it is a density all the same
                estimator.fit(whole.whiten(latents).float().numpy())
        weights, means, covariances = (
            torch.from_numpy(array).double() for array in (estimator.weights_, estimator.means_, estimator.covariances_)
        )
        settings = {
            "latents": len(latents),
            "components": NUM_COMPONENTS,
            "added_variance": ADDED_VARIANCE,
            "shared_images_per_latent": SHARED_IMAGES_PER_LATENT,
            "iterations": int(estimator.n_iter_),
            "converged": bool(estimator.converged_),
        }
        weights = weights / weights.sum()
        covariances = shrink_to_shared(covariances, weights, len(latents))
        return cls(weights, whole.colour(means), whole.cholesky @ torch.linalg.cholesky(covariances), settings)

    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        chosen = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        noise = temperature * draw_noise(num_samples, self.latent_dim, generator)
        samples = torch.empty_like(noise)
        for number, component in enumerate(self.components):
            samples[chosen == number] = component.colour(noise[chosen == number])
        return samples

    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        by_component = torch.stack([component.log_prob(latents) for component in self.components], dim=1)
        return torch.logsumexp(self.weights.log() + by_component, dim=1)

    def settings(self) -> dict[str, Any]:
        return self._fit_settings

    def tensors(self) -> dict[str, Tensor]:
        return {
            "weights": self.weights,
            "means": torch.stack([component.mean for component in self.components]),
            "choleskys": torch.stack([component.cholesky for component in self.components]),
        }

    @classmethod
    def from_tensors(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> "GaussianMixture":
        return cls(tensors["weights"], tensors["means"], tensors["choleskys"], settings)


def shrink_to_shared(
    covariances: Float[Tensor, "components latent latent"], weights: Float[Tensor, " components"], num_images: int
) -> Float[Tensor, "components latent latent"]:
    """Each covariance's mean with that of all components, which counts SHARED_IMAGES_PER_LATENT images per latent.

    800 images are few for 128 x 128 numbers: without this the mixture has 2 to 3 nats less on held-out latents, and
    1 nat less for 32 latents of 2,000 images.
    Source: Friedman 1989, "Regularized Discriminant Analysis", section 3.
    """
    images = num_images * weights[:, None, None]
    shared_images = SHARED_IMAGES_PER_LATENT * covariances.shape[1]
    shared = (weights[:, None, None] * covariances).sum(0)
    return (images * covariances + shared_images * shared) / (images + shared_images)
