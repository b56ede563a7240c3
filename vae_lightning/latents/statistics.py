"""Mean, spread and KL of each latent over real faces, kept beside a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.latents.fitted_file import FittedFile
from vae_lightning.models.distributions import Deterministic, Posterior


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Statistics of the posterior means of held-out faces.

    Args:
        mean: of each latent.
        std: of each latent.
        kl_nats: mean KL to the prior of each latent, of a hierarchical model given the means above; None for a plain
            autoencoder.
    """

    mean: Float[Tensor, " latent"]
    std: Float[Tensor, " latent"]
    kl_nats: Float[Tensor, " latent"] | None

    def most_active(self, count: int, among: int | None = None) -> list[int]:
        """Latents with the largest KL first; a plain autoencoder's with the largest standard deviation first.

        Args:
            count: at most so many.
            among: the first so many latents, for example those of a hierarchical model's coarse levels; None: all.
        """
        activity = (self.std if self.kl_nats is None else self.kl_nats)[:among]
        return activity.topk(min(count, len(activity))).indices.tolist()


def latent_statistics(posteriors: Sequence[Posterior]) -> LatentStatistics:
    """The statistics of batches of posteriors together."""
    mean = torch.cat([posterior.mean.cpu() for posterior in posteriors])
    nats = [posterior.kl_per_latent().cpu() for posterior in posteriors if not isinstance(posterior, Deterministic)]
    return LatentStatistics(mean.mean(0), mean.std(0, correction=0), torch.cat(nats).mean(0) if nats else None)


@dataclass(frozen=True)
class LatentStatisticsFile(FittedFile):
    """The statistics of one checkpoint."""

    format: ClassVar[int] = 1
    holds: ClassVar[str] = "statistics of latents"
    error: ClassVar[type[ValueError]] = ValueError

    def read(self) -> LatentStatistics | None:
        """None where the file is not there, or belongs to another checkpoint.

        Raises:
            ValueError: the file is damaged.
        """
        with self.content() as content:
            if not content:
                return None
            known = [content[name] for name in ("mean", "std", "kl_nats") if content[name] is not None]
            if len({each.shape for each in known}) != 1 or known[0].ndim != 1 or len(known) < 2:
                raise ValueError("their numbers of latents differ")
            return LatentStatistics(content["mean"], content["std"], content["kl_nats"])

    def write(self, statistics: LatentStatistics) -> None:
        """Writes the file anew."""
        self.keep(mean=statistics.mean, std=statistics.std, kl_nats=statistics.kl_nats)
