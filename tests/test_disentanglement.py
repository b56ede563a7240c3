import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import mutual_info_score

from vae_lightning.evaluation.factor_scores import SCORES, FactorScores
from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.disentanglement import (
    best_cuts,
    factorvae_chance,
    factorvae_score,
    mig,
    modularity,
    separability,
)
from vae_lightning.scores.information import (
    Information,
    adjust_for_chance,
    discretise,
    equal_widths,
    measure_information,
    shuffled_information,
)
from vae_lightning.scores.predictors import TREES, completeness, disentanglement, fit_forest
from vae_lightning.scores.resampling import image_weights, jackknife_interval, people_blocks, spread_interval

BINARY = (False, True)


def independent_factors(images: int, factors: int, seed: int, binary: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).random((images, factors))
    return values > 0.5 if binary else values


def scores_of(code: str, *, binary: bool = False, factors: int = 4, images: int = 2_000) -> FactorScores:
    """Codes made of the factors, with two latents of noise, as training and as test images."""
    both = []
    for seed in (0, 1):
        values = independent_factors(images, factors, seed, binary)
        random = np.random.default_rng(seed + 10)
        numbers = (values - values.mean(0)) / values.std(0)
        noise = random.normal(size=(images, 2))
        if code == "independent":
            codes = random.normal(size=(images, factors + 2))
        elif code == "perfect":
            codes = np.concatenate([numbers, noise], axis=1)
        elif code == "rotated":  # pairs of factors by 45 degrees
            first, second = numbers[:, ::2], numbers[:, 1::2]
            codes = np.concatenate([first + second, first - second, noise], axis=1)
        else:  # each factor in two latents, equally well
            codes = np.concatenate([np.tile(numbers, 2) + 0.05 * random.normal(size=(images, 2 * factors)), noise], 1)
        both.append(CodedImages(codes, values))
    return FactorScores(*both, both[1], bins=20, votes=1_000, least_variance=0.05, resamples=20, seed=0)


def values_of(scores: FactorScores) -> dict[str, float | None]:
    return {value.name: value.value for value in scores.values()}


def ones(images: int) -> np.ndarray:
    return np.ones((1, images))


@pytest.mark.parametrize("binary", BINARY)
def test_a_perfect_code_has_the_highest_scores(binary: bool) -> None:
    values = values_of(scores_of("perfect", binary=binary))
    assert values["mig"] == pytest.approx(1.0, abs=0.03)
    assert values["mig_literature"] == pytest.approx(1.0, abs=0.12)  # noise latents share some bits by chance
    # the paper's score of a binary factor is a difference of balanced accuracies, with 0.5 for chance
    assert values["sap"] == pytest.approx(0.5 if binary else 1.0, abs=0.03)
    assert values["dci_disentanglement"] == pytest.approx(1.0, abs=0.03)
    assert values["dci_completeness"] == pytest.approx(1.0, abs=0.03)
    assert values["dci_informativeness"] == pytest.approx(1.0, abs=0.01)
    assert values["factorvae_score"] == pytest.approx(1.0, abs=0.01)
    assert values["factorvae_score_literature"] == pytest.approx(1.0, abs=0.01)
    # the two latents of noise are not modular; on binary factors 2,000 images hardly tell by how much
    assert values["modularity"] == pytest.approx(4 / 6, abs=0.3)
    assert 4 / 6 <= values["modularity_literature"] < 1


@pytest.mark.parametrize("binary", BINARY)
def test_an_independent_code_scores_no_better_than_chance(binary: bool) -> None:
    values = values_of(scores_of("independent", binary=binary))
    for name in ("mig", "sap"):
        assert values[name] == pytest.approx(0.0, abs=0.03)
    for name in ("dci_disentanglement", "dci_completeness", "dci_informativeness", "factorvae_score"):
        assert values[name] == pytest.approx(0.0, abs=0.06)
    assert values["modularity"] == pytest.approx(0.0, abs=0.3)
    assert values["factorvae_score_literature"] == pytest.approx(1 / 4, abs=0.12)


@pytest.mark.parametrize("binary", BINARY)
def test_no_score_rises_with_noise_in_the_codes(binary: bool) -> None:
    """Each code mixes its factor with a neighbour's, and gets more and more noise.

    Binary factors say where a value is high, as attributes of faces do: where codes are exact and the values themselves
    binary, mutual information sees the faintest mixture in full, and some noise raises MIG by hiding it.
    """
    curves: dict[str, list[float]] = {name: [] for name in SCORES}
    for noise in (0.0, 0.5, 1.0, 2.0, 4.0):
        both = []
        for seed in (0, 1):
            values = independent_factors(600, 5, seed)
            numbers = (values - values.mean(0)) / values.std(0)
            random = np.random.default_rng(seed + 10)
            codes = numbers + 0.3 * np.roll(numbers, 1, axis=1) + 0.3 * random.normal(size=numbers.shape)
            codes += noise * codes.std(0) * random.normal(size=codes.shape)
            both.append(CodedImages(codes, values > 0.5 if binary else values))
        scores = FactorScores(*both, both[1], bins=10, votes=400, least_variance=0.05, resamples=2, seed=0)
        for name, value in values_of(scores).items():
            curves[name].append(value)
    for name, curve in curves.items():
        assert np.diff(curve).max() < 0.015, (name, curve)
        assert curve[-1] < (0.85 if name == "modularity_literature" else 0.6) * curve[0], (name, curve)
    assert curves["dci_disentanglement"][-1] < 0.15
    assert curves["dci_informativeness"][-1] < 0.15


def test_the_table_has_the_scores_of_each_factor() -> None:
    scores = replace(scores_of("perfect", factors=3, images=400), bins=5, resamples=3)
    rows = scores.table(["a", "b", "c"], [7, 8, 9, 10, 11])
    assert [(row["factor"], row["latent"]) for row in rows] == [("a", 7), ("b", 8), ("c", 9)]
    values = values_of(scores)
    for column, score in (("gap", "mig"), ("sap", "sap"), ("completeness", "dci_completeness")):
        assert np.mean([row[column] for row in rows]) == pytest.approx(values[score])
    assert np.mean([row["informativeness"] for row in rows]) == pytest.approx(values["dci_informativeness"])
    for row in rows:
        assert row["gap"] == pytest.approx(row["share"] - row["second_share"])
        assert row["entropy_nats"] == pytest.approx(math.log(5) + 4 / 800, rel=1e-3)  # five equal bins of 400 images


@pytest.mark.parametrize("binary", BINARY)
def test_notes_and_intervals_are_of_the_scores_that_they_stand_beside(binary: bool) -> None:
    scores = replace(scores_of("redundant", factors=3, images=300, binary=binary), bins=5, votes=50, resamples=3)
    values = {value.name: value for value in scores.values()}
    assert ("at most 0.5; " if binary else "R^2 of one latent; ") in values["sap"].note
    assert "jackknife over trees, each of other people" in values["dci_completeness"].note
    resampled = mig(scores.information)
    half = 1.96 * resampled[1:].std(ddof=1)
    assert values["mig"].interval == pytest.approx((max(0.0, resampled[0] - half), min(1.0, resampled[0] + half)))
    forests = disentanglement(scores.importances.importance)
    assert values["dci_disentanglement"].value == forests[0]
    assert values["dci_disentanglement"].interval == pytest.approx(jackknife_interval(forests[0], forests[1:], 0, 1))
    alone = CodedImages(scores.fitting.codes, scores.fitting.factors, np.zeros(300, np.int64))
    of_one = {value.name: value for value in replace(scores, fitting=alone).values()}
    assert "no interval: few people" in of_one["dci_completeness"].note
    assert of_one["dci_completeness"].interval is None


def test_each_forest_but_the_first_lacks_one_tree() -> None:
    scores = scores_of("rotated", factors=2, images=200)
    importance = fit_forest(scores.fitting, scores.scoring, 0).importance
    assert importance.shape == (1 + TREES, 2, 4)
    np.testing.assert_allclose(importance[1:].mean(0), importance[0])
    np.testing.assert_allclose(importance.sum(2), 1.0)
    people = np.repeat(np.arange(7), 3)
    blocks = people_blocks(people, 5, 0)
    assert sorted(set(blocks)) == [0, 1, 2, 3, 4]
    assert all(len(set(blocks[people == person])) == 1 for person in range(7))
    assert sorted(set(people_blocks(people[:6], 5, 0))) == [0, 1]


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 5.0, 8.0])
    without = np.array([np.delete(values, each).mean() for each in range(5)])
    expected = t.interval(0.95, 4, values.mean(), values.std(ddof=1) / 5**0.5)
    assert jackknife_interval(values.mean(), without, -100, 100) == pytest.approx(expected)
    assert jackknife_interval(values.mean(), without, 3.9, 4.1) == (3.9, 4.1)


def test_mutual_information_of_independent_and_of_perfect_codes_needs_no_more_than_1000_images() -> None:
    factors = independent_factors(1_000, 3, 0)
    bins = discretise(np.concatenate([factors, independent_factors(1_000, 3, 1)], axis=1), 20)
    shares = measure_information(bins, bins[:, :3], ones(1_000)).shares[0]
    np.testing.assert_allclose(np.diag(shares[:, :3]), 1.0, atol=1e-6)
    assert shares[:, 3:].max() < 0.05


def test_rotation_by_45_degrees_is_punished_though_nothing_is_lost() -> None:
    scores = scores_of("rotated", factors=2)
    values = values_of(scores)
    assert values["mig"] == pytest.approx(0.0, abs=0.03)
    assert values["sap"] == pytest.approx(0.0, abs=0.05)
    assert values["modularity"] == pytest.approx(0.0, abs=0.25)
    assert values["dci_informativeness"] > 0.95
    # two factors, shared equally: 1 - log 2 / log 2; completeness is over four latents: 1 - log 2 / log 4
    assert values["dci_disentanglement"] == pytest.approx(0.0, abs=0.02)
    assert values["dci_completeness"] == pytest.approx(0.5, abs=0.02)


def test_a_redundant_code_is_disentangled_but_not_complete() -> None:
    values = values_of(scores_of("redundant"))
    assert values["mig"] == pytest.approx(0.0, abs=0.03)
    assert values["sap"] == pytest.approx(0.0, abs=0.03)
    assert values["dci_disentanglement"] == pytest.approx(1.0, abs=0.03)
    assert values["dci_completeness"] == pytest.approx(1 - math.log(2) / math.log(10), abs=0.05)
    assert values["modularity"] == pytest.approx(8 / 10, abs=0.1)
    assert values["factorvae_score"] == pytest.approx(1.0, abs=0.01)


def test_order_sign_and_scale_of_the_latents_do_not_matter() -> None:
    scores = scores_of("redundant")
    order = np.random.default_rng(0).permutation(scores.scoring.codes.shape[1])
    changed = [CodedImages(-3.0 * part.codes[:, order], part.factors) for part in (scores.fitting, scores.scoring)]
    other = values_of(replace(scores, fitting=changed[0], scoring=changed[1], whole=changed[1]))
    for name, value in values_of(scores).items():
        assert other[name] == pytest.approx(value, abs=0.02 if name.startswith("dci") else 0.003), name


def test_mutual_information_sees_only_the_order_of_values() -> None:
    codes = np.random.default_rng(0).normal(size=(500, 3))
    np.testing.assert_array_equal(discretise(codes, 10), discretise(np.exp(3 * codes), 10))


def test_bins_hold_equally_many_images_and_keep_ties_together() -> None:
    values = np.random.default_rng(0).normal(size=(1_000, 1))
    np.testing.assert_array_equal(np.bincount(discretise(values, 20)[:, 0]), 50)
    columns = np.array([[0.0, 5.0, 1.0], [0.0, 5.0, 0.0], [0.0, 5.0, 1.0], [7.0, 5.0, 0.0], [8.0, 5.0, 1.0]])
    np.testing.assert_array_equal(discretise(columns, 5), [[0, 0, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0], [2, 0, 1]])
    rare = np.arange(1_000) < 3
    np.testing.assert_array_equal(discretise(rare[:, None], 2)[:, 0], rare)
    with pytest.raises(ValueError, match="bins=1"):
        discretise(columns, 1)


def test_information_equals_scikit_learn_up_to_the_correction() -> None:
    random = np.random.default_rng(0)
    codes, factors = random.integers(0, 4, (300, 40)), random.integers(0, 3, (300, 2))
    codes[:, 1] = factors[:, 0] + (random.random(300) < 0.3)
    weights = image_weights(np.arange(300), 3, 0)
    found = measure_information(codes, factors, weights)
    for weighting, latent, factor in [(0, 0, 0), (0, 1, 0), (0, 39, 1), (2, 1, 0), (3, 1, 1)]:
        rows = np.repeat(np.arange(300), weights[weighting].astype(int))
        pair = codes[rows, latent], factors[rows, factor]
        occupied = [len(np.unique(one)) for one in pair]
        joint = len(np.unique(4 * pair[1] + pair[0]))
        corrected = mutual_info_score(*pair) - (joint - sum(occupied) + 1) / 600
        assert found.mutual_nats[weighting, factor, latent] == pytest.approx(max(corrected, 0.0), abs=1e-5)


def test_information_by_hand() -> None:
    """Two bits in four images: z_0 = v_0; z_1 says nothing."""
    codes, factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [0], [1], [1]])
    found = measure_information(codes, factors, ones(4))
    assert found.entropy_nats.item() == pytest.approx(math.log(2) + 1 / 8)
    np.testing.assert_allclose(found.mutual_nats[0, 0], [math.log(2) + 1 / 8, 0.0], atol=1e-6)
    assert mig(found).item() == pytest.approx(1.0)


def test_mig_and_modularity_by_hand() -> None:
    """Of two factors with 1 and 2 nats; rows are factors."""
    information = Information(np.array([[[0.5, 0.2], [0.2, 1.0]]]), np.array([[1.0, 2.0]]))
    assert mig(information).item() == pytest.approx((0.3 / 1 + 0.8 / 2) / 2)
    deviations = 0.2**2 / 0.5**2, 0.2**2 / 1.0**2
    assert modularity(information.mutual_nats) == pytest.approx(1 - sum(deviations) / 2)
    silent = np.concatenate([information.mutual_nats, np.zeros((1, 2, 1))], axis=2)
    assert modularity(silent) == pytest.approx((2 - sum(deviations)) / 3)  # a latent without information is not modular
    single = Information(information.mutual_nats[:, :, :1], information.entropy_nats)
    assert mig(single).item() == pytest.approx((0.5 / 1 + 0.2 / 2) / 2)


def test_scores_of_the_literature_are_those_of_its_definition() -> None:
    """numpy's histogram and scikit-learn's mutual information, as disentanglement_lib puts them together."""
    random = np.random.default_rng(0)
    factors = random.integers(0, 4, (500, 3))
    collapsed = 0.001 * random.normal(size=(500, 1))
    codes = np.concatenate([factors[:, :2] + 0.5 * random.normal(size=(500, 2)), random.normal(size=(500, 2))], axis=1)
    images, whole = (CodedImages(each, factors.astype(float)) for each in (codes, np.hstack([codes, collapsed])))
    scores = FactorScores(images, images, whole, bins=20, votes=300, least_variance=0.05, resamples=2, seed=0)
    bins = [np.digitize(column, np.histogram(column, 20)[1][:-1]) for column in whole.codes.T]
    mutual = np.array([[mutual_info_score(factor, each) for each in bins] for factor in factors.T])
    entropy = np.array([mutual_info_score(factor, factor) for factor in factors.T])
    ordered = np.sort(mutual, axis=1)
    values = values_of(scores)
    assert values["mig_literature"] == pytest.approx(np.mean((ordered[:, -1] - ordered[:, -2]) / entropy), abs=1e-5)
    squares = mutual**2
    deviation = (squares.sum(0) - squares.max(0)) / (squares.max(0) * 2)
    assert values["modularity_literature"] == pytest.approx(np.mean(1 - deviation), abs=1e-5)
    notes = {value.name: value.note for value in scores.values()}
    assert "all 5 latents" in notes["mig_literature"]
    assert "votes for 4 latents" in notes["factorvae_score"]  # the collapsed one is left out


def test_bins_of_equal_width_are_those_of_numpys_histogram() -> None:
    values = np.random.default_rng(0).normal(size=(1_000, 3)) * [1, 0, 1e-3]
    oracle = [np.digitize(column, np.histogram(column, 20)[1][:-1]) - 1 for column in values[:, [0, 2]].T]
    np.testing.assert_array_equal(equal_widths(values, 20)[:, [0, 2]].T, oracle)
    assert not equal_widths(values, 20)[:, 1].any()  # a constant has one bin
    assert equal_widths(np.array([[False], [True]]), 20).tolist() == [[0], [19]]


def test_a_factor_without_entropy_shares_nothing() -> None:
    assert Information(np.zeros((1, 2, 3)), np.array([[0.0, 1.0]])).shares.tolist() == [[[0.0] * 3] * 2]


def test_codes_are_standardised_by_those_of_the_fitting_images() -> None:
    fitting, other = (
        CodedImages(np.array(codes), np.zeros((2, 1))) for codes in ([[0.0, 5], [4, 5]], [[2.0, 5], [8, 7]])
    )
    assert fitting.standardised_codes(fitting).tolist() == [[-1, 0], [1, 0]]
    assert other.standardised_codes(fitting).tolist() == [[0, 0], [3, 2]]  # a constant one is only centred


def test_dci_by_hand() -> None:
    """Rows are factors: the first latent has shares 3/4 and 1/4, the second 0 and 1."""
    importance = np.array([[[3.0, 0.0], [1.0, 4.0]]])
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert disentanglement(importance).item() == pytest.approx(((1 - quarter) * 4 + 1 * 4) / 8)
    fifth = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8)) / math.log(2)
    np.testing.assert_allclose(completeness(importance), [[1.0, 1 - fifth]])
    nothing = np.zeros((1, 2, 2))
    assert disentanglement(nothing).item() == 0
    assert completeness(nothing).tolist() == [[0, 0]]


def test_cuts_by_hand() -> None:
    codes = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
    cuts, above = best_cuts(codes, np.array([[False], [True], [True], [True]]))
    assert cuts[0, :2].tolist() == [0.5, 0.5]
    assert above[0, :2].all()
    cuts, above = best_cuts(codes, np.array([[True], [True], [True], [False]]))
    assert cuts[0, 0] == 3.0
    assert not above[0, 0]
    constant = CodedImages(codes, np.array([[True], [True], [True], [False]]))
    assert separability(constant, constant, ones(4))[0, 0].tolist() == [1.0, pytest.approx(2 / 3), 0.5]


def test_a_cut_chosen_on_other_images_has_no_luck() -> None:
    random = np.random.default_rng(0)
    fitting, scoring = (CodedImages(random.normal(size=(60, 200)), random.random((60, 1)) > 0.5) for _ in range(2))
    assert separability(fitting, fitting, ones(60)).mean() > 0.57
    assert separability(fitting, scoring, ones(60)).mean() == pytest.approx(0.5, abs=0.015)


def test_separability_of_continuous_factors_is_the_squared_correlation() -> None:
    random = np.random.default_rng(0)
    codes = random.normal(size=(50, 3)) + 100
    images = CodedImages(codes, codes[:, :2] @ random.normal(size=(2, 2)) + random.normal(size=(50, 2)))
    found = separability(images, images, ones(50))[0]
    oracle = np.corrcoef(images.factors, codes, rowvar=False)[:2, 2:] ** 2
    np.testing.assert_allclose(found, oracle, atol=1e-10)


def test_votes_leave_out_what_has_collapsed_and_count_fresh_images() -> None:
    factors = independent_factors(1_000, 3, 0)
    collapsed = np.random.default_rng(1).normal(size=(1_000, 1)) * 0.01
    votes = factorvae_score(CodedImages(np.concatenate([4 * factors, collapsed], axis=1), factors), 500, 0)
    assert votes is not None
    assert (votes.num_latents, votes.is_right.shape) == (3, (500,))
    assert votes.is_right.mean() == 1
    assert factorvae_score(CodedImages(collapsed, factors), 500, 0) is None


def test_votes_are_of_images_with_the_same_value_also_of_a_rare_factor() -> None:
    random = np.random.default_rng(0)
    factors = random.random((1_000, 3)) < [0.1, 0.3, 0.6]
    codes = np.concatenate([factors, random.normal(size=(1_000, 2))], axis=1)
    votes = factorvae_score(CodedImages(codes, factors), 500, 0)
    assert votes is not None
    assert votes.is_right.mean() == 1


def test_votes_for_one_latent_can_only_name_one_factor() -> None:
    factors = independent_factors(1_000, 4, 0)
    votes = factorvae_score(CodedImages(4 * factors[:, :1], factors), 2_000, 0)
    assert votes is not None
    assert votes.is_right.mean() == pytest.approx(1 / 4, abs=0.04)


def test_few_images_raise_the_score_of_votes_by_chance() -> None:
    """Groups are drawn from the same images again and again: codes that say nothing are above one in four."""
    random = np.random.default_rng(0)
    few, many = (
        CodedImages(random.normal(size=(images, 5)), independent_factors(images, 4, 0)) for images in (150, 5_000)
    )
    assert factorvae_chance(few, 500, 0) > 0.35
    assert factorvae_chance(many, 500, 0) == pytest.approx(0.25, abs=0.05)
    found = factorvae_score(few, 500, 0)
    assert found is not None
    assert found.accuracy == pytest.approx(factorvae_chance(few, 500, 0), abs=0.1)


def test_intervals_of_mig_have_the_spread_of_fresh_images() -> None:
    """Intervals of 80 data sets around their mean score: 95 % in theory."""
    estimates, intervals = [], []
    for seed in range(80):
        random = np.random.default_rng(seed)
        factors = random.random((400, 2)) > 0.5
        codes = factors + 0.6 * random.normal(size=(400, 2))
        bins = discretise(codes, 5), discretise(factors, 5)
        scores = mig(measure_information(*bins, image_weights(np.arange(400), 60, seed)))
        estimates.append(scores[0])
        intervals.append(spread_interval(scores[0], scores[1:], 0.0, 1.0))
    expected = np.mean(estimates)
    covered = np.mean([low <= expected <= high for low, high in intervals])
    assert 0.88 <= covered <= 1.0
    widths = np.diff(intervals, axis=1).mean()
    assert widths == pytest.approx(2 * 1.96 * np.std(estimates), rel=0.25)


def test_shuffled_factors_tell_what_counts_alone_give() -> None:
    bins = discretise(independent_factors(1_000, 4, 0), 20)
    shuffled = shuffled_information(bins, bins, np.arange(1_000), 0)
    assert 0 < shuffled.max() < 0.2
    information = measure_information(bins, bins, ones(1_000))
    assert information.mutual_nats.max() > 2.9
    all_chance = adjust_for_chance(Information(np.full((1, 1, 1), 0.5), np.full((1, 1), 0.5)), np.full((1, 1), 0.5))
    assert all_chance.shares.item() == 0  # nothing to tell above chance
    adjusted = adjust_for_chance(information, shuffled.mean(0))
    np.testing.assert_allclose(np.diag(adjusted.shares[0]), 1.0)  # a perfect code stays perfect
    assert (adjusted.shares[0] - np.eye(4)).max() < 0.02


def test_a_latent_that_tells_people_apart_does_not_tell_their_traits() -> None:
    """60 people with 20 images each, whose trait the code does not know; it knows who they are."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 20)
    trait, who = random.random(60)[people, None], random.random(60)[people, None]
    bins = discretise(who + 0.001 * random.normal(size=(1_200, 1)), 20), discretise(trait, 20)
    naive = measure_information(*bins, ones(1_200))
    assert naive.shares.item() > 0.4  # what counting images as independent believes
    shuffled = shuffled_information(*bins, people, 0)
    assert adjust_for_chance(naive, shuffled.mean(0)).shares.item() < 0.1
    perfect = measure_information(bins[1], bins[1], ones(1_200))
    chance = shuffled_information(bins[1], bins[1], people, 0).mean(0)
    assert adjust_for_chance(perfect, chance).shares.item() == pytest.approx(1.0)
