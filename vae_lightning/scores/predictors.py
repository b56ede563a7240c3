"""DCI: how much each latent matters to predictors of the factors that see all latents."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import entr
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LassoCV, lasso_path
from sklearn.model_selection import KFold

from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.resampling import area_under_curve, r_squared

Predictor = Literal["lasso", "forest"]
PENALTIES, FOLDS = 30, 5
# As a share of the penalty that sets all weights to 0. 0.01 takes a quarter of the time, and underfits where latents
# are correlated.
SMALLEST_PENALTY = 0.001
PASSES = 5_000  # of coordinate descent, at most
TREES, SMALLEST_LEAF, SHARE_PER_TREE = 10, 5, 0.2  # a tree on all images takes four times as long and finds the same


@dataclass(frozen=True)
class Importances:
    """What predictors of the factors have learned; each row but the first is a refit to resampled images."""

    importance: Float[np.ndarray, "refits factors latents"]  # >= 0
    predicted: Float[np.ndarray, "images factors"]  # of the scoring images; standardised factors
    not_converged: int = 0  # predictors whose fit was stopped before it had converged


def fit_predictors(
    predictor: Predictor,
    fitting: CodedImages,
    scoring: CodedImages,
    weights: Float[np.ndarray, "refits fitted"],
    seed: int,
) -> Importances:
    """One predictor per factor from the standardised codes; `weights` of the fitting images, the first row ones.

    A binary factor is predicted as a number, 0 or 1, so that one importance serves both kinds.
    lasso: importance is the absolute weight; sees linear relations only; of two identical latents it takes one.
    forest: importance is the reduction of squared error; fitted once, so that it has one row.
    Source: Eastwood & Williams 2018, section 3 (ICLR; openreview.net By-7dz-AZ): lasso and random forest.
    """
    codes, new_codes = fitting.standardised_codes(fitting), scoring.standardised_codes(fitting)
    factors = fitting.factors.astype(np.float64)
    targets = (factors - factors.mean(0)) / factors.std(0)
    if predictor == "forest":
        return _fit_forest(codes, targets, new_codes, seed)
    return _fit_lasso(codes, targets, new_codes, weights, seed)


def disentanglement(importance: Float[np.ndarray, "refits factors latents"]) -> Float[np.ndarray, " refits"]:
    """Whether each latent matters to one factor only, 0 to 1; each latent weighs as much as it matters.

    Source: Eastwood & Williams 2018, section 2: D_i = 1 - H_K(P_i.).
    """
    of_latent = importance.sum(1)
    scores = 1 - _relative_entropy(importance, 1)
    return _divide((scores * of_latent).sum(1), of_latent.sum(1))


def completeness(importance: Float[np.ndarray, "refits factors latents"]) -> Float[np.ndarray, "refits factors"]:
    """Whether each factor is found in one latent only, 0 to 1; 0 where no latent matters to it.

    Source: Eastwood & Williams 2018, section 2: C_j = 1 - H_D(P_.j).
    """
    return np.where(importance.sum(2) > 0, 1 - _relative_entropy(importance, 2), 0.0)


def informativeness(
    predicted: Float[np.ndarray, "images factors"],
    scoring: CodedImages,
    fitting: CodedImages,
    weights: Float[np.ndarray, "weightings images"],
) -> Float[np.ndarray, "weightings factors"]:
    """How well the scoring images' factors are predicted: 1 perfect, 0 chance; what is worse than chance is 0.

    Continuous factors: R^2. Binary ones: 2 AUC - 1, which needs no threshold. The paper gives the error instead.
    """
    scores = []
    for column, factor in enumerate(scoring.factors.T):
        guess = predicted[:, column]
        if scoring.is_binary:
            scores.append(2 * area_under_curve(guess, factor, weights) - 1)
        else:
            known = fitting.factors[:, column]
            scores.append(r_squared(guess * known.std() + known.mean(), factor, weights))
    return np.maximum(np.stack(scores, axis=1), 0.0)


def _fit_lasso(
    codes: Float[np.ndarray, "fitted latents"],
    targets: Float[np.ndarray, "fitted factors"],
    new_codes: Float[np.ndarray, "images latents"],
    weights: Float[np.ndarray, "refits fitted"],
    seed: int,
) -> Importances:
    """The penalty is the largest whose error in cross-validation is within one standard error of the smallest.

    The penalty with the smallest error keeps weights that are noise, and the entropies would count them.
    Source: Hastie, Tibshirani & Friedman 2009, section 7.10.
    """
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        penalties = []
        for target in targets.T:
            model = LassoCV(
                eps=SMALLEST_PENALTY,
                alphas=PENALTIES,
                cv=folds,
                precompute=True,
                fit_intercept=False,
                max_iter=PASSES,
                n_jobs=-1,  # threads
            )
            model.fit(codes, target)
            errors, spread = model.mse_path_.mean(1), model.mse_path_.std(1, ddof=1) / FOLDS**0.5
            enough = errors <= errors.min() + spread[errors.argmin()]
            penalties.append(float(model.alphas_[enough].max()))
        fits = np.stack([_refit(codes, targets, penalties, row) for row in weights])
    return Importances(np.abs(fits), new_codes @ fits[0].T, len(caught))


def _refit(
    codes: Float[np.ndarray, "fitted latents"],
    targets: Float[np.ndarray, "fitted factors"],
    penalties: list[float],
    weights: Float[np.ndarray, " fitted"],
) -> Float[np.ndarray, "factors latents"]:
    """Weights of all factors from one Gram matrix, with weighted images."""
    root = np.sqrt(weights)[:, None]
    inputs = np.asfortranarray(root * (codes - np.average(codes, 0, weights)))
    outputs = np.asfortranarray(root * (targets - np.average(targets, 0, weights)))
    gram, products = inputs.T @ inputs, inputs.T @ outputs
    rows = []
    for factor, penalty in enumerate(penalties):
        _, path, _ = lasso_path(
            inputs,
            outputs[:, factor],
            alphas=[penalty],
            precompute=gram,
            Xy=np.ascontiguousarray(products[:, factor]),
            check_input=False,
            max_iter=PASSES,
        )
        rows.append(path[:, 0])
    return np.stack(rows)


def _fit_forest(
    codes: Float[np.ndarray, "fitted latents"],
    targets: Float[np.ndarray, "fitted factors"],
    new_codes: Float[np.ndarray, "images latents"],
    seed: int,
) -> Importances:
    importance, predicted = [], []
    for target in targets.T:
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=SMALLEST_LEAF, max_samples=SHARE_PER_TREE, random_state=seed
        ).fit(codes, target)
        importance.append(np.maximum(forest.feature_importances_, 0.0))  # rounding leaves some at -1e-17
        predicted.append(forest.predict(new_codes))
    return Importances(np.stack(importance)[None], np.stack(predicted, axis=1))


def _relative_entropy(importance: Float[np.ndarray, "refits factors latents"], axis: int) -> Float[np.ndarray, "..."]:
    """Entropy of the shares along an axis over that of equal shares, 0 to 1; 1 where nothing matters."""
    total = importance.sum(axis, keepdims=True)
    shares = np.divide(importance, total, out=np.full_like(importance, 1 / importance.shape[axis]), where=total > 0)
    return entr(shares).sum(axis) / np.log(importance.shape[axis])


def _divide(above: Float[np.ndarray, " refits"], below: Float[np.ndarray, " refits"]) -> Float[np.ndarray, " refits"]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
