"""The aggregate posterior and the latents' own numbers against closed forms."""

import math

import numpy as np
import pytest
import torch
from stand_ins import FlatVAE, noise_images, subject_of
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vae_lightning.evaluation.metrics.latents import (
    OF_THE_KL,
    LatentSpace,
    collapse_verdict,
    decompose_kl,
    gaussian_kl,
    gaussian_values,
)
from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.system.progress import untracked


def test_parts_of_the_kl_add_up_to_it() -> None:
    generator = torch.Generator().manual_seed(0)
    posterior = DiagonalGaussian(
        torch.randn(300, 3, generator=generator), torch.randn(300, 3, generator=generator) * 0.3 - 1
    )
    parts = decompose_kl(posterior, torch.randn(300, 3, generator=generator), untracked)
    total = parts.mutual_information + parts.total_correlation + parts.dimension_wise_kl
    closed_form = posterior.kl_per_latent().sum(1).double()
    difference = total - closed_form
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(300)
    assert float(total.mean()) == pytest.approx(float(closed_form.mean()), rel=0.15)


def test_the_aggregate_posterior_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar, noise = (torch.randn(23, 3, generator=generator) for _ in range(3))
    whole = decompose_kl(DiagonalGaussian(mean, logvar), noise, untracked)
    for cells in (1, 23 * 3 * 5):  # one sample at once, five
        monkeypatch.setattr("vae_lightning.evaluation.metrics.latents.CELLS_AT_ONCE", cells)
        parts = decompose_kl(DiagonalGaussian(mean, logvar), noise, untracked)
        for name in ("mutual_information", "total_correlation", "dimension_wise_kl"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_two_far_clusters_share_log_two_nats() -> None:
    """Both latents say the same bit: I(x; z) = log 2, and the latents depend on each other by another log 2."""
    sign = torch.tensor([1.0, -1.0]).repeat(100)[:, None]
    posterior = DiagonalGaussian(10 * sign.expand(200, 2), torch.full((200, 2), -2.0))
    parts = decompose_kl(posterior, torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), untracked)
    assert float(parts.mutual_information.mean()) == pytest.approx(math.log(2), abs=1e-4)
    assert float(parts.total_correlation.mean()) == pytest.approx(math.log(2), abs=1e-4)


def test_a_posterior_that_is_the_prior_has_no_parts() -> None:
    posterior = DiagonalGaussian(torch.zeros(50, 4), torch.zeros(50, 4))
    parts = decompose_kl(posterior, torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), untracked)
    for part in (parts.mutual_information, parts.total_correlation, parts.dimension_wise_kl):
        torch.testing.assert_close(part, torch.zeros(50, dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_gaussians_numbers_are_the_textbooks() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20_000, 3, generator=generator) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0, 0, 0.3]])
    posterior = DiagonalGaussian(mean, torch.full((20_000, 3), -1.0))
    covariance = torch.tensor([[1.0, 0.5, 0], [0.5, 1.25, 0], [0, 0, 0.09]]).double() + math.exp(-1) * torch.eye(3)
    origin = torch.zeros(3, dtype=torch.float64)
    oracle = kl_divergence(
        MultivariateNormal(origin, covariance), MultivariateNormal(origin, torch.eye(3, dtype=torch.float64))
    )
    assert gaussian_kl(origin, covariance) == pytest.approx(float(oracle), rel=1e-9)
    correlation = 0.5 / math.sqrt((1 + math.exp(-1)) * (1.25 + math.exp(-1)))
    total_correlation, kl_nats = gaussian_values(posterior, np.arange(20_000), 0)
    assert total_correlation.value == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.01)
    assert kl_nats.value == pytest.approx(float(oracle), abs=0.02)
    for value in (total_correlation, kl_nats):
        assert value.interval[0] < value.value < value.interval[1]
        assert value.better == "lower"


def test_few_images_or_people_give_the_gaussian_no_correlation() -> None:
    """40 independent latents of 400 images; then 100 images each of 40 people, who are all that differs."""
    generator = torch.Generator().manual_seed(0)
    independent = torch.randn(400, 40, generator=generator)
    people = torch.arange(40).repeat_interleave(100)
    of_people = torch.randn(40, 10, generator=generator)[people] + 0.1 * torch.randn(4_000, 10, generator=generator)
    for mean, shown, counted_nats in ((independent, np.arange(400), 0.5), (of_people, people.numpy(), 0.3)):
        posterior = DiagonalGaussian(mean, torch.full(mean.shape, -3.0))
        total_correlation, _ = gaussian_values(posterior, shown, 0)
        chance = float(total_correlation.note.split("; ")[-1].split()[0])
        assert chance > counted_nats
        assert total_correlation.value < 0.4 * chance


class PixelVAE(FlatVAE):
    """Its latents are the means of the image's halves, with a width that tells nothing, some, or all images apart."""

    def __init__(self, width: float) -> None:
        super().__init__(0.5)
        self.width = width

    def posterior_parameters(self, images: Tensor) -> Tensor:
        means = torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, dim=3)], dim=1)
        return torch.cat([30 * (means - 0.5), torch.full_like(means, 2 * math.log(self.width))], dim=1)


@pytest.mark.parametrize(("width", "is_measured"), [(1.0, True), (0.3, False), (0.001, False)])
@pytest.mark.parametrize("count", [150, 300])
def test_a_number_that_depends_on_how_many_images_there_are_is_a_bound(
    width: float, is_measured: bool, count: int
) -> None:
    measured = LatentSpace().measure(subject_of(PixelVAE(width), noise_images(count)))
    values = {value.name: value for value in measured.values}
    for name in ("mutual_information_nats", "total_correlation_nats", "aggregate_kl_nats"):
        value = values[name]
        if is_measured:
            assert value.value is not None
            assert value.interval[0] < value.interval[1]
        else:
            assert (value.value, value.interval, value.better) == (None, None, "")
            word = "at least" if name == "mutual_information_nats" else "at most"
            if width == 0.001 and name == "total_correlation_nats":  # single latents tell all images apart as well
                assert f"{count} images are too few for a bound" in value.note
            else:
                assert value.note.startswith(f"not measured: {word} ")
                assert f"by {count} images" in value.note
    assert (values["dimension_wise_kl_nats"].value is None) is (width == 0.001)
    assert any("Only bounded: mutual_information_nats" in remark for remark in measured.remarks) is not is_measured
    assert values["aggregate_gaussian_kl_nats"].value is not None
    if width == 0.001:  # every image is told apart: the bound is log(number of images)
        assert f"at least {math.log(count):.2f} nats" in values["mutual_information_nats"].note


def test_the_gaussian_is_below_and_the_images_are_above_the_kl_of_q() -> None:
    values = {value.name: value for value in LatentSpace().measure(subject_of(PixelVAE(0.3), noise_images(300))).values}
    above = float(values["aggregate_kl_nats"].note.split("at most ")[1].split()[0])
    assert 0 < values["aggregate_gaussian_kl_nats"].value < above


class OneTellsVAE(FlatVAE):
    """The second of its latents is the mean of the image, the first a constant far from 0."""

    def posterior_parameters(self, images: Tensor) -> Tensor:
        means = images.mean((1, 2, 3))
        columns = [torch.full_like(means, 3.0), 5 * means, torch.zeros_like(means), torch.full_like(means, -4.0)]
        return torch.stack(columns, dim=1)


def test_active_units_and_the_table_of_latents_by_hand() -> None:
    images = noise_images(40) // 64 * np.linspace(0, 80, 40, dtype=np.uint8)[:, None, None, None]
    means = 5 * images.reshape(40, -1).mean(1) / 255
    assert means.var() > 0.01
    measured = LatentSpace().measure(subject_of(OneTellsVAE(0.5), images))
    active = measured.values[0]
    assert (active.name, active.value) == ("active_units", 1)
    assert active.note.startswith("of 2; ")
    first, second = measured.tables["kl_per_latent"]
    kl_nats = 0.5 * ((means**2).mean() + math.exp(-4) - 1 + 4)
    assert first == {"latent": 0, "kl_nats": pytest.approx(4.5), "variance_of_mean": pytest.approx(0.0, abs=1e-9)}
    assert second == {
        "latent": 1,
        "kl_nats": pytest.approx(kl_nats, rel=1e-5),
        "variance_of_mean": pytest.approx(means.var(), rel=1e-5),
    }
    assert measured.protocol == {"images_in_aggregate_posterior": 40, "latent_samples_per_image": 1}


def test_the_card_has_every_part_of_the_kl() -> None:
    values = LatentSpace().measure(subject_of(PixelVAE(1.0), noise_images(150))).values
    found = {value.name: value.value for value in values}
    assert list(found) == ["active_units", *OF_THE_KL]
    assert {value.name for value in values if value.better == "lower"} == {*OF_THE_KL} - {"mutual_information_nats"}
    both = found["total_correlation_nats"] + found["dimension_wise_kl_nats"]
    assert found["aggregate_kl_nats"] == pytest.approx(both)


def test_collapse_is_said_in_words() -> None:
    assert collapse_verdict(0.2, 0, 8).startswith("Posterior collapse: 0 of 8")
    assert "3 latents carry no information" in collapse_verdict(20.0, 5, 8)
    assert collapse_verdict(20.0, 8, 8).startswith("No collapse: 8 of 8")
    flat = LatentSpace().measure(subject_of(FlatVAE(0.5), noise_images(30)))
    assert flat.remarks[0].startswith("Posterior collapse")
