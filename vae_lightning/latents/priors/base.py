"""The contract of every prior over the latents: samples and their density."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.system.progress import Track, untracked


class PriorError(ValueError):
    """A prior that does not exist, or cannot be fitted or used so; the message says what is allowed and the fix."""


class Prior(ABC):
    """A density over latents, computed on the CPU.

    Samples are float32, as decoders read them; densities are computed and returned in float64.
    """

    scales_each_latent: ClassVar[bool] = False  # whether latents may differ in temperature: they are independent

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim

    def sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"] = 1.0
    ) -> Float[Tensor, "samples latent"]:
        """Draws latents: the same for the same state of `generator`, which is on the CPU.

        `temperature` scales the spread: 1 is the prior itself, 0 its centre (for a mixture: the components' centres).
        It may differ by latent where they are independent.

        Raises:
            PriorError: fewer than 1 sample, a negative temperature, or several for latents that depend on each other.
        """
        if num_samples < 1:
            raise PriorError(f"num_samples={num_samples}: must be at least 1")
        least, most = torch.as_tensor(temperature, dtype=torch.float64).aminmax()
        if not 0 <= least <= most < float("inf"):
            raise PriorError(f"temperature={temperature}: must be 0 (no spread) or more; 1 is the prior itself")
        if isinstance(temperature, Tensor) and not self.scales_each_latent:
            if least < most:
                raise PriorError(
                    "several temperatures: the levels that a prior was fitted to depend on each other in it, so that "
                    "they have one together; give one number, or the same to all coarse levels. The prior 'normal' "
                    "takes one for each level"
                )
            temperature = float(most)
        return self._sample(num_samples, generator, temperature).float()

    @abstractmethod
    def _sample(
        self, num_samples: int, generator: torch.Generator, temperature: float | Float[Tensor, " latent"]
    ) -> Float[Tensor, "samples latent"]:
        """One temperature unless `scales_each_latent`."""

    @abstractmethod
    def log_prob(self, latents: Float[Tensor, "samples latent"]) -> Float[Tensor, " samples"]:
        """Log-density in nats at temperature 1."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """How it was fitted, as plain data."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that a file has to hold beside the settings."""


class NamedPrior(Prior):
    """A prior that is asked for, fitted and kept by its name."""

    name: ClassVar[str]
    fewest_latents: ClassVar[int]  # needed for a fit

    @classmethod
    @abstractmethod
    def fit(cls, latents: Float[Tensor, "images latent"], seed: int, track: Track = untracked) -> "NamedPrior":
        """Fits the density: the same for the same latents and seed; torch's global random state is not used.

        Raises:
            PriorError: these latents have no such density.
        """

    @classmethod
    @abstractmethod
    def from_tensors(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> "NamedPrior":
        """The same prior again from its `settings()` and `tensors()`."""
