import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vae_lightning.models.distributions import (
    Deterministic,
    DiagonalGaussian,
    PixelPrediction,
    PosteriorDraw,
    discretised_gaussian_nll,
    floored_logvar,
    nats_to_bits_per_dim,
)
from vae_lightning.models.pixels import mean_squared_error, to_pixel_range, to_uint8


def random_posterior(batch: int = 6, latent: int = 5) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(1)
    return DiagonalGaussian(
        3 * torch.randn(batch, latent, generator=generator), 2 * torch.randn(batch, latent, generator=generator)
    )


def test_kl_equals_torch_distributions() -> None:
    posterior = random_posterior()
    oracle = kl_divergence(Normal(posterior.mean, torch.exp(0.5 * posterior.logvar)), Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl_per_latent(), oracle)


def test_kl_is_zero_for_the_prior_and_positive_elsewhere() -> None:
    prior = DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3))
    assert prior.kl_per_latent().abs().max() == 0
    nearly = DiagonalGaussian(torch.full((1, 1), 1e-3), torch.full((1, 1), 1e-4))
    assert nearly.kl_per_latent().item() == pytest.approx(0.5 * 1e-6 + 0.25e-8, rel=1e-3)
    assert (random_posterior().kl_per_latent() > 0).all()


def test_sample_is_the_mean_plus_sigma_times_the_noise() -> None:
    """Not minus, which has the same law: a sample belongs to its noise."""
    posterior = DiagonalGaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([[math.log(4.0), math.log(0.25)]]))
    assert posterior.draw(torch.tensor([[0.5, 2.0]])).latents.tolist() == [[pytest.approx(2.0), pytest.approx(-1.0)]]


def test_sample_has_the_posterior_moments() -> None:
    posterior = DiagonalGaussian(torch.full((200_000, 1), 2.0), torch.full((200_000, 1), math.log(0.25)))
    samples = posterior.draw(torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))).latents
    assert samples.mean().item() == pytest.approx(2.0, abs=0.01)
    assert samples.std().item() == pytest.approx(0.5, abs=0.01)


def test_log_ratio_of_a_draw_is_that_of_torch_distributions() -> None:
    posterior = random_posterior()
    draw = posterior.draw(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    q = Independent(Normal(posterior.mean, torch.exp(0.5 * posterior.logvar)), 1)
    p = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    torch.testing.assert_close(draw.log_ratio, q.log_prob(draw.latents) - p.log_prob(draw.latents))
    torch.testing.assert_close(draw.kl_per_latent.sum(1), kl_divergence(q, p))
    assert draw.mean is posterior.mean


def test_mean_log_ratio_of_many_draws_is_the_kl() -> None:
    posterior, draws = DiagonalGaussian(torch.tensor([[0.7, -1.0]]), torch.tensor([[-1.0, 0.3]])), 50_000
    many = DiagonalGaussian(posterior.mean.expand(draws, -1), posterior.logvar.expand(draws, -1))
    ratio = many.draw(torch.randn(draws, 2, generator=torch.Generator().manual_seed(0))).log_ratio
    error = ratio.std().item() / math.sqrt(draws)
    assert ratio.mean().item() == pytest.approx(posterior.kl_per_latent().sum().item(), abs=4 * error)


def test_a_code_is_drawn_as_it_is_and_costs_nothing() -> None:
    code = torch.randn(3, 4)
    draw = Deterministic(code).draw(torch.randn(3, 4))
    assert draw.latents.equal(code)
    assert not draw.kl_per_latent.any()
    assert not draw.log_ratio.any()


@pytest.mark.parametrize("has_mean", [True, False])
def test_a_detached_draw_has_the_same_numbers_without_gradients(has_mean: bool) -> None:
    latents, kl, mean = (torch.randn(2, 3, requires_grad=True) * 1 for _ in range(3))
    draw = PosteriorDraw(latents, kl, kl.sum(1), mean if has_mean else None)
    for name, tensor in vars(draw.detach()).items():
        before = getattr(draw, name)
        assert (tensor is None) == (before is None) == (name == "mean" and not has_mean)
        assert tensor is None or (tensor.equal(before) and not tensor.requires_grad)


def all_levels(pixel_range: tuple[float, float]) -> torch.Tensor:
    return to_pixel_range(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1), pixel_range)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("variance", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize("unit_mean", [0.0, 0.3, 1.0])
def test_masses_of_256_levels_add_up_to_one(
    pixel_range: tuple[float, float], variance: float, unit_mean: float
) -> None:
    low, high = pixel_range
    reconstruction = torch.full((256, 1, 1, 1), low + unit_mean * (high - low))
    nll = discretised_gaussian_nll(reconstruction, all_levels(pixel_range), torch.tensor(variance), pixel_range)
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1.0, abs=1e-4)


def test_likelihood_equals_differences_of_the_normal_cdf() -> None:
    variance = 0.02
    reconstruction = torch.full((256, 1, 1, 1), 0.4)
    nll = discretised_gaussian_nll(reconstruction, all_levels((0.0, 1.0)), torch.tensor(variance), (0.0, 1.0))
    normal = Normal(torch.tensor(0.4, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64).sqrt())
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / 255
    cdf = normal.cdf(edges)
    cdf[0], cdf[-1] = 0.0, 1.0
    torch.testing.assert_close(nll.double(), -torch.log(cdf.diff()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("variance", [torch.tensor(0.01), torch.rand(70, 3, 4, 4) * 0.1 + 0.001])
def test_likelihood_of_many_images_is_that_of_each(variance: torch.Tensor) -> None:
    images, reconstruction = torch.randint(0, 256, (70, 3, 4, 4)) / 255, torch.rand(70, 3, 4, 4)
    together = discretised_gaussian_nll(reconstruction, images, variance, (0.0, 1.0))
    for row in range(70):
        one = slice(row, row + 1)
        alone = variance[one] if variance.ndim else variance
        torch.testing.assert_close(
            together[one], discretised_gaussian_nll(reconstruction[one], images[one], alone, (0.0, 1.0))
        )


def test_likelihood_is_finite_where_the_error_is_a_hundred_sigmas() -> None:
    images, reconstruction = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    nll = discretised_gaussian_nll(reconstruction, images, torch.tensor(1e-4), (0.0, 1.0))
    assert nll.isfinite().all()
    assert nll.item() == pytest.approx(48 * 0.5 * 100**2, rel=0.01)


@pytest.mark.parametrize("sigmas", [5.0, 9.0, 11.0, 11.5, 12.0, 14.0, 30.0])
@pytest.mark.parametrize("variance", [1e-4, 0.005, 0.01])
def test_likelihood_is_exact_far_out(sigmas: float, variance: float) -> None:
    """Against float64's log Phi, through and beyond the masses that float32 can hold."""
    sigma = variance**0.5
    level = min(round(255 * sigmas * sigma), 254)
    image = torch.full((1, 1, 1, 1), level / 255)
    nll = discretised_gaussian_nll(torch.zeros(1, 1, 1, 1), image, torch.tensor(variance), (0.0, 1.0))
    near, far = (torch.tensor((level + half) / 255 / sigma, dtype=torch.float64) for half in (-0.5, 0.5))
    log_near, log_far = torch.special.log_ndtr(-near), torch.special.log_ndtr(-far)
    oracle = -(log_near + torch.log(-torch.expm1(log_far - log_near)))
    torch.testing.assert_close(nll[0].double(), oracle, rtol=1e-5, atol=1e-3)


class ElsewhereTensor(torch.Tensor):
    """Says of itself that it is on an accelerator."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda")


def test_an_accelerator_finds_the_same_likelihood() -> None:
    """It computes every pixel in both ways and asks nothing, where the CPU computes the few far out anew."""
    images, reconstruction = all_levels((0.0, 1.0)), torch.full((256, 1, 1, 1), 0.1)
    for variance in (torch.tensor(2e-3), torch.tensor(0.5)):
        here = discretised_gaussian_nll(reconstruction, images, variance, (0.0, 1.0))
        there = discretised_gaussian_nll(reconstruction, images.as_subclass(ElsewhereTensor), variance, (0.0, 1.0))
        torch.testing.assert_close(there.as_subclass(torch.Tensor), here)


@pytest.mark.parametrize(("pixel_range", "grey_level"), [((0.0, 1.0), 1 / 255), ((-1.0, 1.0), 2 / 255)])
def test_sigma_stays_above_one_grey_level(pixel_range: tuple[float, float], grey_level: float) -> None:
    sigma = torch.exp(0.5 * floored_logvar(torch.tensor([-1e4, -30.0, 3.0]), pixel_range))
    assert sigma.tolist() == pytest.approx([grey_level, grey_level, math.exp(1.5)], rel=1e-4)


@pytest.mark.parametrize("has_logvar", [True, False])
def test_a_detached_prediction_has_the_same_numbers_without_gradients(has_logvar: bool) -> None:
    mean, logvar = (torch.rand(2, 3, 4, 4, requires_grad=True) * 1 for _ in range(2))
    detached = PixelPrediction(mean, logvar if has_logvar else None, (-1.0, 1.0)).detach()
    assert detached.mean.equal(mean)
    assert not detached.mean.requires_grad
    assert detached.pixel_range == (-1.0, 1.0)
    if has_logvar:
        assert detached.logvar is not None
        assert detached.logvar.equal(logvar)
        assert not detached.logvar.requires_grad
    else:
        assert detached.logvar is None


def test_uniform_noise_costs_eight_bits() -> None:
    assert nats_to_bits_per_dim(torch.tensor(100 * math.log(256.0)), 100).item() == pytest.approx(8.0)


def test_mse_is_in_unit_pixels_whatever_the_range() -> None:
    unit = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    symmetric = unit[0] * 2 - 1, unit[1] * 2 - 1
    torch.testing.assert_close(
        mean_squared_error(*symmetric, (-1.0, 1.0)), mean_squared_error(*unit, (0.0, 1.0)), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_pixels_survive_the_way_into_the_model_and_back(pixel_range: tuple[float, float]) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    inside = to_pixel_range(levels, pixel_range)
    assert (inside.min().item(), inside.max().item()) == pytest.approx(pixel_range)
    assert torch.equal(to_uint8(inside, pixel_range), levels)


def test_joint_kl_is_the_sum_over_latents() -> None:
    posterior = random_posterior()
    joint = Independent(Normal(posterior.mean, torch.exp(0.5 * posterior.logvar)), 1)
    prior = Independent(Normal(torch.zeros(5), torch.ones(5)), 1)
    torch.testing.assert_close(posterior.kl_per_latent().sum(1), kl_divergence(joint, prior))
