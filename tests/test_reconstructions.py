"""Reconstructions against their originals, image by image; LPIPS on random weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from stand_ins import CPU, MakeSubject, by_name, noise_images, random_weights, subject_maker, subject_of
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.transforms.functional import gaussian_blur

from vae_lightning.evaluation.feature_networks import ALEXNET, load_lpips
from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics.reconstructions import (
    Reconstructions,
    choose_shown,
    distances,
    laplacian_variance,
    per_image,
)
from vae_lightning.models.pixels import to_pixel_range


@pytest.fixture(scope="module")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory, ALEXNET)


@pytest.fixture(scope="module")
def lpips(weights_folder: Path) -> LearnedPerceptualImagePatchSimilarity:
    return load_lpips(weights_folder / ALEXNET.file_name, CPU)


@pytest.fixture(scope="module")
def make_subject(tmp_path_factory: pytest.TempPathFactory) -> MakeSubject:
    return subject_maker(tmp_path_factory)


def faces(count: int = 3, channels: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_distances_of_images_to_themselves_and_to_a_shift() -> None:
    originals = faces(4)
    same = distances(originals, originals)
    assert same["mse"].tolist() == [0] * 4
    torch.testing.assert_close(same["ssim"], torch.ones(4))
    shifted = distances(originals.clamp(0.1, 0.8) + 0.1, originals.clamp(0.1, 0.8))
    torch.testing.assert_close(shifted["mse"], torch.full((4,), 0.01))
    torch.testing.assert_close(shifted["psnr"], torch.full((4,), 20.0), rtol=1e-4, atol=1e-4)  # 10 log10(1 / 0.01)


def test_distances_are_those_of_each_image_alone() -> None:
    made, originals = faces(3, seed=1), faces(3)
    together = distances(made, originals)
    for row in range(3):
        alone = distances(made[row : row + 1], originals[row : row + 1])
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][row])
    torch.testing.assert_close(together["psnr"], -10 * together["mse"].log10())


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = [ndimage.laplace(image.mean(0).double().numpy())[1:-1, 1:-1].var() for image in images]
    np.testing.assert_allclose(laplacian_variance(images), expected, rtol=1e-5)
    blurred = gaussian_blur(images, [5, 5])
    assert (laplacian_variance(blurred) < 0.5 * laplacian_variance(images)).all()
    found = distances(blurred, images)
    assert found["sharpness_of_originals"].equal(laplacian_variance(images))


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    made, original = 0.3, 0.5
    flat = distances(torch.full((1, 1, 16, 16), made), torch.full((1, 1, 16, 16), original))
    c1 = 0.01**2
    oracle = (2 * made * original + c1) / (made**2 + original**2 + c1)  # Wang et al. 2004, equation 13
    assert flat["ssim"].item() == pytest.approx(oracle, abs=1e-3)


@pytest.mark.parametrize("side", [31, 32, 64])
def test_lpips_is_a_symmetric_distance(lpips: LearnedPerceptualImagePatchSimilarity, side: int) -> None:
    made, originals = faces(3, side=side, seed=1), faces(3, side=side)
    forth, back = distances(made, originals, lpips)["lpips"], distances(originals, made, lpips)["lpips"]
    torch.testing.assert_close(forth, back)
    assert (forth > 0.01).all()
    assert distances(made, made, lpips)["lpips"].tolist() == [0, 0, 0]
    torch.testing.assert_close(distances(made[:1], originals[:1], lpips)["lpips"], forth[:1])


def test_lpips_is_that_of_pixels_between_minus_one_and_one(lpips: LearnedPerceptualImagePatchSimilarity) -> None:
    """Zhang et al. 2018 give AlexNet pixels in [-1, 1]; ours come in [0, 1]."""
    made, originals = faces(3, seed=1), faces(3)
    with torch.inference_mode():
        oracle = lpips.net(2 * made - 1, 2 * originals - 1, normalize=False).flatten()
    torch.testing.assert_close(distances(made, originals, lpips)["lpips"], oracle)


def test_gray_images_are_three_equal_channels_to_lpips(lpips: LearnedPerceptualImagePatchSimilarity) -> None:
    made, originals = faces(2, channels=1, seed=1), faces(2, channels=1)
    in_color = distances(made.repeat(1, 3, 1, 1), originals.repeat(1, 3, 1, 1), lpips)
    torch.testing.assert_close(distances(made, originals, lpips)["lpips"], in_color["lpips"])


def test_people_are_those_on_the_rows_that_are_asked_for(make_subject: MakeSubject) -> None:
    subject = make_subject()
    everybody = subject.people("train")
    assert len(everybody) == 20
    assert len(np.unique(everybody)) < 20  # two images each, in the file that was written
    np.testing.assert_array_equal(subject.people("train", 7), everybody[subject.rows("train", 7)])
    nobody_known = subject_of(subject.model, noise_images(9, 32, 3))
    nobody_known.data.identities = lambda split: None  # type: ignore[method-assign, assignment]
    assert nobody_known.people("test", 4).tolist() == [0, 1, 2, 3]


def test_factors_are_those_of_the_rows_that_are_asked_for(make_subject: MakeSubject) -> None:
    subject = make_subject()
    assert subject.factors("train") is None
    values = np.arange(40.0).reshape(20, 2)
    subject.data.factors = lambda split: (("a", "b"), values)  # type: ignore[method-assign, assignment]
    names, found = subject.factors("train", 3) or ((), values)
    assert names == ("a", "b")
    np.testing.assert_array_equal(found, values[[0, 10, 19]])  # 9.5 rounds to the even row


def test_best_median_and_worst_are_shown_in_order_of_error() -> None:
    errors = np.random.default_rng(0).permutation(101) / 100
    assert errors[choose_shown(errors)].round(2).tolist() == [
        *(0.0, 0.01, 0.02, 0.03, 0.48, 0.49, 0.5, 0.51, 0.97, 0.98, 0.99, 1.0)
    ]
    assert choose_shown(np.array([0.3, 0.1, 0.2])).tolist() == [1, 2, 0]


def test_reconstructions_are_decoded_means_against_their_originals(
    make_subject: MakeSubject, weights_folder: Path
) -> None:
    subject = make_subject()
    measured = Reconstructions(str(weights_folder)).measure(subject)
    originals = subject.pixels("train", np.arange(20)).float() / 255
    with torch.inference_mode():
        made = subject.model.decode(subject.model.encode(originals).mean)
    mse = (made - originals).double().square().mean((1, 2, 3))
    values = by_name(measured)
    assert values["reconstruction_mse"].value == pytest.approx(mse.mean().item(), rel=1e-4)
    assert values["reconstruction_psnr"].value == pytest.approx((-10 * mse.log10()).mean().item(), rel=1e-4)
    for value in values.values():
        assert value.value is not None
        assert value.interval is not None
        assert value.interval[0] < value.value < value.interval[1]
    assert "not the official weights" in values["reconstruction_lpips"].note
    assert measured.pictures["reconstruction_extremes"].shape[1] > 12 * 128
    assert measured.protocol["lpips_weights"]["official"] is False


def test_reconstructions_do_not_depend_on_the_batch_size(
    make_subject: MakeSubject, lpips: LearnedPerceptualImagePatchSimilarity
) -> None:
    few, many = (per_image(make_subject(color="gray", batch_size=size), lpips) for size in (3, 20))
    for name, values in few.items():
        np.testing.assert_allclose(values, many[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "found", "reason"), [(32, False, "put it at"), (16, True, "31 pixels a side or more, the images have 16")]
)
def test_lpips_that_cannot_be_measured_says_why(
    make_subject: MakeSubject, weights_folder: Path, side: int, found: bool, reason: str
) -> None:
    metric = Reconstructions(str(weights_folder) if found else None)
    values = by_name(metric.measure(make_subject(side)))
    assert values["reconstruction_lpips"].value is None
    assert reason in values["reconstruction_lpips"].note
    assert values["reconstruction_ssim"].value is not None
    assert (metric.settings()["lpips_sha256"] == "missing") is not found


def test_an_exact_reconstruction_has_no_psnr_and_a_broken_one_nothing(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject()
    originals = to_pixel_range(subject.pixels("train", np.arange(20)), (0.0, 1.0))
    means = subject.posterior().mean
    monkeypatch.setattr(
        subject,
        "decode",
        lambda codes: torch.stack([originals[int((means == code).all(1).nonzero())] for code in codes]),
    )
    values = by_name(Reconstructions().measure(subject))
    assert values["reconstruction_mse"].value == 0
    assert values["reconstruction_psnr"].value is None
    assert "20 images are reconstructed exactly" in values["reconstruction_psnr"].note
    monkeypatch.setattr(subject, "decode", lambda codes: torch.full((len(codes), 3, 32, 32), math.nan))
    with pytest.raises(EvaluationError, match="not finite numbers"):
        Reconstructions().measure(subject)
