"""Densities over latents to sample from: the prior of training, and those fitted to the latents after it."""

from jaxtyping import Float
from torch import Tensor

from vae_lightning.latents.priors.base import NamedPrior, Prior, PriorError
from vae_lightning.latents.priors.coarse import CoarsePrior
from vae_lightning.latents.priors.flow import Flow
from vae_lightning.latents.priors.gaussian import FittedGaussian, StandardNormal
from vae_lightning.latents.priors.mixture import GaussianMixture
from vae_lightning.system.names import not_allowed
from vae_lightning.system.progress import Track, untracked

__all__ = [
    "PRIORS",
    "CoarsePrior",
    "FittedGaussian",
    "Flow",
    "GaussianMixture",
    "Prior",
    "PriorError",
    "StandardNormal",
    "fit_prior",
    "prior_class",
]

PRIORS: dict[str, type[NamedPrior]] = {
    prior.name: prior for prior in (StandardNormal, FittedGaussian, GaussianMixture, Flow)
}


def prior_class(name: str) -> type[NamedPrior]:
    """
    Raises:
        PriorError: unknown name.
    """
    if name not in PRIORS:
        raise PriorError(not_allowed("prior", name, PRIORS))
    return PRIORS[name]


def fit_prior(name: str, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> NamedPrior:
    """Fits the prior of that name; `normal` does not depend on the latents.

    Raises:
        PriorError: unknown name, or the latents are too few, not finite, or all the same.
    """
    kind = prior_class(name)
    if len(latents) < kind.fewest_latents:
        raise PriorError(
            f"{len(latents)} latents are too few for the prior {name!r}: it needs {kind.fewest_latents} or more; "
            "take more training images, or the prior 'normal', which is not fitted"
        )
    if kind.fewest_latents and not latents.isfinite().all():
        raise PriorError("the latents hold nan or inf, so that no prior can be fitted; did the training diverge?")
    return kind.fit(latents, seed, track)
