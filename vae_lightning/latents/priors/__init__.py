"""Densities over latents to sample from: the one of training, and those that are fitted to the latents after it."""

from jaxtyping import Float
from torch import Tensor

from vae_lightning.latents.priors.base import Prior, PriorError
from vae_lightning.latents.priors.flow import Flow
from vae_lightning.latents.priors.gaussian import FittedGaussian, StandardNormal
from vae_lightning.latents.priors.mixture import GaussianMixture
from vae_lightning.system.names import did_you_mean
from vae_lightning.system.progress import Track, untracked

__all__ = [
    "PRIORS",
    "FittedGaussian",
    "Flow",
    "GaussianMixture",
    "Prior",
    "PriorError",
    "StandardNormal",
    "fit_prior",
    "prior_class",
]

PRIORS: dict[str, type[Prior]] = {
    prior.name: prior for prior in (StandardNormal, FittedGaussian, GaussianMixture, Flow)
}


def prior_class(name: str) -> type[Prior]:
    """
    Raises:
        PriorError: no such prior.
    """
    if name not in PRIORS:
        raise PriorError(f"{name!r} is no prior{did_you_mean(name, PRIORS)}; there are {', '.join(PRIORS)}")
    return PRIORS[name]


def fit_prior(name: str, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> Prior:
    """Fits a prior by name; `normal` is what it is whatever the latents.

    Raises:
        PriorError: no such prior, or these latents are too few, no numbers, or all the same.
    """
    kind = prior_class(name)
    if len(latents) < kind.fewest_latents:
        raise PriorError(
            f"{len(latents)} latents are too few for the prior {name!r}: it needs {kind.fewest_latents} or more; "
            "take more training images, or the prior 'normal', which is not fitted"
        )
    if kind.fewest_latents and not latents.isfinite().all():
        raise PriorError(f"the latents hold nan or inf, so that no prior {name!r} fits them; did the training diverge?")
    return kind.fit(latents, seed, track)
