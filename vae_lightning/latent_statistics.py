"""Where the latents of real faces lie, and which of them a model uses; kept beside a checkpoint."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.distributions import DiagonalGaussian, Posterior
from vae_lightning.files import replacing

FORMAT = 1  # to be raised when they are measured or stored in another way: files of another format are not used


class LatentStatisticsError(ValueError):
    """The file holds no statistics that can be read."""


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Of the posterior means of held-out faces.

    Args:
        mean: of each latent.
        std: of each latent.
        kl_nats: mean KL to the prior of each latent; None for a plain autoencoder.
    """

    mean: Float[Tensor, " latent"]
    std: Float[Tensor, " latent"]
    kl_nats: Float[Tensor, " latent"] | None

    def most_active(self, count: int) -> list[int]:
        """Latents by falling KL; a plain autoencoder's by falling standard deviation."""
        activity = self.std if self.kl_nats is None else self.kl_nats
        return activity.topk(min(count, len(activity))).indices.tolist()


def latent_statistics(posteriors: Sequence[Posterior]) -> LatentStatistics:
    """
    Args:
        posteriors: of batches of images.
    """
    mean = torch.cat([posterior.mean.cpu() for posterior in posteriors])
    nats = [posterior.kl_per_latent().cpu() for posterior in posteriors if isinstance(posterior, DiagonalGaussian)]
    return LatentStatistics(mean.mean(0), mean.std(0, correction=0), torch.cat(nats).mean(0) if nats else None)


@dataclass(frozen=True)
class LatentStatisticsFile:
    """The statistics of one checkpoint: plain tensors, read without running any code.

    Args:
        path: of the file; it and its folder are made when they are written.
        checkpoint_digest: of the checkpoint whose latents they describe. Those of another are not used.
    """

    path: Path
    checkpoint_digest: str

    def read(self) -> LatentStatistics | None:
        """None where the file is not there, or belongs to another checkpoint.

        Raises:
            LatentStatisticsError: the file is damaged.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if (content["format"], content["checkpoint"]) != (FORMAT, self.checkpoint_digest):
                return None
            return LatentStatistics(content["mean"], content["std"], content["kl_nats"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise LatentStatisticsError(
                f"{self.path} holds no statistics of latents that can be read ({reason}); delete it to measure again"
            ) from error

    def write(self, statistics: LatentStatistics) -> None:
        """Replaces what is there."""
        content = {"mean": statistics.mean, "std": statistics.std, "kl_nats": statistics.kl_nats}
        with replacing(self.path) as unfinished:
            torch.save({"format": FORMAT, "checkpoint": self.checkpoint_digest, **content}, unfinished)
