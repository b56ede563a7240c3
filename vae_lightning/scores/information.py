"""Mutual information of single latents and single factors, from counts. Logarithms are natural: nats."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.stats import rankdata

from vae_lightning.scores.resampling import shuffle_people

SHUFFLES = 10
LATENTS_AT_ONCE = 32  # bounds the one-hot codes: 26 MB with 10,000 images and 20 bins


@dataclass(frozen=True)
class Information:
    """Information and entropy under each weighting of the images; the first counts every image once."""

    mutual_nats: Float[np.ndarray, "weightings factors latents"]  # I(z_j; v_k) >= 0
    entropy_nats: Float[np.ndarray, "weightings factors"]  # H(v_k) >= 0

    @property
    def shares(self) -> Float[np.ndarray, "weightings factors latents"]:
        """I(z_j; v_k) / H(v_k): about 0 to 1; 0 where a weighting leaves the factor constant."""
        entropy = self.entropy_nats[:, :, None]
        return np.divide(self.mutual_nats, entropy, out=np.zeros_like(self.mutual_nats), where=entropy > 0)


def discretise(
    values: Float[np.ndarray, "images columns"] | Bool[np.ndarray, "images columns"], bins: int
) -> Int64[np.ndarray, "images columns"]:
    """Bins with equally many images, numbered from 0 in the order of the values.

    Equal values share a bin, so a binary column has two bins, a constant column one, and a column of which half is
    zero one large bin and some others. Only the order of the values matters.

    Raises:
        ValueError: fewer than two bins.
    """
    if bins < 2:
        raise ValueError(f"bins={bins}: information needs at least 2 bins")
    middle = (rankdata(values, axis=0) - 0.5) / len(values)  # of a run of equal values; inside (0, 1)
    coarse = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return np.stack([np.unique(column, return_inverse=True)[1] for column in coarse.T], axis=1).astype(np.int64)


def equal_widths(
    values: Float[np.ndarray, "images columns"] | Bool[np.ndarray, "images columns"], bins: int
) -> Int64[np.ndarray, "images columns"]:
    """Bins of equal width between the smallest and the largest value of each column, numbered from 0.

    disentanglement_lib bins latents so. Where few values lie far out, most images share a few bins.
    Source: Locatello et al. 2019, appendix, arXiv:1811.12359 (histogram discretiser, 20 bins).
    """
    numbers = values.astype(np.float64)
    lowest, width = numbers.min(0), np.ptp(numbers, axis=0) / bins
    places = np.divide(numbers - lowest, width, out=np.zeros_like(numbers), where=width > 0)
    return np.minimum(places.astype(np.int64), bins - 1)


def measure_information(
    code_bins: Int64[np.ndarray, "images latents"],
    factor_bins: Int64[np.ndarray, "images factors"],
    weights: Float[np.ndarray, "weightings images"],
    *,
    is_corrected: bool = True,
) -> Information:
    """Joint counts -> mutual information, with the Miller-Madow correction unless it is not asked for.

    Counts overestimate information: with N images by about (occupied joint bins - occupied bins of the latent
    - occupied bins of the factor + 1) / 2N, which is subtracted. For an independent code, all of whose joint bins
    are occupied, this is (B_z - 1)(B_v - 1) / 2N; for a code that is a function of the factor it is negative and
    gives exactly the corrected entropy. It needs some images per joint bin: with 20 bins about 1,000.
    Source: Miller 1955, "Note on the bias of information estimates"; Paninski 2003, section 4, Neural Computation 15.
    """
    counted = weights.astype(np.float32)  # whole numbers, exact up to 2^24
    num_latents, num_factors = code_bins.shape[1], factor_bins.shape[1]
    mutual = np.empty((len(weights), num_factors, num_latents))
    for first in range(0, num_latents, LATENTS_AT_ONCE):
        part = slice(first, first + LATENTS_AT_ONCE)
        one_hot = _one_hot(code_bins[:, part])
        for factor in range(num_factors):
            joint = _joint_counts(one_hot, factor_bins[:, factor], counted)
            code_entropy = _entropy_nats(joint.sum(1), (2,), is_corrected)
            factor_entropy = _entropy_nats(joint.sum(3), (1,), is_corrected)
            mutual[:, factor, part] = code_entropy + factor_entropy - _entropy_nats(joint, (1, 3), is_corrected)
    single = [_joint_counts(np.ones((len(weights.T), 1, 1), np.float32), bins, counted) for bins in factor_bins.T]
    entropy = np.stack([_entropy_nats(counts[:, :, 0, 0], (1,), is_corrected) for counts in single], axis=1)
    return Information(np.maximum(mutual, 0.0), entropy)


def shuffled_information(
    code_bins: Int64[np.ndarray, "images latents"],
    factor_bins: Int64[np.ndarray, "images factors"],
    people: Int64[np.ndarray, " images"],
    seed: int,
    *,
    is_corrected: bool = True,
) -> Float[np.ndarray, "shuffles factors latents"]:
    """The mutual information that is left where each person gets another person's factors: what chance alone gives.

    With many images of few people it is large: a latent that distinguishes people seems to know all their traits.
    """
    random = np.random.default_rng([seed, len(code_bins)])
    ones = np.ones((1, len(code_bins)))
    shuffled = (factor_bins[shuffle_people(people, random)] for _ in range(SHUFFLES))
    return np.concatenate(
        [measure_information(code_bins, bins, ones, is_corrected=is_corrected).mutual_nats for bins in shuffled]
    )


def adjust_for_chance(information: Information, chance_nats: Float[np.ndarray, "factors latents"]) -> Information:
    """(I - chance) / (H - chance) of H: 0 where there is no more than chance, all of H for a perfect code.

    Source: Vinh, Epps & Bailey 2010, equation 5 (adjusted mutual information), JMLR 11.
    """
    entropy = information.entropy_nats[:, :, None]
    room = entropy - chance_nats
    above = np.maximum(information.mutual_nats - chance_nats, 0.0)
    shares = np.divide(above, room, out=np.zeros_like(above), where=room > 0)
    return Information(np.minimum(shares, 1.0) * entropy, information.entropy_nats)


def _one_hot(code_bins: Int64[np.ndarray, "images latents"]) -> Float[np.ndarray, "images latents bins"]:
    return (code_bins[:, :, None] == np.arange(code_bins.max() + 1)).astype(np.float32)


def _joint_counts(
    one_hot: Float[np.ndarray, "images latents code_bins"],
    factor_bins: Int64[np.ndarray, " images"],
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, "weightings factor_bins latents code_bins"]:
    """One matrix product for the images of each bin of the factor: the other bins' images would only add zeros."""
    cells = one_hot.reshape(len(one_hot), -1)
    groups = [np.flatnonzero(factor_bins == value) for value in range(factor_bins.max() + 1)]
    counts = np.stack([weights[:, rows] @ cells[rows] for rows in groups], axis=1)
    return counts.reshape(*counts.shape[:2], *one_hot.shape[1:])


def _entropy_nats(
    counts: Float[np.ndarray, "..."], over: tuple[int, ...], is_corrected: bool
) -> Float[np.ndarray, "..."]:
    """Of the distribution over the axes `over`; corrected (Miller-Madow): plus (occupied bins - 1) / 2N."""
    total = counts.sum(over, dtype=np.float64)
    logarithms = np.log(np.maximum(counts, 1.0))  # of an empty bin 0; five times as fast as scipy's xlogy
    plug_in = np.log(total) - (counts * logarithms).sum(over, dtype=np.float64) / total
    return plug_in + (np.count_nonzero(counts, over) - 1) / (2 * total) if is_corrected else plug_in
