"""Reconstructions and samples against real images as sets of features, of random weights."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from stand_ins import CPU, MakeSubject, by_name, random_weights, subject_maker
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from vae_lightning.evaluation.feature_networks import ALEXNET, INCEPTION, load_inception
from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics import fidelity
from vae_lightning.evaluation.metrics.fidelity import Fidelity, compare_features, frechet_distance
from vae_lightning.system.progress import untracked


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory, ALEXNET, INCEPTION)


@pytest.fixture(scope="module")
def make_subject(tmp_path_factory: pytest.TempPathFactory) -> MakeSubject:
    return subject_maker(tmp_path_factory)


class TinyInception(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """uint8 images -> 12 features, so that what is done with them can be followed."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        return (F.adaptive_avg_pool2d(images.float() / 64, 2).flatten(1),)


@pytest.fixture
def tiny_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "load_inception", lambda file, device: TinyInception())


def features(count: int, dims: int = 6, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(count, dims, generator=generator, dtype=torch.float64)


def test_features_of_a_set_against_itself() -> None:
    same = compare_features(features(300), features(300), kid_subset_size=100, seed=0)
    assert same["fid"] == pytest.approx(0, abs=1e-9)
    assert (same["precision"], same["recall"]) == (1, 1)


def test_halves_of_one_set_have_no_kid_and_sets_apart_share_nothing() -> None:
    halves = compare_features(*features(600).split(300), kid_subset_size=100, seed=0)
    assert abs(halves["kid"]) < halves["kid_std"] < 0.1
    apart = compare_features(features(50), features(60, mean=100, seed=1), kid_subset_size=1000, seed=0)
    assert (apart["precision"], apart["recall"]) == (0, 0)
    assert apart["kid"] > 1


def closed_form(first: torch.Tensor, second: torch.Tensor) -> float:
    """Heusel et al. 2017, equation 6, with the root's trace as the nuclear norm of the covariance between the sets.

    The trace of (S1 S2)^(1/2) is the sum of the singular values of S1^(1/2) S2^(1/2).
    """
    roots = [(each - each.mean(0)) / math.sqrt(len(each) - 1) for each in (first, second)]
    traces = sum(root.square().sum() for root in roots) - 2 * torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    return float((first.mean(0) - second.mean(0)).square().sum() + traces)


def test_fid_is_the_closed_form() -> None:
    first, second = features(200), features(150, mean=0.5, seed=1) @ torch.diag(torch.linspace(0.5, 2, 6).double())
    assert frechet_distance(first, second) == pytest.approx(closed_form(first, second), rel=1e-9)
    covariances = [np.cov(each.numpy(), rowvar=False) for each in (first, second)]
    traces = np.trace(sum(covariances) - 2 * scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real)
    mean_term = (first.mean(0) - second.mean(0)).square().sum().item()
    assert frechet_distance(first, second) == pytest.approx(mean_term + traces, rel=1e-9)


def test_fid_of_two_gaussians_converges_to_that_of_their_parameters() -> None:
    first, second = features(200_000, 3), 2 * features(200_000, 3, mean=0.5, seed=1)
    # |0 - 1|^2 in 3 dimensions, and (1 - 2)^2 for the standard deviations of each
    assert frechet_distance(first, second) == pytest.approx(3 + 3, abs=0.1)


def test_fid_of_few_images_is_that_of_all_their_features() -> None:
    """In the directions that the images span alone: nothing is lost, also where one feature is constant."""
    first, second = features(20, 64), features(25, 64, mean=0.3, seed=1)
    first[:, 0] = second[:, 0] = 7.0
    statistics = [fidelity.metric_fid.fid_features_to_statistics(each) for each in (first, second)]
    direct = fidelity.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(first, second) == pytest.approx(direct, rel=1e-5)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_kid_of_whole_sets_is_the_unbiased_estimate() -> None:
    made, real = features(30, seed=1, mean=0.2), features(30)
    found = compare_features(real, made, kid_subset_size=1000, seed=3)
    within = [((each @ each.T / 6 + 1) ** 3).fill_diagonal_(0).sum() / (30 * 29) for each in (made, real)]
    oracle = within[0] + within[1] - 2 * ((made @ real.T / 6 + 1) ** 3).mean()
    assert found["kid"] == pytest.approx(oracle.item(), rel=1e-9)
    assert found["kid_std"] == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_of_a_case_worked_by_hand() -> None:
    real, made = torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)
    real[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])  # in balls of radius 3, 2, 2, 3
    made[:, 0] = torch.tensor([2.5, 10.0, 11.0, 12.0])  # the first one's ball reaches from -7 to 12
    found = compare_features(real, made, kid_subset_size=4, seed=0)
    assert (found["precision"], found["recall"]) == (0.25, 1.0)


def test_fidelity_compares_what_it_says(make_subject: MakeSubject, weights_folder: Path, tiny_inception: None) -> None:
    subject, network = make_subject(), TinyInception()
    metric = Fidelity(samples=17, priors=("normal", "gaussian"), weights=str(weights_folder))
    measured = metric.measure(subject)
    values = by_name(measured)
    assert [*values] == [
        "fid_reconstructions",
        *(f"{each}_{prior}" for prior in ("normal", "gaussian") for each in ("fid", "kid", "precision", "recall")),
    ]
    real = network(subject.pixels("train", np.arange(20)))[0].double()
    made = network(subject.decode_uint8(subject.posterior().mean))[0].double()
    assert values["fid_reconstructions"].value == pytest.approx(closed_form(real, made), rel=1e-3)
    generator = torch.Generator().manual_seed(subject.seed_of("fidelity samples"))
    sampled = network(subject.decode_uint8(subject.prior("gaussian").sample(17, generator)))[0].double()
    assert values["fid_gaussian"].value == pytest.approx(closed_form(real, sampled), rel=1e-3)
    assert "17 samples against 20 train images; 17 images leave" in values["fid_gaussian"].note
    assert "not the official weights" in values["recall_normal"].note
    assert "100 subsets of 17" in values["kid_normal"].note
    assert (measured.protocol["kid_subset_size"], measured.protocol["crop"]) == (17, 148)
    assert len(measured.remarks) == 1


def test_fidelity_depends_neither_on_the_batch_size_nor_on_the_day(
    make_subject: MakeSubject, weights_folder: Path, tiny_inception: None
) -> None:
    metric = Fidelity(samples=16, priors=("normal",), weights=str(weights_folder))
    few, many = (by_name(metric.measure(make_subject(color="gray", batch_size=size))) for size in (3, 100))
    for name, value in few.items():
        assert value.value == pytest.approx(many[name].value, rel=1e-6, abs=1e-9)


def test_samples_can_be_compared_with_another_split(
    make_subject: MakeSubject, weights_folder: Path, tiny_inception: None
) -> None:
    metric = Fidelity(samples=16, priors=("normal",), reference="train", weights=str(weights_folder))
    values = by_name(metric.measure(make_subject(split="test")))
    assert "16 samples against 20 train images" in values["fid_normal"].note
    assert values["fid_reconstructions"].value is None
    assert "the test split has 3 images" in values["fid_reconstructions"].note


def test_reconstructions_are_compared_with_their_own_split_whatever_the_reference(
    make_subject: MakeSubject, weights_folder: Path, tiny_inception: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "FEWEST_IMAGES", 3)
    subject, network = make_subject(split="test"), TinyInception()
    metric = Fidelity(samples=16, priors=("normal",), reference="train", weights=str(weights_folder), kid_subset_size=5)
    measured = metric.measure(subject)
    real = network(subject.pixels("test", np.arange(3)))[0].double()
    made = network(subject.decode_uint8(subject.posterior("test").mean))[0].double()
    values = by_name(measured)
    assert values["fid_reconstructions"].value == pytest.approx(frechet_distance(real, made), rel=1e-6)
    assert (measured.protocol["kid_subset_size"], measured.protocol["kid_subset_size_asked_for"]) == (5, 5)
    assert [value.better for value in values.values()] == ["lower", "lower", "lower", "higher", "higher"]


def test_a_plain_autoencoder_has_fitted_samplers_alone(
    make_subject: MakeSubject, weights_folder: Path, tiny_inception: None
) -> None:
    metric = Fidelity(samples=16, priors=("normal", "gaussian"), weights=str(weights_folder))
    values = by_name(metric.measure(make_subject(posterior="deterministic")))
    assert values["fid_normal"].value is None
    assert "plain autoencoder" in values["fid_normal"].note
    assert values["fid_gaussian"].value is not None
    assert values["fid_gaussian"].value > 0


def test_without_weights_every_value_is_missing_and_no_image_is_computed(
    make_subject: MakeSubject, weights_folder: Path
) -> None:
    def no_work(steps: Iterable[int], description: str, total: int) -> Iterable[int]:
        raise AssertionError(description)

    metric = Fidelity()
    values = by_name(metric.measure(make_subject(track=no_work)))
    assert len(values) == 17
    for value in values.values():
        assert value.value is None
        assert "hub/checkpoints/weights-inception" in value.note
    assert metric.settings()["weights_sha256"] == "missing"
    arrived = Fidelity(weights=str(weights_folder)).settings()
    assert arrived != metric.settings()
    assert arrived == Fidelity(weights=str(weights_folder / INCEPTION.file_name)).settings()


@pytest.mark.parametrize(
    ("metric", "split", "message"),
    [
        (Fidelity(), "test", "the test split has 3 images, and fidelity needs 16"),
        (Fidelity(reference="val"), "train", "the val split has 3 images"),
    ],
)
def test_too_few_images_are_an_error(make_subject: MakeSubject, metric: Fidelity, split: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        metric.measure(make_subject(split=split))


def test_a_subset_of_one_image_has_no_kid() -> None:
    with pytest.raises(EvaluationError, match="kid_subset_size=1"):
        Fidelity(kid_subset_size=1)


@pytest.mark.slow
def test_the_whole_metric_with_inceptions_own_architecture(
    make_subject: MakeSubject, weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "FEWEST_IMAGES", 4)  # each takes a quarter of a second; 3 neighbours need 4 images
    described, seen = [], []
    forward = FeatureExtractorInceptionV3.forward

    def track(steps: Iterable[int], description: str, total: int) -> Iterable[int]:
        described.append((description, total))
        return untracked(steps, description, total)

    def watched(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor]:
        found = forward(network, images)
        seen.append((images, found[0].double()))
        return found

    subject = make_subject(train_size=4, batch_size=3, track=track)
    state = torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "forward", watched)
        measured = Fidelity(samples=4, priors=("normal",), weights=str(weights_folder)).measure(subject)
    torch.testing.assert_close(torch.get_rng_state(), state)
    values = {name: value.value for name, value in by_name(measured).items()}
    assert values["precision_normal"] == 0  # an untrained decoder paints no faces
    pixels, inception = (torch.cat(parts) for parts in zip(*seen, strict=True))
    originals, decoded = subject.pixels("train", np.arange(4)), subject.decode_uint8(subject.posterior().mean)
    torch.testing.assert_close(pixels[:4], originals, rtol=0, atol=0)
    torch.testing.assert_close(pixels[4:8], decoded, rtol=0, atol=1)  # of other batches: may be rounded otherwise
    assert inception.shape == (12, 2048)
    with torch.inference_mode():
        alone = load_inception(weights_folder / INCEPTION.file_name, CPU)(originals[3:])[0]
    torch.testing.assert_close(inception[3:4], alone.double(), rtol=1e-3, atol=1e-3)
    real, made, sampled = inception.split(4)
    assert values["fid_reconstructions"] == pytest.approx(closed_form(real, made), rel=1e-3)
    assert values["fid_normal"] == pytest.approx(closed_form(real, sampled), rel=1e-3)
    assert values["fid_normal"] > 0.5 * closed_form(real, made)
    assert measured.protocol["features"].startswith("Inception of FID, layer 2048")
    assert ("Features of samples, normal", 2) in described
