"""A prior of a hierarchical model's coarse levels, completed to all latents by the prior of training."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.latents.priors.base import NamedPrior, Prior, PriorError
from vae_lightning.latents.priors.gaussian import draw_noise, standard_normal_log_prob


class CoarsePrior(Prior):
    """`fitted` for the latents of the coarse levels, which come first, and N(0, I) for the finer ones.

    Args:
        fitted: to the coarse levels.
        levels: their names.
        latent_dim: latents of all levels.

    Raises:
        PriorError: the coarse levels have more latents than all levels.
    """

    scales_each_latent: ClassVar[bool] = True  # but `fitted` may take one temperature for its levels

    def __init__(self, fitted: NamedPrior, levels: Sequence[str], latent_dim: int) -> None:
        if fitted.latent_dim > latent_dim:
            raise PriorError(f"a prior of {fitted.latent_dim} latents does not fit a model that has {latent_dim}")
        super().__init__(latent_dim)
        self.fitted = fitted
        self.levels = tuple(levels)

    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        temperatures = torch.as_tensor(temperature, dtype=torch.float64).expand(self.latent_dim)
        of_coarse, of_finer = temperatures.tensor_split([self.fitted.latent_dim])
        coarse = self.fitted.sample(num_samples, generator, of_coarse)
        return torch.cat([coarse, of_finer * draw_noise(num_samples, len(of_finer), generator)], dim=1)

    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        coarse, finer = latents.tensor_split([self.fitted.latent_dim], dim=1)
        return self.fitted.log_prob(coarse) + standard_normal_log_prob(finer)

    def settings(self) -> dict[str, Any]:
        return self.fitted.settings() | {"levels": self.levels, "latent_dim": self.latent_dim}

    def tensors(self) -> dict[str, Tensor]:
        return self.fitted.tensors()
