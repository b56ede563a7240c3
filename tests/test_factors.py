from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_lightning.evaluation.against_factors import varying
from vae_lightning.evaluation.factor_scores import SCORES
from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics.attribute_disentanglement import AttributeDisentanglement
from vae_lightning.evaluation.metrics.disentanglement import Disentanglement
from vae_lightning.scores.codes import active_latents
from vae_lightning.scores.result import Result


def independent_factors(images: int, factors: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((images, factors))


def test_dropped_columns() -> None:
    factors = np.zeros((100, 4))
    factors[:20, 1] = factors[:19, 2] = 1.0
    factors[:, 3] = np.arange(100)
    assert varying(factors).tolist() == [False, True, False, True]
    codes = np.random.default_rng(0).normal(size=(1_000, 3)) * [1.0, 0.05, 0.0]
    assert active_latents(codes, 0.01).tolist() == [0]
    assert active_latents(codes, 0.0).tolist() == [0, 1]
    assert active_latents(np.zeros((10, 2)), 0.0).tolist() == []


class StandIn:
    """What the metrics ask of a subject: perfect codes of random factors, one latent that has collapsed."""

    split, seed, which_latents = "test", 0, ""

    def __init__(self, images: int = 400, *, deterministic: bool = False, known: bool = True) -> None:
        self.data = SimpleNamespace(attribute_names=("A", "B", "C", "Rare"))
        self.known, self.model = known, SimpleNamespace(has_prior=not deterministic)
        self.values = {split: independent_factors(images, 4, seed) for seed, split in enumerate(("train", "test"))}
        for values in self.values.values():
            values[:, 3] = np.arange(images) < 5

    def codes(self, split: str | None = None, at_most: int | None = None) -> Tensor:
        values = self.values[split or self.split][:at_most]
        noise = np.random.default_rng(5).normal(size=(len(values), 1))
        codes = np.concatenate([0.001 * noise, 3 * values[:, :3] - 1, noise], axis=1)
        return torch.from_numpy(codes).float()

    def factors(self, split: str, at_most: int | None = None) -> tuple[tuple[str, ...], np.ndarray] | None:
        return (("a", "b", "c", "rare"), self.values[split][:at_most]) if self.known else None

    def attributes(self, split: str, at_most: int | None = None) -> np.ndarray | None:
        return self.values[split][:at_most] > 0.5 if self.known else None

    def people(self, split: str, at_most: int | None = None) -> np.ndarray:
        return np.arange(len(self.values[split][:at_most]))

    def seed_of(self, purpose: str, *numbers: int) -> int:
        return len(purpose)


METRICS = (Disentanglement(votes=300, resamples=10), AttributeDisentanglement(votes=300, resamples=10))


def by_name(measured: Result) -> dict[str, float | None]:
    return {value.name: value.value for value in measured.values}


@pytest.mark.parametrize("metric", METRICS)
def test_metric_of_perfect_codes(metric: Disentanglement | AttributeDisentanglement) -> None:
    measured = metric.measure(StandIn())
    assert list(by_name(measured)) == [metric.prefix + name for name in SCORES]
    assert by_name(measured)[f"{metric.prefix}mig"] > 0.7
    assert by_name(measured)[f"{metric.prefix}dci_disentanglement"] > 0.9
    for value in measured.values:
        assert value.interval is not None
        assert value.interval[0] <= value.value <= value.interval[1]
        assert value.note
    assert (measured.protocol["latents_used"], measured.protocol["latents_dropped"]) == (4, 1)
    assert [name.lower() for name in measured.protocol["factors_dropped"]] == ["rare"]
    (table,) = measured.tables.values()
    assert [row["latent"] for row in table] == [1, 2, 3]
    assert all(row["gap"] == pytest.approx(row["share"] - row["second_share"]) for row in table)
    (picture,) = measured.pictures.values()
    assert picture.std() > 0


def test_all_latents_of_an_autoencoder_that_vary_are_used() -> None:
    measured = METRICS[0].measure(StandIn(deterministic=True))
    assert measured.protocol["latents_used"] == 5
    assert "votes for 5 latents" in next(value.note for value in measured.values if value.name == "factorvae_score")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("images", "known", "reason"), [(400, False, "the data have no"), (99, True, "at least 100")])
def test_what_cannot_be_measured_says_why(
    metric: Disentanglement | AttributeDisentanglement, images: int, known: bool, reason: str
) -> None:
    measured = metric.measure(StandIn(images, known=known))
    assert list(by_name(measured)) == [metric.prefix + name for name in SCORES]
    assert set(by_name(measured).values()) == {None}
    assert all(reason in value.note for value in measured.values)


def test_a_collapsed_code_is_not_scored() -> None:
    subject = StandIn()
    codes = 0.01 * subject.codes()
    subject.codes = lambda *_: codes
    measured = METRICS[0].measure(subject)
    assert "0 latents vary" in measured.values[0].note


def test_predictors_are_fitted_to_so_many_training_images_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.evaluation.against_factors.MOST_FITTED", 150)
    measured = METRICS[0].measure(StandIn(200))
    assert (measured.protocol["fitted_to"], measured.protocol["images"]) == ("150 training images", 200)
    assert (
        "fitted to 150 training images" in {value.name: value.note for value in measured.values}["dci_disentanglement"]
    )


def test_measuring_twice_gives_the_same() -> None:
    first, second = (METRICS[0].measure(StandIn()) for _ in range(2))
    assert first.values == second.values
    assert first.tables == second.tables


def test_settings_that_cannot_be_are_refused() -> None:
    least = {"bins": 2, "votes": 1, "resamples": 2}
    Disentanglement(**least)
    for name, value in least.items():
        with pytest.raises(EvaluationError, match=f"{name}={value - 1}: at least {value}"):
            Disentanglement(**{name: value - 1})
