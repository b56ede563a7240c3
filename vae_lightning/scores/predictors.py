"""DCI: how much each latent matters to predictors of the factors that see all latents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import entr
from sklearn.tree import DecisionTreeRegressor

from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.resampling import area_under_curve, people_blocks, r_squared

TREES, SMALLEST_LEAF = 10, 5


@dataclass(frozen=True)
class Importances:
    """What a forest has learned; each row but the first is the forest without one of its trees."""

    importance: Float[np.ndarray, "forests factors latents"]  # >= 0; a factor's sum to 1, or to 0 without a split
    predicted: Float[np.ndarray, "images factors"]  # of the scoring images, by the whole forest


def fit_forest(fitting: CodedImages, scoring: CodedImages, seed: int) -> Importances:
    """One forest per factor; importance is the share of a latent in the reduction of squared error.

    Each tree sees the images of another tenth of the people, instead of a resample of all of them: in a tenth of the
    time, and the spread between the trees is that between people. A binary factor is predicted as a number, 0 or 1,
    so that one importance serves both kinds. Trees share their importance evenly between latents that say nothing, so
    that noise lowers disentanglement and completeness. A lasso, the paper's other choice, drops the latents that it
    cannot use: the noisier the codes, the fewer weights are left, and the more disentangled they look.
    Source: Eastwood & Williams 2018, section 3 (ICLR; openreview.net By-7dz-AZ).
    """
    blocks = people_blocks(fitting.people, TREES, seed)
    num_trees, num_factors = blocks.max() + 1, fitting.factors.shape[1]
    importance = np.zeros((num_trees, num_factors, fitting.codes.shape[1]))
    predicted = np.zeros((len(scoring.codes), num_factors))
    for block in range(num_trees):
        rows = np.flatnonzero(blocks == block)
        for factor in range(num_factors):
            tree = DecisionTreeRegressor(min_samples_leaf=SMALLEST_LEAF, random_state=seed)
            tree.fit(fitting.codes[rows], fitting.factors[rows, factor])
            importance[block, factor] = np.maximum(tree.feature_importances_, 0.0)  # rounding leaves some at -1e-17
            predicted[:, factor] += tree.predict(scoring.codes) / num_trees
    without = [np.delete(importance, block, axis=0).mean(0) for block in range(num_trees)] if num_trees > 1 else []
    return Importances(np.stack([importance.mean(0), *without]), predicted)


def disentanglement(importance: Float[np.ndarray, "forests factors latents"]) -> Float[np.ndarray, " forests"]:
    """Whether each latent matters to one factor only, 0 to 1; each latent weighs as much as it matters.

    Source: Eastwood & Williams 2018, section 2: D_i = 1 - H_K(P_i.).
    """
    of_latent = importance.sum(1)
    scores = 1 - _relative_entropy(importance, 1)
    return _divide((scores * of_latent).sum(1), of_latent.sum(1))


def completeness(importance: Float[np.ndarray, "forests factors latents"]) -> Float[np.ndarray, "forests factors"]:
    """Whether each factor is found in one latent only, 0 to 1; 0 where no latent matters to it.

    Source: Eastwood & Williams 2018, section 2: C_j = 1 - H_D(P_.j).
    """
    return np.where(importance.sum(2) > 0, 1 - _relative_entropy(importance, 2), 0.0)


def informativeness(
    predicted: Float[np.ndarray, "images factors"],
    scoring: CodedImages,
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, "weightings factors"]:
    """How well the scoring images' factors are predicted: 1 perfect, 0 chance; what is worse than chance is 0.

    Continuous factors: R^2. Binary ones: 2 AUC - 1, which needs no threshold. The paper gives the error instead.
    """
    scores = []
    for guess, factor in zip(predicted.T, scoring.factors.T, strict=True):
        if scoring.is_binary:
            scores.append(2 * area_under_curve(guess, factor, weights) - 1)
        else:
            scores.append(r_squared(guess, factor, weights))
    return np.maximum(np.stack(scores, axis=1), 0.0)


def _relative_entropy(importance: Float[np.ndarray, "forests factors latents"], axis: int) -> Float[np.ndarray, "..."]:
    """Entropy of the shares along an axis over that of equal shares, 0 to 1; 1 where nothing matters."""
    total = importance.sum(axis, keepdims=True)
    shares = np.divide(importance, total, out=np.full_like(importance, 1 / importance.shape[axis]), where=total > 0)
    return entr(shares).sum(axis) / np.log(importance.shape[axis])


def _divide(
    above: Float[np.ndarray, " forests"], below: Float[np.ndarray, " forests"]
) -> Float[np.ndarray, " forests"]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
