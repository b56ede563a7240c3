"""A tighter bound on log p(x) than the ELBO: importance sampling with the encoder as the proposal."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.charts import Chart, draw_lines
from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.evaluation.intervals import bootstrap_interval
from vae_lightning.evaluation.likelihood import NO_ELBO
from vae_lightning.evaluation.measured import EvaluationError, Measured, Metric, Value
from vae_lightning.evaluation.pixel_likelihood import PixelLikelihood
from vae_lightning.evaluation.subject import Subject

NAMES = ("iwae_nats", "iwae_bits_per_dim", "iwae_gap_nats", "iwae_effective_samples")
FEW_EFFECTIVE = 2.0


@dataclass(frozen=True)
class ImportanceWeighted(Metric):
    """The bound of Burda et al. 2016, equation 8, arXiv:1509.00519, over 256 pixel levels.

    Args:
        num_samples: of the latents per image, K. The bound rises with K towards log p(x).
    """

    name: ClassVar[str] = "iwae"
    title: ClassVar[str] = "Importance-weighted likelihood"
    num_samples: int = 64

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise EvaluationError(f"importance_samples={self.num_samples}: at least 2; 64 is usual, 5000 is thorough")

    def measure(self, subject: Subject) -> Measured:
        posterior = subject.posterior()
        if not isinstance(posterior, DiagonalGaussian):
            return Measured([Value.missing(name, NO_ELBO) for name in NAMES])
        likelihood = PixelLikelihood(subject)
        rows = subject.rows(subject.split)

        def log_likelihood(part: slice, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
            images = subject.model_input(subject.pixels(subject.split, rows[part]))
            return -likelihood.nll(subject.predict(latents), images)

        log_weights = importance_weights(subject, posterior, log_likelihood, self.num_samples)
        return self._summary(log_weights, subject.model.num_pixels, likelihood.source)

    def _summary(self, log_weights: Float[np.ndarray, "images samples"], num_pixels: int, source: str) -> Measured:
        bound, elbo = importance_bound(log_weights), log_weights.mean(1)
        gap, effective = bound - elbo, effective_samples(log_weights)
        note = f"K = {self.num_samples}, over 256 levels; {source}"
        bits = -bound / (num_pixels * math.log(2))
        values = [
            Value("iwae_nats", float(bound.mean()), note, bootstrap_interval(bound), "higher"),
            Value("iwae_bits_per_dim", float(bits.mean()), note, bootstrap_interval(bits), "lower"),
            Value(
                "iwae_gap_nats",
                float(gap.mean()),
                "to the ELBO of the same samples: what the encoder's shape costs, at least",
                bootstrap_interval(gap),
            ),
            Value("iwae_effective_samples", float(effective.mean()), f"of {self.num_samples}; 1 means one dominates"),
        ]
        counts = [2**power for power in range(int(math.log2(self.num_samples)) + 1)]
        curve = [float(importance_bound(log_weights[:, :count]).mean()) for count in counts]
        few = float(effective.mean()) < FEW_EFFECTIVE
        remark = (
            "Few samples carry the importance weights: the bound is still far below log p(x), and would rise with "
            "--importance-samples."
        )
        return Measured(
            values,
            {"importance_samples": self.num_samples, "pixel_variance": source},
            [remark] if few else [],
            {
                "iwae": [
                    {"samples": count, "iwae_nats": bound_at} for count, bound_at in zip(counts, curve, strict=True)
                ]
            },
            {"iwae": draw_bound(counts, curve)},
        )


def draw_bound(counts: list[int], curve: list[float]) -> Chart:
    return draw_lines(
        "Importance-weighted bound", "samples of the latents, K", "nats per image", counts, {"bound": curve}
    )


@torch.inference_mode()
def importance_weights(
    subject: Subject,
    posterior: DiagonalGaussian,
    log_likelihood: Callable[[slice, Tensor], Tensor],
    num_samples: int,
) -> Float[np.ndarray, "images samples"]:
    """log p(x|z) + log p(z) - log q(z|x) for K draws of z from q(z|x).

    One draw for all images at a time, so memory does not grow with K. `log_likelihood(part, latents)` is that of the
    images of a part of the split; nats.
    """
    count = len(posterior.mean)
    log_weights = np.empty((count, num_samples))
    sigma = torch.exp(0.5 * posterior.logvar)
    steps = [(sample, first) for sample in range(num_samples) for first in range(0, count, subject.batch_size)]
    noise = torch.empty(0)
    for step in subject.track(range(len(steps)), "Importance samples", len(steps)):
        sample, first = steps[step]
        if first == 0:
            noise = subject.noise(count, "importance", sample)
        part = slice(first, min(first + subject.batch_size, count))
        latents = posterior.mean[part] + sigma[part] * noise[part]
        # log N(z; 0, I) - log N(z; mean, sigma^2): the constants cancel
        ratio = 0.5 * (noise[part].square() - latents.square() + posterior.logvar[part]).double().sum(1)
        log_weights[part, sample] = (log_likelihood(part, latents).cpu().double() + ratio).numpy()
    return log_weights


def importance_bound(log_weights: Float[np.ndarray, "images samples"]) -> Float[np.ndarray, " images"]:
    """log mean_k w_k."""
    return np.logaddexp.reduce(log_weights, axis=1) - math.log(log_weights.shape[1])


def effective_samples(log_weights: Float[np.ndarray, "images samples"]) -> Float[np.ndarray, " images"]:
    """(sum w)^2 / sum w^2. Source: Kong 1992."""
    return np.exp(2 * np.logaddexp.reduce(log_weights, axis=1) - np.logaddexp.reduce(2 * log_weights, axis=1))
