"""Scores of how well single latents stand for single factors: MIG, modularity, SAP.

Each is given under several weightings of the images, of which the first counts every image once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.information import Information, discretise
from vae_lightning.scores.resampling import balanced_accuracy, shuffle_people, squared_correlation

BINS = 10  # of a continuous factor that is to be fixed
GROUP = 64  # images with the same value of the factor that give one vote
LEAST_VARIANCE = 0.05  # of a latent with prior N(0, 1): with less it has collapsed
VOTE_SHUFFLES = 3  # of the factors, for the score by chance
VOTES_AT_ONCE = 256  # bounds the gathered codes: 8 MB with 128 latents


def gaps(scores: Float[np.ndarray, "weightings factors latents"]) -> Float[np.ndarray, "weightings factors"]:
    """The best latent's score minus the second best's; with a single latent the second is 0."""
    if scores.shape[2] == 1:
        return scores[:, :, 0]
    second, best = np.moveaxis(np.partition(scores, -2, axis=2)[:, :, -2:], 2, 0)
    return best - second


def mig(information: Information) -> Float[np.ndarray, " weightings"]:
    """Mutual information gap, 0 to 1: mean over factors of (largest I(z_j; v_k) - second largest) / H(v_k).

    Here z_j is the posterior mean, not a sample of the posterior as in the paper.
    Source: Chen et al. 2018, equation 6, arXiv:1802.04942.
    """
    return gaps(information.shares).mean(1)


def modularity(mutual_nats: Float[np.ndarray, "weightings factors latents"]) -> Float[np.ndarray, " weightings"]:
    """Whether each latent depends on one factor only, 0 to 1: mean over latents of 1 - deviation from that template.

    With theta_i = max_f m_if, the deviation is the sum over all other factors of m_if^2, divided by
    theta_i^2 (factors - 1). A latent without any information counts as 0, as in disentanglement_lib. Needs two
    factors. Give it information that was not corrected: what chance leaves is alike for all factors and pulls a
    latent that says nothing towards 0, while differences of corrected values near 0 look like a template.
    Source: Ridgeway & Mozer 2018, section 3, equation 2, arXiv:1802.05312.
    """
    largest = np.square(mutual_nats.max(1))
    others = np.square(mutual_nats).sum(1) - largest
    scale = largest * (mutual_nats.shape[1] - 1)
    return (1 - np.divide(others, scale, out=np.ones_like(scale), where=scale > 0)).mean(1)


def separability(
    fitting: CodedImages, scoring: CodedImages, weights: Float[np.ndarray, "weightings images"]
) -> Float[np.ndarray, "weightings factors latents"]:
    """How well each latent alone predicts each factor: the matrix of SAP.

    Continuous factors: R^2 of a linear regression on the scoring images. Binary ones: balanced accuracy, as in the
    paper, of the best threshold of the fitting images, measured on the scoring images; chance is 0.5, so that
    their SAP is at most 0.5. (The paper chooses the threshold on the images that it scores.) A constant latent has
    0 or 0.5: what it can predict; the paper sets both to 0.
    Source: Kumar et al. 2018, section 3, arXiv:1711.00848.
    """
    if not scoring.is_binary:
        columns = scoring.factors.T.astype(np.float64)
        return np.stack([squared_correlation(scoring.codes, column, weights) for column in columns], axis=1)
    cuts, positive_above = best_cuts(fitting.codes, fitting.factors)
    scores = []
    for labels, cut, is_above in zip(scoring.factors.T, cuts, positive_above, strict=True):
        scores.append(balanced_accuracy((scoring.codes > cut) == is_above, labels, weights))
    return np.stack(scores, axis=1)


def best_cuts(
    codes: Float[np.ndarray, "images latents"], labels: Bool[np.ndarray, "images factors"]
) -> tuple[Float[np.ndarray, "factors latents"], Bool[np.ndarray, "factors latents"]]:
    """The threshold of each latent with the highest balanced accuracy, and whether positives lie above it.

    Both classes must occur.
    """
    positives = labels.sum(0)
    steps = np.where(labels, 1 / positives, -1 / (len(labels) - positives))
    cuts = np.empty((labels.shape[1], codes.shape[1]))
    positive_above = np.empty(cuts.shape, np.bool_)
    for latent, column in enumerate(codes.T):
        order = np.argsort(column)
        ordered = column[order].astype(np.float64)
        # share of positives minus share of negatives below each place between two images; equal codes are not cut
        below = np.where(np.diff(ordered)[:, None] > 0, steps[order].cumsum(0)[:-1], 0.0)
        place: Int64[np.ndarray, " factors"] = np.abs(below).argmax(0)
        cuts[:, latent] = (ordered[place] + ordered[place + 1]) / 2
        positive_above[:, latent] = below[place, np.arange(len(place))] < 0
    return cuts, positive_above


@dataclass(frozen=True)
class Votes:
    is_right: Bool[np.ndarray, " votes"]
    num_latents: int  # that could be voted for

    @property
    def accuracy(self) -> float:
        return float(self.is_right.mean())


def factorvae_score(images: CodedImages, votes: int, seed: int, least_variance: float = LEAST_VARIANCE) -> Votes | None:
    """Fresh votes of a classifier that knows, for each latent, which factor it stands for; the score is their mean.

    A vote: draw a factor and an image, then GROUP images (with replacement) whose factor is in the same bin; the
    vote is the latent whose variance in the group, over that in all images, is smallest. Twice as many votes as are
    scored find for each latent which factor fixes it most often (10,000 and 5,000 in disentanglement_lib). A latent
    without a vote among those is always wrong.
    Latents that vary no more than `least_variance` are left out: the paper leaves out those that have collapsed to
    the prior, but names no threshold; disentanglement_lib leaves out none (0). Returns None where no latent is left.
    Source: Kim & Mnih 2018, section 4, arXiv:1802.05983.
    """
    variances = images.codes.var(0)
    kept = np.flatnonzero(variances > least_variance)
    if not len(kept):
        return None
    codes = ((images.codes[:, kept] - images.codes[:, kept].mean(0)) / np.sqrt(variances[kept])).astype(np.float32)
    factor_bins = discretise(images.factors, BINS)
    random = np.random.default_rng([seed, len(codes)])
    factors = random.integers(0, factor_bins.shape[1], 3 * votes)
    latents = np.empty_like(factors)
    for factor, bins in enumerate(factor_bins.T):
        asked = np.flatnonzero(factors == factor)
        latents[asked] = _vote(codes, bins, len(asked), random)
    table = np.zeros((len(kept), factor_bins.shape[1]), np.int64)
    np.add.at(table, (latents[votes:], factors[votes:]), 1)
    answers = np.where(table.any(1), table.argmax(1), -1)
    return Votes(answers[latents[:votes]] == factors[:votes], len(kept))


def factorvae_chance(images: CodedImages, votes: int, seed: int, least_variance: float = LEAST_VARIANCE) -> float:
    """The score where each person gets another person's factors: what the images' number alone gives.

    It is above one over the number of factors: groups of the same images are drawn again and again, and a latent
    that happens to vary little over the images of one bin does so in each of them.
    """
    random = np.random.default_rng([seed, len(images.codes)])
    scores = []
    for _ in range(VOTE_SHUFFLES):
        others = images.factors[shuffle_people(images.people, random)]
        found = factorvae_score(CodedImages(images.codes, others, images.known_people), votes, seed, least_variance)
        scores.append(found.accuracy if found else 0.0)
    return float(np.mean(scores))


def _vote(
    codes: Float[np.ndarray, "images latents"],
    bins: Int64[np.ndarray, " images"],
    votes: int,
    random: np.random.Generator,
) -> Int64[np.ndarray, " votes"]:
    """The vote of each group. A bin is drawn in proportion to its images, as the data draw the factor's values."""
    order, counts = np.argsort(bins, kind="stable"), np.bincount(bins)
    starts = counts.cumsum() - counts
    fixed = bins[random.integers(0, len(bins), votes)][:, None]
    rows = order[starts[fixed] + (random.random((votes, GROUP)) * counts[fixed]).astype(np.int64)]
    latents = []
    for first in range(0, votes, VOTES_AT_ONCE):
        groups = codes[rows[first : first + VOTES_AT_ONCE]]
        latents.append((np.square(groups).mean(1) - np.square(groups.mean(1))).argmin(1))
    return np.concatenate(latents) if latents else np.empty(0, np.int64)
