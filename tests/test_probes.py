from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics.probes import VALUES, Probes, has_both_classes
from vae_lightning.scores.attribute_scores import AttributeScores, score_attributes
from vae_lightning.scores.resampling import image_weights, percentile_interval
from vae_lightning.scores.result import Result

NAMES = ("Planted", "Noisy", "Unrelated", "Never", "Only_in_training")


class StandIn:
    """Latents far from standard; "Planted" is a half-space, "Noisy" one with noise, "Unrelated" a fair coin."""

    split = "test"
    which_latents = ""

    def __init__(self, images: int = 1_500, *, has_attributes: bool = True) -> None:
        self.data = SimpleNamespace(attribute_names=NAMES if has_attributes else ())
        self.has_attributes = has_attributes
        self.latents, self.labels = {}, {}
        for seed, split in enumerate(("train", "test")):
            random = np.random.default_rng(seed)
            latents = random.normal(size=(images, 6))
            direction = latents @ np.array([1.0, -1.0, 0.5, 0.0, 0.0, 0.0]) / 1.5
            noisy = direction + random.normal(size=images) > 0
            coin = random.random(images) > 0.5
            only = np.arange(images) < (7 if split == "train" else 0)
            self.latents[split] = torch.from_numpy(100 + latents * np.array([1, 1000, 1, 1, 0.001, 0])).double()
            self.labels[split] = np.stack([direction > 0.8, noisy, coin, np.zeros(images, bool), only], axis=1)

    def codes(self, split: str | None = None, at_most: int | None = None) -> Tensor:
        return self.latents[split or self.split][:at_most]

    def attributes(self, split: str, at_most: int | None = None) -> np.ndarray | None:
        return self.labels[split][:at_most] if self.has_attributes else None

    def people(self, split: str, at_most: int | None = None) -> np.ndarray:
        return np.arange(len(self.labels[split][:at_most]))

    def seed_of(self, purpose: str, *numbers: int) -> int:
        return len(purpose)


@pytest.fixture(scope="module")
def measured() -> Result:
    return Probes(resamples=50).measure(StandIn())


def test_probes_find_a_planted_direction_and_nothing_in_a_coin(measured: Result) -> None:
    rows = {row["attribute"]: row for row in measured.tables["attributes"]}
    assert list(rows) == ["Planted", "Noisy", "Unrelated"]  # by AUC
    assert rows["Planted"]["auc"] > 0.999
    assert rows["Planted"]["accuracy"] > 0.97
    assert rows["Planted"]["majority"] == pytest.approx(norm.cdf(0.8), abs=0.03)
    # sign(direction) agrees with sign(direction + noise) in 3/4 of all cases where both have variance 1
    assert rows["Noisy"]["accuracy"] == pytest.approx(0.75, abs=0.03)
    assert rows["Unrelated"]["auc low"] < 0.5 < rows["Unrelated"]["auc high"]
    assert rows["Unrelated"]["balanced accuracy"] == pytest.approx(0.5, abs=0.04)


def test_means_are_those_of_the_table_and_lie_in_their_intervals(measured: Result) -> None:
    rows = measured.tables["attributes"]
    for value, column in zip(measured.values, ("accuracy", "balanced accuracy", "auc"), strict=True):
        assert value.value == pytest.approx(np.mean([row[column] for row in rows]))
        low, high = value.interval or (1.0, 0.0)
        assert low < value.value < high
        assert high - low < 0.06


def test_attributes_with_one_class_are_listed_not_measured(measured: Result) -> None:
    assert measured.protocol["not_measured"] == ["Never", "Only_in_training"]
    assert any("2 of 5 attributes" in remark for remark in measured.remarks)
    assert has_both_classes(np.array([[True, False, True], [True, False, False]])).tolist() == [False, False, True]


def test_bars_are_drawn(measured: Result) -> None:
    assert measured.pictures["probes"].std() > 10


def test_values_say_what_guessing_would_score(measured: Result) -> None:
    rows = measured.tables["attributes"]
    majority = np.mean([row["majority"] for row in rows])
    assert measured.values[0].note.startswith(f"always the more frequent class: {majority:.4f}; mean of 3 attributes; ")
    assert {value.better for value in measured.values} == {"higher"}


def test_probes_are_fitted_to_so_many_training_images_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.evaluation.metrics.probes.MOST_FITTED", 300)
    measured = Probes(resamples=2).measure(StandIn(500))
    assert (measured.protocol["fitted_to"], measured.protocol["images"]) == ("300 training images", 500)


def test_a_heavy_penalty_leaves_the_more_frequent_class() -> None:
    measured = Probes(resamples=2, inverse_penalty=1e-9).measure(StandIn(300))
    planted = next(row for row in measured.tables["attributes"] if row["attribute"] == "Planted")
    assert planted["balanced accuracy"] == 0.5
    assert planted["accuracy"] == planted["majority"]


def test_latents_that_are_no_numbers_say_so() -> None:
    subject = StandIn(50)
    subject.latents["test"][3, 2] = float("nan")
    assert all("(nan or inf)" in value.note for value in Probes().measure(subject).values)


def test_the_table_by_hand() -> None:
    """The first weighting gives the scores, the others their interval; the best attribute comes first."""
    scores = AttributeScores(
        np.array([[True, False, True], [True, True, True], [True, False, True], [False, True, True]]),
        np.array([[0.7, 0.4, 0.5], [0.1, 0.9, 0.3], [0.2, 0.8, 0.3]]),
        np.array([[0.8, 0.9, 0.0], [0.2, 0.3, 0.1], [0.4, 0.5, 0.1]]),
        np.array([0.25, 0.6, 0.5]),
    )
    columns = ("attribute", "share", "accuracy", "majority", "balanced accuracy", "auc", "auc low", "auc high")
    expected = [
        ("B", 0.6, 0.5, 0.6, 0.4, 0.9, 0.305, 0.495),
        ("A", 0.25, 0.75, 0.75, 0.7, 0.8, 0.205, 0.395),
        ("C", 0.5, 1.0, 0.5, 0.5, 0.0, 0.1, 0.1),
    ]
    for row, cells in zip(scores.table(["A", "B", "C"]), expected, strict=True):
        assert row == pytest.approx(dict(zip(columns, cells, strict=True)))
    (alone,) = AttributeScores(
        scores.is_right[:, :1], scores.balanced_accuracy[:1, :1], scores.auc[:1, :1], scores.shares[:1]
    ).table(["A"])
    assert (alone["auc"], alone["auc low"], alone["auc high"]) == (0.8, None, None)


def test_log_odds_of_zero_are_a_no() -> None:
    log_odds, labels = np.array([[-1.0], [0.0], [2.0], [1e-9]]), np.array([[False], [False], [False], [True]])
    scores = score_attributes(log_odds, labels, np.ones((1, 4)))
    assert scores.is_right[:, 0].tolist() == [True, True, False, True]
    assert scores.shares.tolist() == [0.25]
    assert scores.balanced_accuracy[0, 0] == pytest.approx((1 + 2 / 3) / 2)
    assert scores.auc[0, 0] == pytest.approx(2 / 3)


def test_an_attribute_with_a_single_positive_image_has_an_interval() -> None:
    """A third of all resamples leaves it without positives."""
    subject = StandIn(200)
    subject.labels["test"][:, 0] = np.arange(200) == 3
    found = Probes(resamples=100).measure(subject)
    rows = {row["attribute"]: row for row in found.tables["attributes"]}
    assert 0 <= rows["Planted"]["auc low"] <= rows["Planted"]["auc"] <= rows["Planted"]["auc high"] <= 1
    assert all(np.isfinite(value.interval).all() for value in found.values)


def test_percentile_interval_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        sample = random.exponential(size=100)
        low, high = percentile_interval(image_weights(np.arange(100), 200, seed)[1:] @ sample / 100)
        covered.append(low <= 1.0 <= high)
    assert 0.88 <= np.mean(covered) <= 0.985


def test_data_without_attributes_say_so() -> None:
    measured = Probes().measure(StandIn(50, has_attributes=False))
    assert [value.name for value in measured.values] == list(VALUES)
    assert all(value.value is None and "no attributes" in value.note for value in measured.values)


def test_no_attribute_with_both_classes() -> None:
    subject = StandIn(50)
    subject.labels["test"][:] = True
    measured = Probes().measure(subject)
    assert all(value.value is None and "positives and negatives" in value.note for value in measured.values)
    assert measured.protocol["not_measured"] == list(NAMES)


def test_a_probe_that_has_not_converged_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.evaluation.metrics.probes.MOST_STEPS", 1)
    measured = Probes(resamples=5).measure(StandIn(300))
    assert "Planted" in measured.protocol["not_converged"]
    assert any("before they had converged: " in remark for remark in measured.remarks)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(EvaluationError, match="inverse_penalty=0"):
        Probes(inverse_penalty=0)
