"""Scores of how well single latents stand for single factors: MIG, modularity, SAP.

Each is given under several weightings of the images, of which the first counts every image once.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64

from vae_lightning.evaluation.codes import CodedImages
from vae_lightning.evaluation.information import Information
from vae_lightning.evaluation.resampling import balanced_accuracy, squared_correlation


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


def modularity(information: Information, least_nats: float) -> Float[np.ndarray, " weightings"] | None:
    """Whether each latent tells of one factor only, 0 to 1: mean over latents of 1 - deviation from such a template.

    With theta_i = max_f m_if, the deviation is the sum over all other factors of m_if^2, divided by
    theta_i^2 (factors - 1). Latents whose theta is not above `least_nats` tell nothing and are left out; None where
    that leaves none, or where there is only one factor.
    Source: Ridgeway & Mozer 2018, section 3, equation 2, arXiv:1802.05312.
    """
    mutual = information.mutual_nats
    mutual = mutual[:, :, mutual[0].max(0) > least_nats]
    if mutual.shape[1] < 2 or mutual.shape[2] == 0:
        return None
    largest = np.square(mutual.max(1))
    others = np.square(mutual).sum(1) - largest
    scale = largest * (mutual.shape[1] - 1)
    return (1 - np.divide(others, scale, out=np.zeros_like(scale), where=scale > 0)).mean(1)


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

    Both classes must be there.
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
