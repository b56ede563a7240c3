"""The latents: how many are active, what their KL consists of, and whether they fill the prior."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.evaluation.kl_by_level import draw_levels, drawn_kl
from vae_lightning.evaluation.metric import Metric
from vae_lightning.models.distributions import ACTIVE_VARIANCE, Deterministic, DiagonalGaussian, HierarchicalGaussian
from vae_lightning.models.levels import latent_name
from vae_lightning.pictures.charts import COLORS, Chart, draw_kl_per_latent, figure_pixels
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval, image_weights, shuffle_people, spread_interval
from vae_lightning.scores.result import Result, Row, Value
from vae_lightning.system.progress import Track

MOST_COMPARED = 4_000  # images whose posteriors make up q(z): the work grows with their square
COLLAPSED_NATS = 1.0
# A part of the KL that twice as many images still change by more is bounded by them, and not measured.
SETTLED_NATS, SETTLED_SHARE = 0.1, 0.05
RESAMPLES, SHUFFLES = 30, 5  # of the people, for the Gaussian's numbers
SHOWN_LATENTS = 6
OF_THE_KL = (
    "mutual_information_nats",
    "total_correlation_nats",
    "dimension_wise_kl_nats",
    "aggregate_kl_nats",
    "total_correlation_gaussian_nats",
    "aggregate_gaussian_kl_nats",
)
NO_PRODUCT = "it needs a q(z|x) that is a product over latents, and here each level depends on what is drawn above"
CELLS_AT_ONCE = 2**23  # of samples x images x latents: 32 MiB


@dataclass(frozen=True)
class LatentSpace(Metric):
    """Active units as in Burda et al. 2016, section 5.2; the KL's parts as in Chen et al. 2018, equation 2."""

    title: ClassVar[str] = "Latent space"
    place: ClassVar[int] = 40

    def measure(self, subject: Subject) -> Result:
        posterior = subject.posterior()
        # in parts: a hierarchical model may have ten thousand latents
        variance = torch.cat([part.double().var(0, correction=0) for part in posterior.mean.split(1_024, dim=1)])
        num_active = int((variance > ACTIVE_VARIANCE).sum())
        of = f"of {len(variance)}; the variance of a latent's posterior mean is above {ACTIVE_VARIANCE}"
        active = Value("active_units", float(num_active), of)
        if isinstance(posterior, Deterministic):
            reason = "posterior=deterministic: a plain autoencoder's codes have no KL and no prior"
            return Result([active, *(Value.missing(name, reason) for name in OF_THE_KL)])
        if isinstance(posterior, HierarchicalGaussian):
            return _of_levels(subject, active, variance)
        compared = subject.posterior(subject.split, MOST_COMPARED)
        assert isinstance(compared, DiagonalGaussian)
        noise = subject.noise(len(compared.mean), "aggregate posterior")
        parts = decompose_kl(compared, noise, subject.track)
        half = decompose_kl(DiagonalGaussian(compared.mean[::2], compared.logvar[::2]), noise[::2], subject.track)
        kl_per_latent = posterior.kl_per_latent().double().mean(0)
        values = _kl_values(parts, half)
        gaussian = gaussian_values(posterior, subject.people(subject.split), subject.seed_of(self.name))
        return Result(
            [active, *values, *gaussian],
            {"images_in_aggregate_posterior": len(compared.mean), "latent_samples_per_image": 1},
            [collapse_verdict(float(kl_per_latent.sum()), num_active, len(variance)), *_bound_remark(values)],
            {"kl_per_latent": _rows_of_latents(kl_per_latent, variance)},
            {
                "kl_per_latent": draw_kl_per_latent(kl_per_latent.float().numpy(), f"{subject.split} split"),
                "aggregate_posterior": draw_aggregate(compared.draw(noise).latents, kl_per_latent),
            },
        )


def _of_levels(subject: Subject, active: Value, variance: Float[Tensor, " latent"]) -> Result:
    """Of a hierarchical model: its KL and active units by level, and what its coarse levels draw."""
    drawn = drawn_kl(subject)
    levels = subject.model.latent_levels
    rows = drawn.rows(levels, variance > ACTIVE_VARIANCE)
    asleep = [
        level.name
        for level, nats, row in zip(levels, drawn.per_level.mean(0), rows, strict=True)
        if nats < COLLAPSED_NATS and not row["active_units"]
    ]
    remarks = [collapse_verdict(float(drawn.per_latent.sum()), int(active.value or 0), len(variance))]
    if asleep and len(asleep) < len(levels):
        remarks.append(f"Levels that tell nothing of an image (KL below 1 nat, no active latent): {', '.join(asleep)}.")
    coarse, place = slice(0, subject.num_coarse), partial(latent_name, levels)
    of_coarse = _rows_of_latents(drawn.per_latent[coarse], variance[coarse], place)
    return Result(
        [active, *(Value.missing(name, NO_PRODUCT) for name in OF_THE_KL)],
        {
            "active_units": "of the path of means: each level at its mean given the means above",
            "kl": "given one draw of the levels above, for each image",
            "kl_per_latent": f"latents{subject.which_latents}",
        },
        remarks,
        {"kl_by_level": rows, "kl_per_latent": of_coarse},
        {
            "kl_by_level": draw_levels(drawn.per_latent, levels, f"{subject.split} split"),
            "aggregate_posterior": draw_aggregate(drawn.coarse_latents, drawn.per_latent[coarse], place),
        },
    )


def _rows_of_latents(
    kl_per_latent: Float[Tensor, " latent"],
    variance: Float[Tensor, " latent"],
    place: Callable[[int], str] | None = None,
) -> list[Row]:
    """One row for each latent, largest KL first; `place` names it on the maps of a hierarchical model."""
    return [
        {
            "latent": number,
            **({} if place is None else {"place": place(number)}),
            "kl_nats": float(kl_per_latent[number]),
            "variance_of_mean": float(variance[number]),
        }
        for number in kl_per_latent.argsort(descending=True).tolist()
    ]


@dataclass(frozen=True)
class KLParts:
    """E_x KL(q(z|x) || p(z)) = mutual_information + total_correlation + dimension_wise_kl, one value per image, nats.

    Over the images at hand: their mutual information is at most log(number of images), and on average at most that
    of all images, so that the other parts are at least theirs.
    """

    mutual_information: Float[Tensor, " images"]
    total_correlation: Float[Tensor, " images"]
    dimension_wise_kl: Float[Tensor, " images"]


def _kl_values(parts: KLParts, half: KLParts) -> list[Value]:
    """The parts of the KL; one that is not settled is given as the bound that it is.

    Args:
        parts: of all images.
        half: of every second one, which shows what twice as many images change.
    """
    count = len(parts.mutual_information)
    growth = float((parts.mutual_information[::2] - half.mutual_information).mean())
    shrinkage = float((half.dimension_wise_kl - parts.dimension_wise_kl[::2]).mean())
    has_all = growth <= SETTLED_NATS
    has_single = shrinkage <= max(SETTLED_NATS, SETTLED_SHARE * float(parts.dimension_wise_kl.mean()))
    aggregate = parts.total_correlation + parts.dimension_wise_kl
    lower, upper = "at least {0:.2f} nats by {1:,} images", "at most {0:.2f} nats by {1:,} images"
    of_rest = upper if has_single else "{1:,} images are too few for a bound"
    notes = (
        ("mutual_information_nats", parts.mutual_information, has_all, lower, "between image and latents"),
        ("total_correlation_nats", parts.total_correlation, has_all and has_single, of_rest, "dependence of latents"),
        ("dimension_wise_kl_nats", parts.dimension_wise_kl, has_single, upper, "sum of KL(q(z_j) || N(0, 1))"),
        ("aggregate_kl_nats", aggregate, has_all, upper, "KL(q(z) || N(0, I)), the two above"),
    )
    values = []
    for name, each, is_settled, bound, note in notes:
        mean = float(each.mean())
        if is_settled:
            said, interval = f"{note}. q(z): mixture over {count:,} images", bootstrap_interval(each.numpy())
            values.append(Value(name, mean, said, interval, "" if bound is lower else "lower"))
        else:
            values.append(Value.missing(name, f"{bound.format(mean, count)}; {note}"))
    return values


def gaussian_values(posterior: DiagonalGaussian, people: Int64[np.ndarray, " images"], seed: int) -> list[Value]:
    """Of the Gaussian with the mean and covariance of q(z), which few images suffice for; they miss what is not linear.

    The KL of q(z) is at least the Gaussian's, since log N(z; m, S) - log N(z; 0, I) has the same mean under both.
    Correlations that chance gives are subtracted: those that are left where each latent is taken from other people.
    """
    mean, variance = posterior.mean.double().numpy(), posterior.logvar.double().exp().numpy()
    random = np.random.default_rng([seed, len(people)])
    found = np.array([_gaussian_nats(mean, variance, row) for row in image_weights(people, RESAMPLES, seed)])
    by_chance = []
    for _ in range(SHUFFLES):
        columns = [column[shuffle_people(people, random)] for column in mean.T]
        by_chance.append(_gaussian_nats(np.stack(columns, axis=1), variance, np.ones(len(people)))[0])
    chance = min(float(np.mean(by_chance)), *found[0])
    of = "of the Gaussian with q(z)'s mean and covariance, closed form"
    notes = (
        ("total_correlation_gaussian_nats", f"{of}: linear dependence between latents"),
        ("aggregate_gaussian_kl_nats", f"KL {of}, to N(0, I): what a linear map would remove; at most the KL of q(z)"),
    )
    values = []
    for (name, note), estimates in zip(notes, found.T, strict=True):
        estimate = float(estimates[0]) - chance
        interval = spread_interval(estimate, estimates[1:], 0.0, math.inf)
        values.append(Value(name, estimate, f"{note}; {chance:.2g} by chance subtracted", interval, "lower"))
    return values


def _gaussian_nats(
    mean: Float[np.ndarray, "images latents"],
    variance: Float[np.ndarray, "images latents"],
    weights: Float[np.ndarray, " images"],
) -> tuple[float, float]:
    """Total correlation of the Gaussian with q(z)'s moments under these weights, and its KL to N(0, I)."""
    shares = weights / weights.sum()
    centre = shares @ mean
    centred = mean - centre
    covariance = (centred * shares[:, None]).T @ centred + np.diag(shares @ variance)
    moments = torch.from_numpy(centre), torch.from_numpy(covariance)
    total_correlation = 0.5 * (np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance).logabsdet)
    return float(total_correlation), gaussian_kl(*moments)


def _bound_remark(values: Sequence[Value]) -> list[str]:
    bounded = [value.name for value in values if value.value is None]
    if not bounded:
        return []
    return [
        f"Only bounded: {', '.join(bounded)}. The latents tell these images apart, so that mutual information is near "
        "the logarithm of their number, and what it lacks counts as total correlation: twice as many images would "
        "change these numbers. total_correlation_gaussian_nats and aggregate_gaussian_kl_nats compare runs."
    ]


def collapse_verdict(kl_nats: float, num_active: int, num_latents: int) -> str:
    """The verdict, by the rule of the guard in training: KL below 1 nat and no active unit."""
    nats = f"{kl_nats:.3g}" if kl_nats < 1_000 else f"{kl_nats:,.0f}"
    found = f"{num_active} of {num_latents} latents are active, the KL is {nats} nats"
    if kl_nats < COLLAPSED_NATS and num_active == 0:
        return f"Posterior collapse: {found}. Every image has the same latents; sampled faces show nothing of the data."
    if num_active < num_latents:
        return f"No collapse, but {num_latents - num_active} latents carry no information: {found}."
    return f"No collapse: {found}."


def draw_aggregate(
    latents: Float[Tensor, "images latent"],
    kl_per_latent: Float[Tensor, " latent"],
    name_of: Callable[[int], str] = "z[{}]".format,
) -> Chart:
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
        axis.set(title=name_of(number), xlim=(-4, 4), yticks=[])
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
    latents = posterior.draw(noise).latents
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
