import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from vae_lightning.evaluation.resampling import (
    area_under_curve,
    balanced_accuracy,
    image_weights,
    r_squared,
    squared_correlation,
)


def ones(images: int) -> np.ndarray:
    return np.ones((1, images))


def test_weighted_scores_are_those_of_the_repeated_images() -> None:
    random = np.random.default_rng(0)
    labels = random.random(80) > 0.4
    scores = (random.normal(size=80) + labels).round(1)  # with ties
    weights = image_weights(80, 4, 0)
    assert len(np.unique(scores)) < 60
    auc, r2 = area_under_curve(scores, labels, weights), r_squared(scores, labels.astype(float), weights)
    accuracy = balanced_accuracy((scores > 0.5)[:, None], labels, weights)[:, 0]
    correlation = squared_correlation(scores[:, None], labels.astype(float), weights)[:, 0]
    for row, counts in enumerate(weights):
        rows = np.repeat(np.arange(80), counts.astype(int))
        assert auc[row] == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
        assert accuracy[row] == pytest.approx(balanced_accuracy_score(labels[rows], scores[rows] > 0.5))
        assert r2[row] == pytest.approx(r2_score(labels[rows], scores[rows]))
        assert correlation[row] == pytest.approx(np.corrcoef(labels[rows], scores[rows])[0, 1] ** 2)


def test_area_under_the_curve_of_known_cases() -> None:
    labels = np.array([False, False, True, True])
    for scores, area in (([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 1, 1, 1], 0.5), ([1, 3, 2, 4], 0.75)):
        assert area_under_curve(np.array(scores, float), labels, ones(4)).item() == area
    one_class = np.array([[1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(area_under_curve(np.arange(4.0), labels, one_class)).all()
