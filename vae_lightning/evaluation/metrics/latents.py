"""The latents: how many are active, what their KL consists of, and whether they fill the prior."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.evaluation.metric import Metric
from vae_lightning.models.distributions import ACTIVE_VARIANCE, DiagonalGaussian
from vae_lightning.pictures.charts import COLORS, Chart, draw_kl_per_latent, figure_pixels
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.scores.result import Result, Row, Value
from vae_lightning.system.progress import Track

MOST_COMPARED = 4_000  # images whose posteriors make up q(z): the work grows with their square
COLLAPSED_NATS = 1.0
NEARLY_ALL = 0.98  # of log(number of images): from there on the mutual information is only bounded, not measured
SHOWN_LATENTS = 6
OF_THE_KL = (
    "mutual_information_nats",
    "total_correlation_nats",
    "dimension_wise_kl_nats",
    "aggregate_kl_nats",
    "aggregate_gaussian_kl_nats",
)
CELLS_AT_ONCE = 2**23  # of samples x images x latents: 32 MiB


@dataclass(frozen=True)
class LatentSpace(Metric):
    """Active units as in Burda et al. 2016, section 5.2; the KL's parts as in Chen et al. 2018, equation 2."""

    title: ClassVar[str] = "Latent space"
    place: ClassVar[int] = 40

    def measure(self, subject: Subject) -> Result:
        posterior = subject.posterior()
        variance = posterior.mean.double().var(0, correction=0)
        num_active = int((variance > ACTIVE_VARIANCE).sum())
        of = f"of {len(variance)}; the variance of a latent's posterior mean is above {ACTIVE_VARIANCE}"
        active = Value("active_units", float(num_active), of)
        if not isinstance(posterior, DiagonalGaussian):
            reason = "posterior=deterministic: a plain autoencoder's codes have no KL and no prior"
            return Result([active, *(Value.missing(name, reason) for name in OF_THE_KL)])
        compared = subject.posterior(subject.split, MOST_COMPARED)
        assert isinstance(compared, DiagonalGaussian)
        noise = subject.noise(len(compared.mean), "aggregate posterior")
        parts = decompose_kl(compared, noise, subject.track)
        kl_per_latent = posterior.kl_per_latent().double().mean(0)
        cap = math.log(len(compared.mean))
        rows: list[Row] = [
            {"latent": number, "kl_nats": float(kl_per_latent[number]), "variance_of_mean": float(variance[number])}
            for number in kl_per_latent.argsort(descending=True).tolist()
        ]
        return Result(
            [active, *_kl_values(parts, compared, cap)],
            {"images_in_aggregate_posterior": len(compared.mean), "latent_samples_per_image": 1},
            [collapse_verdict(float(kl_per_latent.sum()), num_active, len(variance)), *_cap_remark(parts, cap)],
            {"kl_per_latent": rows},
            {
                "kl_per_latent": draw_kl_per_latent(kl_per_latent.float().numpy(), f"{subject.split} split"),
                "aggregate_posterior": draw_aggregate(compared.sample(noise), kl_per_latent),
            },
        )


@dataclass(frozen=True)
class KLParts:
    """E_x KL(q(z|x) || p(z)) = mutual_information + total_correlation + dimension_wise_kl, one value per image, nats.

    Over the images at hand: the mutual information between image and latents is at most log(number of images).
    """

    mutual_information: Float[Tensor, " images"]
    total_correlation: Float[Tensor, " images"]
    dimension_wise_kl: Float[Tensor, " images"]


def _kl_values(parts: KLParts, posterior: DiagonalGaussian, cap: float) -> list[Value]:
    count = len(posterior.mean)
    notes = {
        "mutual_information_nats": (
            parts.mutual_information,
            f"between image and latents; at most log {count} = {cap:.2f}",
        ),
        "total_correlation_nats": (parts.total_correlation, "dependence between latents in q(z); 0 is independent"),
        "dimension_wise_kl_nats": (parts.dimension_wise_kl, "sum over latents of KL(q(z_j) || N(0, 1))"),
        "aggregate_kl_nats": (
            parts.total_correlation + parts.dimension_wise_kl,
            "KL(q(z) || N(0, I)), the two above: how far samples are from what the decoder has seen",
        ),
    }
    values = [
        Value(
            name,
            float(each.mean()),
            f"{note}. q(z): mixture over {count:,} images",
            bootstrap_interval(each.numpy()),
            "" if name == "mutual_information_nats" else "lower",
        )
        for name, (each, note) in notes.items()
    ]
    moments = Value(
        "aggregate_gaussian_kl_nats",
        gaussian_kl(*aggregate_moments(posterior)),
        "KL of the Gaussian with q(z)'s mean and covariance to N(0, I), closed form: what a linear map would remove",
        better="lower",
    )
    return [*values, moments]


def _cap_remark(parts: KLParts, cap: float) -> list[str]:
    if float(parts.mutual_information.mean()) < NEARLY_ALL * cap:
        return []
    return [
        f"The latents distinguish all images (mutual information at its cap of {cap:.2f} nats for so many images): "
        "with more images more of the KL would count as mutual information and less as total correlation."
    ]


def collapse_verdict(kl_nats: float, num_active: int, num_latents: int) -> str:
    """The verdict, by the rule of the guard in training: KL below 1 nat and no active unit."""
    found = f"{num_active} of {num_latents} latents are active, the KL is {kl_nats:.3g} nats"
    if kl_nats < COLLAPSED_NATS and num_active == 0:
        return f"Posterior collapse: {found}. Every image has the same latents; sampled faces show nothing of the data."
    if num_active < num_latents:
        return f"No collapse, but {num_latents - num_active} latents carry no information: {found}."
    return f"No collapse: {found}."


def draw_aggregate(latents: Float[Tensor, "images latent"], kl_per_latent: Float[Tensor, " latent"]) -> Chart:
    """Histograms of the most active latents over the prior's density, and the spread of all of them."""
    shown = kl_per_latent.argsort(descending=True)[:SHOWN_LATENTS].tolist()
    figure = Figure(figsize=(11, 4.6), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(2, -(-(SHOWN_LATENTS + 2) // 2), squeeze=False).ravel()
    grid = np.linspace(-4, 4, 161)
    density = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)
    for axis, number in zip(axes, shown, strict=False):
        drawn = latents[:, number].numpy()
        axis.hist(drawn, bins=np.linspace(-4, 4, 41).tolist(), density=True, color=COLORS[0], alpha=0.5)
        axis.plot(grid, density, color=COLORS[1])
        axis.set(title=f"z[{number}]", xlim=(-4, 4), yticks=[])
    for axis in axes[len(shown) : SHOWN_LATENTS]:
        axis.set_axis_off()
    order = kl_per_latent.argsort(descending=True)
    for axis, values, title, ideal in (
        (axes[-2], latents.mean(0)[order].numpy(), "mean of each latent", 0.0),
        (axes[-1], latents.std(0, correction=0)[order].numpy(), "std of each latent", 1.0),
    ):
        axis.plot(values, ".", color=COLORS[0], markersize=4)
        axis.axhline(ideal, color=COLORS[1])
        axis.set(title=title, xlabel="largest KL first")
    figure.suptitle("Latents of all images (blue) against the prior N(0, 1) (orange)")
    return figure_pixels(figure)


def decompose_kl(posterior: DiagonalGaussian, noise: Float[Tensor, "images latent"], track: Track) -> KLParts:
    """By Monte Carlo with one latent sample per image; q(z) is the mixture over all these images, not a part of them.

    Source: Chen et al. 2018 (beta-TCVAE), equation 2, arXiv:1802.04942.
    """
    latents = posterior.sample(noise)
    count = len(latents)
    samples_at_once = max(1, CELLS_AT_ONCE // (count * latents.shape[1]))
    joint, marginals = torch.empty(count, dtype=torch.float64), torch.empty(count, dtype=torch.float64)
    firsts = range(0, count, samples_at_once)
    precision = torch.exp(-posterior.logvar)
    for first in track(firsts, "Aggregate posterior", len(firsts)):
        part = slice(first, first + samples_at_once)
        distance = (latents[part, None] - posterior.mean).square_().mul_(precision).add_(posterior.logvar)
        log_density = distance.mul_(-0.5)  # without its constant; samples x images x latents
        joint[part] = torch.logsumexp(log_density.sum(2), dim=1)
        marginals[part] = torch.logsumexp(log_density, dim=1).double().sum(1)
    num_latents = latents.shape[1]
    joint -= math.log(count)
    marginals -= num_latents * math.log(count)
    own = -0.5 * (noise.square() + posterior.logvar).double().sum(1)
    prior = -0.5 * latents.square().double().sum(1)  # all four lack the same constant, latents/2 log(2 pi)
    return KLParts(own - joint, joint - marginals, marginals - prior)


def gaussian_kl(mean: Float[Tensor, " latent"], covariance: Float[Tensor, "latent latent"]) -> float:
    """KL(N(mean, covariance) || N(0, I)) in nats."""
    trace, square = covariance.diagonal().sum(), mean.square().sum()
    return float(0.5 * (trace + square - len(mean) - torch.linalg.slogdet(covariance).logabsdet))


def aggregate_moments(
    posterior: DiagonalGaussian,
) -> tuple[Float[Tensor, " latent"], Float[Tensor, "latent latent"]]:
    """Mean and covariance of q(z), exactly: those of the means, plus the mean variance."""
    mean = posterior.mean.double()
    covariance = torch.cov(mean.T, correction=0).reshape(mean.shape[1], -1)
    return mean.mean(0), covariance + torch.diag(posterior.logvar.double().exp().mean(0))
