"""Scores of the same images under many weightings at once.

The first weighting counts every image once and gives the estimate; the others are bootstrap resamples.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.stats import t

RESAMPLES = 1_000
RESAMPLES_AT_ONCE = 50


def image_weights(
    people: Int64[np.ndarray, " images"], resamples: int, seed: int
) -> Float[np.ndarray, "weightings images"]:
    """Ones, then for each resample how often it holds each image: people are drawn, with all of their images.

    Images of one person are no independent draws; where all people differ, this is the usual bootstrap.
    Source: Efron & Tibshirani 1993, section 6.2; Davison & Hinkley 1997, section 3.8 (clusters).
    """
    numbers, of_image = np.unique(people, return_inverse=True)
    random = np.random.default_rng([seed, len(people)])
    drawn = random.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), resamples)
    return np.concatenate([np.ones((1, len(people))), drawn[:, of_image]])


def shuffle_people(people: Int64[np.ndarray, " images"], random: np.random.Generator) -> Int64[np.ndarray, " images"]:
    """For each image, an image of another person: of the same other person for all images of one person."""
    _, of_image, counts = np.unique(people, return_inverse=True, return_counts=True)
    order, starts = np.argsort(of_image, kind="stable"), counts.cumsum() - counts
    other = random.permutation(len(counts))[of_image]
    return order[starts[other] + (random.random(len(people)) * counts[other]).astype(np.int64)]


def people_blocks(people: Int64[np.ndarray, " images"], blocks: int, seed: int) -> Int64[np.ndarray, " images"]:
    """The block of each image, from 0: people are dealt at random, with all of their images; fewer people, fewer."""
    numbers, of_image = np.unique(people, return_inverse=True)
    order = np.random.default_rng([seed, len(people)]).permutation(len(numbers))
    return order[of_image] % min(blocks, len(numbers))


def percentile_interval(resampled: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """The 95 % interval of resamples; those without a score (nan) do not count.

    Source: Efron & Tibshirani 1993, section 13.3.
    """
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def squared_correlation(
    columns: Float[np.ndarray, "images columns"],
    target: Float[np.ndarray, " images"],
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, "weightings columns"]:
    """R^2 of the linear regression of the target on each column alone, 0 to 1; 0 where one of the two is constant."""
    least_variances, least_target_variance = _least_variance(columns), _least_variance(target)
    columns, target = columns - columns.mean(0), target - target.mean()  # small means: differences keep their digits
    shares = weights / weights.sum(1, keepdims=True)
    means, target_means = shares @ columns, shares @ target[:, None]
    variances = shares @ columns**2 - means**2
    target_variances = shares @ target[:, None] ** 2 - target_means**2
    covariances = shares @ (columns * target[:, None]) - means * target_means
    varies = (variances > least_variances) & (target_variances > least_target_variance)
    product = variances * target_variances
    return np.divide(covariances**2, product, out=np.zeros_like(product), where=varies)


def _least_variance(values: Float[np.ndarray, "images *columns"]) -> Float[np.ndarray, "*columns"]:
    """A variance below this is rounding: of sums of squares, and of the mean (that of six times 0.1 is not 0.1)."""
    of_mean = 16 * np.finfo(values.dtype).eps * np.abs(values).max(0)
    return np.asarray(1e-12 * values.var(0) + of_mean**2)


def r_squared(
    predicted: Float[np.ndarray, " images"],
    target: Float[np.ndarray, " images"],
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, " weightings"]:
    """1 - residual / variance: 1 is perfect, 0 as good as the mean, below 0 worse; 0 where the target is constant."""
    shares = weights / weights.sum(1, keepdims=True)
    centred = target - target.mean()
    variance = shares @ centred**2 - (shares @ centred) ** 2
    residual = shares @ (target - predicted) ** 2
    varies = variance > _least_variance(target)
    return np.where(varies, 1 - residual / np.where(varies, variance, 1.0), 0.0)


def balanced_accuracy(
    predicted: Bool[np.ndarray, "images columns"],
    labels: Bool[np.ndarray, " images"],
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, "weightings columns"]:
    """Mean of the shares of positives and negatives that are right, for each column of predictions.

    nan where a weighting leaves one class without images.
    """
    halves = []
    for label in (True, False):
        of_class = weights[:, labels == label]
        right = of_class @ (predicted[labels == label] == label).astype(weights.dtype)
        count = of_class.sum(1, keepdims=True)
        halves.append(np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0))
    return (halves[0] + halves[1]) / 2


def area_under_curve(
    scores: Float[np.ndarray, " images"],
    labels: Bool[np.ndarray, " images"],
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, " weightings"]:
    """How often a positive image scores higher than a negative one; ties count half.

    scikit-learn's `roc_auc_score` sorts the images for every weighting; here they are sorted once.
    nan where a weighting leaves one class without images.
    Source: Hanley & McNeil 1982, Radiology 143.
    """
    order = np.argsort(scores, kind="stable")
    weights, labels = weights[:, order], labels[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))  # of runs of equal scores
    positive = np.add.reduceat(weights * labels, starts, axis=1)
    negative = np.add.reduceat(weights * ~labels, starts, axis=1)
    below = negative.cumsum(1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    return np.divide((positive * below).sum(1), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def bootstrap_interval(
    values: Float[np.ndarray, " images"], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean, for one value per image: what other images of the same kind would give.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    random = np.random.default_rng([seed, len(values)])
    means = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = random.integers(0, len(values), (min(RESAMPLES_AT_ONCE, resamples - first), len(values)))
        means.append(values[rows].mean(1, dtype=np.float64))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def spread_interval(
    estimate: float, resampled: Float[np.ndarray, " resamples"], lowest: float, highest: float
) -> tuple[float, float]:
    """Normal interval around the estimate with the spread of its bootstrap resamples, cut to what is possible.

    For scores made of counts (mutual information, votes), whose resamples have a bias of their own: drawing images
    twice looks like dependence. Only their spread is used.
    Source: Efron & Tibshirani 1993, section 13.3.
    """
    half = 1.96 * float(resampled.std(ddof=1))
    return max(lowest, estimate - half), min(highest, estimate + half)


def jackknife_interval(
    estimate: float, without_each: Float[np.ndarray, " blocks"], lowest: float, highest: float
) -> tuple[float, float]:
    """Student's interval around the estimate, from the estimates without one block each, cut to what is possible.

    Source: Efron & Tibshirani 1993, section 11.5; Kott 2001 (delete-a-group), Journal of Official Statistics 17.
    """
    degrees = len(without_each) - 1
    variance = float(without_each.var()) * degrees  # (blocks - 1) / blocks times the sum of squared deviations
    half = float(t.ppf(0.975, degrees)) * variance**0.5
    return max(lowest, estimate - half), min(highest, estimate + half)
