"""The ELBO and its terms, and the same as bits per dimension."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.evaluation.metric import Metric
from vae_lightning.models.distributions import PixelPrediction, discretised_gaussian_nll
from vae_lightning.models.pixels import mean_squared_error
from vae_lightning.runs.subject import Images, Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Direction, Result, Value

NO_ELBO = "posterior=deterministic made this a plain autoencoder, which has no likelihood of images"
BOUNDS = ("elbo_nats", "kl_nats", "discretised_elbo_nats", "bits_per_dim")
HARMONIC_SCORES = ("normalized_nll", "normalized_kl", "harmonic_mean")
CALIBRATION_IMAGES = 2_000


@dataclass(frozen=True)
class Likelihood(Metric):
    """One latent sample per image, as in validation; nats per image, summed over pixels and latents."""

    title: ClassVar[str] = "Likelihood"
    place: ClassVar[int] = 10

    def measure(self, subject: Subject) -> Result:
        has_prior = subject.model.has_prior
        likelihood = PixelLikelihood(subject) if has_prior else None
        found = per_image(subject, likelihood)
        term = type(subject.reconstruction).__name__
        values = [
            _mean("reconstruction_nats", found, "lower", f"−log p(x|z) of the run's own pixel term, {term}"),
            _mean("mse", found, "lower", "of decode(z), z ~ q(z|x), per pixel in [0, 1], as logged in training"),
        ]
        if likelihood is None:
            missing = [Value.missing(name, NO_ELBO) for name in (*BOUNDS, *HARMONIC_SCORES)]
            return Result([*values, *missing], {"latent_samples_per_image": 0})
        is_whole = term.startswith("Gaussian") or subject.reconstruction.has_probability
        up_to = "" if is_whole else ", up to that term's constant"
        closed = "closed form" if subject.model.is_flat else "each level's in closed form, given a draw of those above"
        bits = f"ELBO of a proper likelihood over 256 levels; {likelihood.source}"
        values = [
            _mean("elbo_nats", found, "higher", f"−(reconstruction_nats + kl_nats), β = 1{up_to}"),
            values[0],
            _mean("kl_nats", found, "", f"KL(q(z|x) || N(0, I)), {closed}"),
            _mean("bits_per_dim", found, "lower", bits),
            _mean("discretised_elbo_nats", found, "higher", "the same in nats per image"),
            values[1],
            *harmonic_scores(found["unit_variance_nll"].mean(), found["kl_nats"].mean(), subject),
        ]
        return Result(values, {"latent_samples_per_image": 1, "pixel_variance": likelihood.source})


class PixelLikelihood:
    """The model's own probability of each pixel's level where its pixel term is one; else a Gaussian's mass in each
    pixel's bin, with the model's own variance where its pixel term has one.

    A model of squared errors says nothing about the variance: it gets the one that makes its reconstructions of
    training images most likely, their mean squared error (Rybkin et al. 2021, equation 6, arXiv:2006.13202).
    """

    def __init__(self, subject: Subject) -> None:
        self.reconstruction = subject.reconstruction
        self.pixel_range = subject.model.pixel_range
        self.source = "the model's own variance"
        self._calibrated: Tensor | None = None
        probe = subject.predict(torch.zeros(1, subject.model.latent_dim))
        if self.reconstruction.has_probability:
            self.source = "the model's own probabilities of the levels"
        elif self.reconstruction.pixel_variance(probe) is None:
            mse, count = calibrate(subject)
            self._calibrated = torch.tensor(mse, device=subject.device)
            self.source = f"one σ = {mse**0.5:.4f} of pixels in [0, 1], calibrated on {count:,} training images"

    @property
    def is_calibrated(self) -> bool:
        """Whether the variance was calibrated after training, so that the encoder was trained with another one."""
        return self._calibrated is not None

    def nll(self, prediction: PixelPrediction, images: Images) -> Float[Tensor, " batch"]:
        """Nats, summed over pixels; `images` hold the 256 levels in the model's range."""
        if self.reconstruction.has_probability:
            nats: Tensor = self.reconstruction(prediction, images)
            return nats
        return discretised_gaussian_nll(prediction.mean, images, self._variance(prediction), self.pixel_range)

    def _variance(self, prediction: PixelPrediction) -> Float[Tensor, "..."]:
        if self._calibrated is not None:
            return self._calibrated
        variance = self.reconstruction.pixel_variance(prediction)
        assert variance is not None
        low, high = self.pixel_range
        return variance / (high - low) ** 2


@torch.inference_mode()
def per_image(subject: Subject, likelihood: PixelLikelihood | None) -> dict[str, Float[np.ndarray, " images"]]:
    """All terms of the ELBO for every image of the split, in float64."""
    rows = subject.rows(subject.split)
    noise, sample = subject.noise(len(rows), "elbo"), subject.sampler()
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for part in subject.batches(len(rows), "Likelihood"):
        images, draw, prediction = sample(part, noise[part])
        parts["kl_nats"].append(draw.kl_per_latent.sum(1))
        parts["reconstruction_nats"].append(subject.reconstruction(prediction, images))
        parts["mse"].append(mean_squared_error(prediction.mean, images, subject.model.pixel_range))
        if likelihood is not None:
            parts["pixel_nats"].append(likelihood.nll(prediction, images))
    found = {name: torch.cat(each).cpu().double().numpy() for name, each in parts.items()}
    if likelihood is None:
        return found
    found["elbo_nats"] = -(found["reconstruction_nats"] + found["kl_nats"])
    found["discretised_elbo_nats"] = -(found.pop("pixel_nats") + found["kl_nats"])
    found["bits_per_dim"] = -found["discretised_elbo_nats"] / (subject.model.num_pixels * math.log(2))
    found["unit_variance_nll"] = subject.model.num_pixels * (0.5 * math.log(2 * math.pi) + 0.5 * found["mse"])
    return found


def harmonic_scores(nll_nats: float, kl_nats: float, subject: Subject) -> list[Value]:
    """The scores of the original of the preset `residual`: NLL / D, KL / d, and their harmonic mean.

    Its description leaves the NLL's variance open. Its own figures say 1: normalised NLL 0.921 is 0.5 log(2 pi) plus
    half a squared error of 0.004, and with KL/d = 54.88 it gives its 2.98 bits per dimension.
    """
    nll, kl = nll_nats / subject.model.num_pixels, kl_nats / subject.model.latent_dim
    density = "the NLL is that of N(x; decode(z), I), a density"
    return [
        Value("normalized_nll", float(nll), f"NLL / number of pixel values; {density}", None, "lower"),
        Value("normalized_kl", float(kl), "KL / number of latents, nats"),
        Value("harmonic_mean", float(2 * nll * kl / (nll + kl)), "of the two above; it has no better end"),
    ]


def _mean(name: str, found: dict[str, np.ndarray], better: Direction, note: str) -> Value:
    return Value(name, float(found[name].mean()), note, bootstrap_interval(found[name]), better)


@torch.inference_mode()
def calibrate(subject: Subject) -> tuple[float, int]:
    """Mean squared error of sampled reconstructions of training images, pixels in [0, 1], and of how many."""
    rows = subject.rows("train", CALIBRATION_IMAGES)
    noise = subject.noise(len(rows), "calibration")
    total = 0.0
    for part in subject.batches(len(rows), "Calibrating σ on training images"):
        images = subject.model_input(subject.pixels("train", rows[part]))
        _, prediction = subject.model.draw_and_predict(images, noise[part].to(subject.device))
        mse = mean_squared_error(prediction.mean, images, subject.model.pixel_range)
        total += float(mse.sum())
    return max(total / len(rows), 1e-8), len(rows)
