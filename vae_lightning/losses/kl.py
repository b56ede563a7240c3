"""KL terms: the whole KL, or only the part of it that exceeds a free allowance."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.losses.process_means import mean_over_processes
from vae_lightning.models.levels import LatentLevel


class KLTerm(ABC):
    """From the KL of every image and latent to the one number that the objective weighs by beta.

    `has_allowance` says whether a part of the KL is free, so that the term keeps it above 0. `words` is what a model
    card calls the term; without it the card has the name of the class.
    """

    has_allowance = False
    words: ClassVar[str] = ""

    def check_levels(self, levels: Sequence[LatentLevel]) -> None:  # noqa: B027 - most terms fit all levels
        """Refuses a model whose levels of latents the term cannot weigh; called before any data is read.

        Raises:
            ValueError: the levels do not fit the term.
        """

    @abstractmethod
    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        """Nats, summed over latents, averaged over the batch."""


class AnalyticKL(KLTerm):
    """The KL itself."""

    words = "KL(q(z|x) ‖ N(0, I))"

    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        return kl_per_latent.sum(1).mean()


class FreeBits(KLTerm):
    """sum_j max(nats_per_latent, mean over the batch of KL_j): a KL below the allowance is not rewarded.

    The logged `kl_nats` is the true KL; only the loss contains the allowance.
    Source: Kingma et al. 2016, equation 15, arXiv:1606.04934, with one latent per group.

    Args:
        nats_per_latent: the allowance.
    """

    has_allowance = True
    words = "KL(q(z|x) ‖ N(0, I)), of which each latent has an allowance free"

    def __init__(self, nats_per_latent: float = 0.25) -> None:
        if not math.isfinite(nats_per_latent) or nats_per_latent <= 0:
            raise ValueError(
                f"kl.nats_per_latent={nats_per_latent}: must be a number above 0; kl=analytic has no allowance"
            )
        self.nats_per_latent = nats_per_latent

    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        return torch.clamp(mean_over_processes(kl_per_latent.mean(0)), min=self.nats_per_latent).sum()


class PerLevelKL(KLTerm):
    """sum_l weight_l * max(free nats_l, mean over the batch of KL_l) over the levels of a hierarchical model.

    A weight above 1 makes a level's nats dear, so that others carry more; free nats keep a level awake. The logged
    `kl_nats` is the true KL.
    Source: Kingma et al. 2016, equation 15, arXiv:1606.04934, with one group per level.

    Args:
        weights: one for each level, coarse first; null: 1 for all.
        free_nats: that each level may say for nothing; null: none.
    """

    words = "KL(q(z|x) ‖ N(0, I)), weighed level by level"

    def __init__(self, weights: Sequence[float] | None = None, free_nats: Sequence[float] | None = None) -> None:
        for name, values in (("weights", weights), ("free_nats", free_nats)):
            if values is not None and not all(math.isfinite(value) and value >= 0 for value in values):
                raise ValueError(f"kl.{name}={list(values)}: must be finite numbers, 0 or larger, one for each level")
        self.weights = None if weights is None else tuple(weights)
        self.free_nats = None if free_nats is None else tuple(free_nats)
        self.has_allowance = any(self.free_nats or ())
        self._sizes: list[int] = []

    def check_levels(self, levels: Sequence[LatentLevel]) -> None:
        names = ", ".join(level.name for level in levels)
        if len(levels) == 1:
            raise ValueError(
                "kl=per_level weighs the levels of a hierarchical model, and this one has a single level: set "
                "model=ladder, or kl=analytic (kl=free_bits for an allowance)"
            )
        for name, values in (("weights", self.weights), ("free_nats", self.free_nats)):
            if values is not None and len(values) != len(levels):
                raise ValueError(
                    f"kl.{name}={list(values)}: {len(values)} numbers for {len(levels)} levels; give one for each of "
                    f"{names}"
                )
        self._sizes = [level.size for level in levels]

    def __call__(self, kl_per_latent: Float[Tensor, "batch latent"]) -> Float[Tensor, ""]:
        per_level = torch.stack([part.sum() for part in kl_per_latent.mean(0).split(self._sizes)])
        if self.free_nats is not None:
            per_level = torch.maximum(mean_over_processes(per_level), per_level.new_tensor(self.free_nats))
        if self.weights is not None:
            per_level = per_level * per_level.new_tensor(self.weights)
        return per_level.sum()
