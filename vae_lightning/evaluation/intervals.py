"""95 % confidence intervals over images."""

import numpy as np
from jaxtyping import Float

RESAMPLES = 1_000
RESAMPLES_AT_ONCE = 50


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
