"""A tighter bound on log p(x) than the ELBO: importance sampling with the encoder as the proposal."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.evaluation.metrics.likelihood import NO_ELBO, PixelLikelihood
from vae_lightning.pictures.charts import Chart, draw_lines
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Result, Value

NAMES = ("iwae_nats", "iwae_bits_per_dim", "iwae_gap_nats", "iwae_effective_samples")
FEW_EFFECTIVE = 2.0
SCALES = tuple(2 ** (-power / 2) for power in range(13))  # of the proposal's width: 1 to 1/64
SCALED_IMAGES = 256  # training images on which one of them is chosen

LogWeight = Callable[[slice, Tensor], Tensor]  # part of the images, noise -> nats, in float64 on the CPU


@dataclass(frozen=True)
class ImportanceWeighted(Metric):
    """The bound of Burda et al. 2016, equation 8, arXiv:1509.00519, over 256 pixel levels.

    The proposal is the encoder's posterior. Where the pixels' variance was calibrated after training, the encoder
    still has the width that fitted another variance; a common factor on that width is then chosen on training
    images, which keeps the bound a bound and makes it hundreds of nats tighter.

    Args:
        importance_samples: of the latents per image, K. The bound rises with K towards log p(x).
    """

    title: ClassVar[str] = "Importance-weighted likelihood"
    place: ClassVar[int] = 20
    importance_samples: int = 64

    def __post_init__(self) -> None:
        if self.importance_samples < 2:
            raise EvaluationError(
                f"importance_samples={self.importance_samples}: at least 2; 64 is usual, 5000 is thorough"
            )

    def measure(self, subject: Subject) -> Result:
        if not subject.model.has_prior:
            return Result([Value.missing(name, NO_ELBO) for name in NAMES])
        likelihood = PixelLikelihood(subject)
        scale = choose_scale(subject, likelihood) if likelihood.is_calibrated else 1.0
        count = len(subject.rows(subject.split))
        log_weight = log_weight_of(subject, likelihood, scale)
        log_weights = importance_weights(subject, count, log_weight, self.importance_samples)
        elbo = log_weights.mean(1)
        if scale != 1:  # the ELBO is that of the encoder without the factor
            elbo = importance_weights(subject, count, log_weight_of(subject, likelihood), 1)[:, 0]
        proposal = "the encoder's posterior" if scale == 1 else f"the encoder's posterior, {scale:.3g} times as wide"
        protocol = {
            "pixel_variance": likelihood.source,
            "proposal": proposal,
            "proposal_scale": scale,
        }
        return self._summary(log_weights, elbo, subject.model.num_pixels, protocol)

    def _summary(
        self,
        log_weights: Float[np.ndarray, "images samples"],
        elbo: Float[np.ndarray, " images"],
        num_pixels: int,
        protocol: dict[str, Any],
    ) -> Result:
        bound, effective = importance_bound(log_weights), effective_samples(log_weights)
        note = f"K = {self.importance_samples}, over 256 levels; proposal: {protocol['proposal']}"
        bits = -bound / (num_pixels * math.log(2))
        values = [
            Value("iwae_nats", float(bound.mean()), note, bootstrap_interval(bound), "higher"),
            Value(
                "iwae_bits_per_dim", float(bits.mean()), protocol["pixel_variance"], bootstrap_interval(bits), "lower"
            ),
            Value(
                "iwae_gap_nats",
                float((bound - elbo).mean()),
                "to the ELBO over 256 levels: what the encoder's shape costs, at least",
                bootstrap_interval(bound - elbo),
            ),
            Value(
                "iwae_effective_samples",
                float(effective.mean()),
                f"of {self.importance_samples}; 1 means one dominates",
            ),
        ]
        counts = [2**power for power in range(int(math.log2(self.importance_samples)) + 1)]
        curve = [float(importance_bound(log_weights[:, :count]).mean()) for count in counts]
        few = float(effective.mean()) < FEW_EFFECTIVE
        remark = (
            "Few samples carry the weights: the bound is below log p(x) by an unknown amount and would rise "
            "with --importance-samples."
        )
        return Result(
            values,
            protocol,
            [remark] if few else [],
            {"iwae": [{"samples": count, "iwae_nats": at} for count, at in zip(counts, curve, strict=True)]},
            {"iwae": draw_bound(counts, curve)},
        )


def log_weight_of(
    subject: Subject,
    likelihood: PixelLikelihood,
    scale: float = 1.0,
    split: Split | None = None,
    at_most: int | None = None,
) -> LogWeight:
    """log p(x|z) + log p(z) - log q(z|x) of a part of `rows(split, at_most)`, z from q(z|x) made `scale` times as wide.

    A draw of the wider posterior is one of the encoder's with `scale` times the noise, level by level, and has
    another density.
    """
    sample = subject.sampler(split, at_most)

    @torch.inference_mode()
    def log_weight(part: slice, noise: Float[Tensor, "batch latent"]) -> Float64[Tensor, " batch"]:
        images, draw, prediction = sample(part, scale * noise)
        # log of N(scale * noise; 0, scale^2 I) over N(scale * noise; 0, I)
        wider = 0.5 * (scale**2 - 1) * noise.double().square().sum(1) - noise.shape[1] * math.log(scale)
        return -likelihood.nll(prediction, images).cpu().double() - draw.log_ratio.cpu().double() - wider

    return log_weight


def choose_scale(subject: Subject, likelihood: PixelLikelihood) -> float:
    """The factor on the posterior's width under which training images have the highest ELBO."""
    count = len(subject.rows("train", SCALED_IMAGES))

    def elbo(scale: float) -> float:
        log_weight = log_weight_of(subject, likelihood, scale, "train", SCALED_IMAGES)
        return float(importance_weights(subject, count, log_weight, 1).mean())

    elbos = {scale: elbo(scale) for scale in SCALES}
    return max(elbos, key=lambda scale: elbos[scale])


def draw_bound(counts: list[int], curve: list[float]) -> Chart:
    return draw_lines(
        "Importance-weighted bound", "samples of the latents, K", "nats per image", counts, {"bound": curve}
    )


def importance_weights(
    subject: Subject, count: int, log_weight: LogWeight, num_samples: int
) -> Float[np.ndarray, "images samples"]:
    """Log-weights of K draws for each image; one draw for all images at a time, so memory does not grow with K."""
    log_weights = np.empty((count, num_samples))
    steps = [(sample, first) for sample in range(num_samples) for first in range(0, count, subject.batch_size)]
    noise = None
    for step in subject.track(range(len(steps)), "Importance samples", len(steps)):
        sample, first = steps[step]
        if first == 0:
            noise = subject.noise(count, "importance", sample)
        assert noise is not None
        part = slice(first, min(first + subject.batch_size, count))
        log_weights[part, sample] = log_weight(part, noise[part]).numpy()
    return log_weights


def importance_bound(log_weights: Float[np.ndarray, "images samples"]) -> Float[np.ndarray, " images"]:
    """log mean_k w_k."""
    return np.logaddexp.reduce(log_weights, axis=1) - math.log(log_weights.shape[1])


def effective_samples(log_weights: Float[np.ndarray, "images samples"]) -> Float[np.ndarray, " images"]:
    """(sum w)^2 / sum w^2. Source: Kong 1992."""
    return np.exp(2 * np.logaddexp.reduce(log_weights, axis=1) - np.logaddexp.reduce(2 * log_weights, axis=1))
