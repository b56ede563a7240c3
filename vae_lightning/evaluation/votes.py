"""The score of FactorVAE: which latent varies least while one factor is fixed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from vae_lightning.evaluation.codes import CodedImages
from vae_lightning.evaluation.information import discretise

BINS = 10  # of a continuous factor that is to be fixed
GROUP = 64  # images with the same value of the factor that give one vote
LEAST_VARIANCE = 0.05  # of a latent with prior N(0, 1): with less it has collapsed
VOTES_AT_ONCE = 256  # bounds the gathered codes: 8 MB with 128 latents


@dataclass(frozen=True)
class Votes:
    is_right: Bool[np.ndarray, " votes"]
    chance: float  # share of votes that a code without information gets right
    num_latents: int  # that could be voted for


def factorvae_score(images: CodedImages, votes: int, seed: int, least_variance: float = LEAST_VARIANCE) -> Votes | None:
    """Fresh votes of a classifier that knows, for each latent, which factor it stands for; the score is their mean.

    A vote: draw a factor and an image, then GROUP images (with replacement) whose factor is in the same bin; the
    vote is the latent whose variance in the group, over that in all images, is smallest. Half of the votes say
    for each latent which factor fixes it most often; the other half are scored. A latent that nobody voted for
    before is always wrong.
    Latents that vary no more than `least_variance` are left out: the paper leaves out those that have collapsed to
    the prior, but names no threshold. None where none is left.
    Source: Kim & Mnih 2018, section 4, arXiv:1802.05983.
    """
    variances = images.codes.var(0)
    kept = np.flatnonzero(variances > least_variance)
    if not len(kept):
        return None
    codes = ((images.codes[:, kept] - images.codes[:, kept].mean(0)) / np.sqrt(variances[kept])).astype(np.float32)
    factor_bins = discretise(images.factors, BINS)
    random = np.random.default_rng([seed, len(codes)])
    factors = random.integers(0, factor_bins.shape[1], 2 * votes)
    latents = np.empty_like(factors)
    for factor, bins in enumerate(factor_bins.T):
        asked = np.flatnonzero(factors == factor)
        latents[asked] = _vote(codes, bins, len(asked), random)
    table = np.zeros((len(kept), factor_bins.shape[1]), np.int64)
    np.add.at(table, (latents[:votes], factors[:votes]), 1)
    answers = np.where(table.any(1), table.argmax(1), -1)
    return Votes(answers[latents[votes:]] == factors[votes:], 1 / factor_bins.shape[1], len(kept))


def _vote(
    codes: Float[np.ndarray, "images latents"],
    bins: Int64[np.ndarray, " images"],
    votes: int,
    random: np.random.Generator,
) -> Int64[np.ndarray, " votes"]:
    """A bin is drawn as often as it has images, as the data draw the factor's values."""
    order, counts = np.argsort(bins, kind="stable"), np.bincount(bins)
    starts = counts.cumsum() - counts
    fixed = bins[random.integers(0, len(bins), votes)][:, None]
    rows = order[starts[fixed] + (random.random((votes, GROUP)) * counts[fixed]).astype(np.int64)]
    latents = []
    for first in range(0, votes, VOTES_AT_ONCE):
        groups = codes[rows[first : first + VOTES_AT_ONCE]]
        latents.append((np.square(groups).mean(1) - np.square(groups.mean(1))).argmin(1))
    return np.concatenate(latents) if latents else np.empty(0, np.int64)
