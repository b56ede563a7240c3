"""Scores of edits: how far the target has changed, and what else has; methods and models compare by them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import conv2d

from vae_lightning.editing.judging.judge import Judge, Readings
from vae_lightning.evaluation.metrics.reconstructions import decode_checked
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import image_weights, percentile_interval
from vae_lightning.scores.result import Row

RESAMPLES = 500
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
DEFINITIONS = {
    "compared": "decode(z') with decode(z0), never with the original: what the reconstruction lost is not the edit's",
    "change": "of the judge's output, in standard deviations (sd) of its outputs for the split's original images",
    "target_change": "mean change of the target, + in the asked direction",
    "success": "of the images without the wanted state by the judge's log-odds, the share that has it afterwards",
    "leakage": "mean over the other outputs of the mean over images of |change|",
    "systematic_leakage": "mean over the other outputs of |mean change|: what happens to all faces alike",
    "worst_leak": "the other output with the largest |mean change|",
    "identity_distance": "cosine distance; 0 = the same picture, 1 = two different people on average",
    "normal_prior_nats": "mean of log p(z0) - log p(z') under N(0, I): > 0 where the edit leaves what is likely",
    "gaussian_prior_nats": "the same under a Gaussian fitted to the run's training latents",
    "sharpness": "mean variance of the Laplacian of the gray image, over that of the reconstructions",
    "reencoding": "median of |encode(decode(z')) - z'| / |encode(decode(z0)) - z0|: 1 = the encoder knows such images",
    "intervals": f"95 %, {RESAMPLES} bootstrap resamples of people with all of their images",
}

Latents = Float[Tensor, "images latent"]
PerImage = Float[np.ndarray, " images"]


@dataclass(frozen=True)
class Look:
    """All measurements of decoded latents."""

    latents: Latents
    readings: Readings
    sharpness: PerImage
    code_distance: PerImage  # |encode(decode(z)) - z|
    log_priors: Mapping[str, PerImage]  # nats


@dataclass(frozen=True)
class EditScore:
    """One method at one strength; see DEFINITIONS. Changes in standard deviations of the judge's readings.

    Args:
        success: None for factors, and where no image lacked the attribute before.
        normal_prior_nats: None for plain autoencoders, which are not trained towards N(0, I).
        sharpness: None where the reconstructions are flat.
        reencoding: None where the encoder finds the latents of some reconstruction exactly.
        mean_changes: signed, of all outputs that are not constant but the target.
        resampled: scores of bootstrap resamples, the same people in all scores of the same images.
    """

    method: str
    strength: float
    images: int
    target_change: float
    success: float | None
    leakage: float
    systematic_leakage: float
    worst_leak: str
    worst_leak_change: float
    identity_distance: float
    normal_prior_nats: float | None
    gaussian_prior_nats: float
    sharpness: float | None
    reencoding: float | None
    mean_changes: Mapping[str, float] = field(repr=False)
    resampled: Mapping[str, Float[np.ndarray, " resamples"]] = field(repr=False)

    def row(self) -> Row:
        """Columns of a table: each score, followed by its interval where it has one."""
        row: Row = {}
        for name in self.__dataclass_fields__:
            if name not in ("mean_changes", "resampled"):
                row[name] = getattr(self, name)
            if name in self.resampled:
                row |= interval_cells(name, self.resampled[name])
        return row


def interval_cells(name: str, resampled: Float[np.ndarray, " resamples"]) -> Row:
    """Both ends of the interval; None where no resample has a score."""
    known = np.isfinite(resampled).any()
    low, high = percentile_interval(resampled) if known else (None, None)
    return {f"{name} low": low, f"{name} high": high}


@torch.inference_mode()
def look(judge: Judge, subject: Subject, latents: Latents, what: str = "the latents") -> Look:
    """Decodes latents, judges the images and encodes them again; `what` names them in messages.

    Raises:
        ValueError: the latents are not finite numbers.
        EvaluationError: the decoded images are not finite numbers.
    """
    if not latents.isfinite().all():
        raise ValueError(f"{what}: not finite numbers (nan or inf); take a smaller strength or learning rate")
    latents = latents.detach().cpu()
    low, high = subject.model.pixel_range
    parts = []
    for part in latents.split(subject.batch_size):
        images = decode_checked(subject, part)
        codes = subject.model.encode(images * (high - low) + low).mean.cpu()
        parts.append((judge.read(images), sharpness(images).cpu(), (codes - part).double().norm(dim=1)))
    readings, sharp, distances = zip(*parts, strict=True)
    priors = ["gaussian"] + ["normal"] * subject.model.has_prior
    return Look(
        latents,
        Readings(
            np.concatenate([reading.outputs for reading in readings]),
            np.concatenate([reading.embeddings for reading in readings]),
        ),
        torch.cat(sharp).double().numpy(),
        torch.cat(distances).numpy(),
        {name: subject.prior(name).log_prob(latents).double().numpy() for name in priors},
    )


def sharpness(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Variance of the Laplacian of the gray image; what blurs, lowers it.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", doi:10.1109/ICPR.2000.903548.
    """
    kernel = torch.tensor(LAPLACIAN, device=images.device)[None, None]
    return conv2d(images.float().mean(1, keepdim=True), kernel).var((1, 2, 3), correction=0)


def score_edit(
    judge: Judge,
    subject: Subject,
    target: str,
    wanted: bool,
    start: Latents,
    edited: Latents,
    method: str,
    strength: float,
    people: Int64[np.ndarray, " images"],
) -> EditScore:
    """`wanted`: the target, one of the judge's outputs, was to be added, or else removed; `people`: for the intervals.

    Raises:
        ValueError: the judge does not predict the target, it predicts nothing else, or the latents are not finite.
    """
    before, after = look(judge, subject, start), look(judge, subject, edited, f"{method} at strength {strength:g}")
    return score_looks(judge, target, wanted, before, after, method, strength, people)


def score_looks(
    judge: Judge,
    target: str,
    wanted: bool,
    before: Look,
    after: Look,
    method: str,
    strength: float,
    people: Int64[np.ndarray, " images"],
) -> EditScore:
    """As `score_edit`, from measurements of the images."""
    column = judge.column(target)
    others = np.flatnonzero(~judge.is_constant & (np.arange(len(judge.names)) != column))
    if len(others) == 0:
        raise ValueError(
            f"the judge predicts nothing but {target}, so it cannot measure leakage: take one with more outputs"
        )
    changes = (after.readings.outputs - before.readings.outputs)[:, others] / judge.unit[others]
    weights = image_weights(people, RESAMPLES, judge.subject.seed_of("scores of edits"))
    drawn = {"systematic_leakage": np.abs(weights @ changes / weights.sum(1, keepdims=True)).mean(1)}
    for name, (values, counted) in _per_image(judge, column, wanted, before, after, changes).items():
        drawn[name] = _ratio(weights @ values, weights @ counted)
    found = {name: _number(values[0]) for name, values in drawn.items()}
    mean_changes = {judge.names[other]: float(mean) for other, mean in zip(others, changes.mean(0), strict=True)}
    worst = max(mean_changes, key=lambda name: abs(mean_changes[name]))
    return EditScore(
        method=method,
        strength=float(strength),
        images=len(people),
        worst_leak=worst,
        worst_leak_change=mean_changes[worst],
        reencoding=_number(np.median(_ratio(after.code_distance, before.code_distance))),
        mean_changes=mean_changes,
        # |mean| of a resample is larger than that of the images by its own noise, so that an interval would mislead
        resampled={name: values[1:] for name, values in drawn.items() if name != "systematic_leakage"},
        **{"success": None, "normal_prior_nats": None, **found},  # type: ignore[arg-type]
    )


def _per_image(
    judge: Judge, column: int, wanted: bool, before: Look, after: Look, changes: Float[np.ndarray, "images others"]
) -> dict[str, tuple[PerImage, PerImage]]:
    """Scores as the mean of the first over the mean of the second."""
    sign = 1.0 if wanted else -1.0
    first, last = (sign * each.readings.outputs[:, column] for each in (before, after))
    ones = np.ones(len(first))
    found = {
        "target_change": ((last - first) / judge.unit[column], ones),
        "leakage": (np.abs(changes).mean(1), ones),
        "identity_distance": (judge.identity_distance(before.readings.embeddings, after.readings.embeddings), ones),
        "sharpness": (after.sharpness, before.sharpness),
    }
    for name, log_prior in before.log_priors.items():
        found[f"{name}_prior_nats"] = (log_prior - after.log_priors[name], ones)
    if judge.target == "attributes":
        lacked = first <= 0
        found["success"] = ((lacked & (last > 0)).astype(np.float64), lacked.astype(np.float64))
    return found


def _ratio(above: Float[np.ndarray, " numbers"], below: Float[np.ndarray, " numbers"]) -> Float[np.ndarray, " numbers"]:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
