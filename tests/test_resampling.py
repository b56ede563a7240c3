import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from vae_lightning.scores.resampling import (
    area_under_curve,
    balanced_accuracy,
    image_weights,
    percentile_interval,
    r_squared,
    shuffle_people,
    squared_correlation,
)


def ones(images: int) -> np.ndarray:
    return np.ones((1, images))


def test_weighted_scores_are_those_of_the_repeated_images() -> None:
    random = np.random.default_rng(0)
    labels = random.random(80) > 0.4
    scores = (random.normal(size=80) + labels).round(1)  # with ties
    weights = image_weights(np.arange(80), 4, 0)
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


def test_people_are_drawn_with_all_of_their_images() -> None:
    people = np.array([7, 3, 7, 7, 5, 3])
    weights = image_weights(people, 50, 0)
    for person in (3, 5, 7):
        assert (np.ptp(weights[:, people == person], axis=1) == 0).all()
    assert (weights[1:, [0, 1, 4]].sum(1) == 3).all()  # as many people as there are
    assert np.unique(weights[1:, 4]).tolist() != [1.0]


def test_intervals_know_that_images_of_one_person_are_alike() -> None:
    """30 people with 10 images each, alike but for little: the mean is as uncertain as that of 30 numbers."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 10)
    covered = []
    for seed in range(150):
        values = random.normal(size=30)[people] + 0.1 * random.normal(size=300)
        weights = image_weights(people, 200, seed)[1:]
        low, high = percentile_interval(weights @ values / weights.sum(1))
        covered.append(low <= 0.0 <= high)
    assert 0.86 <= np.mean(covered) <= 0.985


def test_shuffled_people_keep_their_images_together() -> None:
    people = np.repeat(np.arange(20), np.arange(1, 21))
    rows = shuffle_people(people, np.random.default_rng(0))
    for person in range(20):
        assert len(np.unique(people[rows[people == person]])) == 1
    assert sorted({int(people[rows[people == person]][0]) for person in range(20)}) == list(range(20))


def test_area_under_the_curve_of_known_cases() -> None:
    labels = np.array([False, False, True, True])
    for scores, area in (([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 1, 1, 1], 0.5), ([1, 3, 2, 4], 0.75)):
        assert area_under_curve(np.array(scores, float), labels, ones(4)).item() == area
    one_class = np.array([[1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(area_under_curve(np.arange(4.0), labels, one_class)).all()


def test_a_weighting_without_one_class_has_no_balanced_accuracy() -> None:
    labels, predicted = np.array([True, True, False]), np.array([[True], [False], [False]])
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    found = balanced_accuracy(predicted, labels, weights)[:, 0]
    np.testing.assert_array_equal(found, [0.75, np.nan, np.nan])


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
@pytest.mark.parametrize("count", [6, 99])
def test_what_is_constant_explains_nothing_and_cannot_be_explained(count: int, constant: float) -> None:
    """Also where the mean of equal numbers is another number by rounding."""
    steps, flat, weights = np.arange(float(count)), np.full(count, constant), image_weights(np.arange(count), 5, 0)
    columns = np.stack([steps, flat], axis=1)
    correlations = squared_correlation(columns, steps, weights)
    np.testing.assert_allclose(correlations, [[1.0, 0.0]] * 6, atol=1e-12)
    np.testing.assert_allclose(squared_correlation(columns, flat, weights), 0.0, atol=1e-12)
    assert r_squared(steps, flat, weights).tolist() == [0.0] * 6
    assert r_squared(flat, flat, weights).tolist() == [0.0] * 6
    assert r_squared(steps, steps, weights).tolist() == [1.0] * 6


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_shares_of_variance_do_not_depend_on_the_unit(scale: float) -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=40)
    guess = target + 0.5 * random.normal(size=40)
    weights = image_weights(np.arange(40), 3, 0)
    np.testing.assert_allclose(r_squared(scale * guess, scale * target, weights), r_squared(guess, target, weights))
    scaled = squared_correlation(scale * guess[:, None], scale * target, weights)
    np.testing.assert_allclose(scaled, squared_correlation(guess[:, None], target, weights))


def test_correlation_needs_no_values_near_zero_and_no_columns_of_one_size() -> None:
    random = np.random.default_rng(0)
    target, weights = random.normal(size=40), image_weights(np.arange(40), 3, 0)
    column = (target + 0.5 * random.normal(size=40))[:, None]
    plain = squared_correlation(column, target, weights)
    np.testing.assert_allclose(squared_correlation(column + 1e6, target, weights), plain, rtol=1e-6)
    np.testing.assert_allclose(squared_correlation(column, target + 1e6, weights), plain, rtol=1e-6)
    sizes = squared_correlation(column * [1.0, 1e-20, 1e9], target, weights)
    np.testing.assert_allclose(sizes, np.repeat(plain, 3, axis=1))
