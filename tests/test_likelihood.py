"""Likelihoods, bounds and the aggregate posterior against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from stand_ins import noise_images, subject_of
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.evaluation.aggregate import aggregate_moments, decompose_kl, gaussian_kl
from vae_lightning.evaluation.importance_sampling import (
    ImportanceWeighted,
    effective_samples,
    importance_bound,
    importance_weights,
    log_likelihood_of,
)
from vae_lightning.evaluation.intervals import bootstrap_interval, spread_interval
from vae_lightning.evaluation.latents import LatentSpace, collapse_verdict
from vae_lightning.evaluation.likelihood import Likelihood, s1_scores
from vae_lightning.evaluation.measured import EvaluationError
from vae_lightning.evaluation.pixel_likelihood import PixelLikelihood, calibrate
from vae_lightning.evaluation.subject import Subject
from vae_lightning.losses import GaussianShared
from vae_lightning.models import Autoencoder, LinearVAE
from vae_lightning.tracking import untracked


class FlatVAE(Autoencoder):
    """The same gray whatever the latents, and a posterior that is the prior: what is left is the pixels' own law."""

    def __init__(self, gray: float) -> None:
        super().__init__(image_size=8, color="gray", latent_dim=2)
        self.logit = nn.Parameter(torch.tensor(math.log(gray / (1 - gray))))

    def posterior_parameters(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 4)

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return self.logit.expand(len(latents), 1, 8, 8)


@pytest.fixture
def small() -> LinearVAE:
    torch.manual_seed(0)
    return LinearVAE(image_size=8, color="gray", latent_dim=3, hidden_dim=16)


def values_of(metric: Likelihood | ImportanceWeighted | LatentSpace, subject: Subject) -> dict[str, float]:
    return {value.name: value.value for value in metric.measure(subject).values if value.value is not None}


# Pixels


def test_bits_per_dim_is_the_entropy_of_pixels_of_a_known_law() -> None:
    gray, sigma = 0.4, 0.05
    term = GaussianShared()
    term.logvar.fill_(2 * math.log(sigma))
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / 255
    cumulative = Normal(gray, float(term.sigma((0.0, 1.0)))).cdf(edges)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    mass = cumulative.diff().numpy()
    entropy_bits = -np.sum(mass[mass > 0] * np.log2(mass[mass > 0]))
    images = np.random.default_rng(1).choice(256, (600, 8, 8, 1), p=mass / mass.sum()).astype(np.uint8)
    found = Likelihood().measure(subject_of(FlatVAE(gray), images, term))
    bits = next(value for value in found.values if value.name == "bits_per_dim")
    assert bits.interval is not None
    assert bits.interval[0] - 0.002 < entropy_bits < bits.interval[1] + 0.002
    assert bits.value == pytest.approx(entropy_bits, abs=0.02)
    assert found.protocol["pixel_variance"] == "the model's own variance"


def test_sigma_is_calibrated_on_training_images_where_the_model_has_none() -> None:
    gray = 0.5
    images = np.random.default_rng(0).normal(255 * gray, 20, (500, 8, 8, 1)).clip(0, 255).astype(np.uint8)
    subject = subject_of(FlatVAE(gray), images)
    mse, count = calibrate(subject)
    assert count == 500
    assert mse == pytest.approx(((images / 255 - gray) ** 2).mean(), rel=1e-4)
    assert "calibrated on 500 training images" in Likelihood().measure(subject).protocol["pixel_variance"]


@torch.no_grad()
def test_elbo_terms_are_those_of_the_objective(small: LinearVAE) -> None:
    subject = subject_of(small, noise_images(40))
    found = values_of(Likelihood(), subject)
    images = subject.model_input(subject.pixels("test", subject.rows("test")))
    posterior = small.encode(images)
    prediction = small.decode(posterior.sample(subject.noise(40, "elbo")))
    squared = (prediction - images).square().sum((1, 2, 3)).mean()
    kl = kl_divergence(Normal(posterior.mean, posterior.logvar.mul(0.5).exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert found["reconstruction_nats"] == pytest.approx(float(squared), rel=1e-5)
    assert found["kl_nats"] == pytest.approx(float(kl), rel=1e-5)
    assert found["elbo_nats"] == pytest.approx(-float(squared + kl), rel=1e-5)
    assert found["bits_per_dim"] == pytest.approx(-found["discretised_elbo_nats"] / (64 * math.log(2)))


def test_s1s_scores_reproduce_its_own_figures() -> None:
    model = LinearVAE(image_size=64, latent_dim=256, hidden_dim=2)
    nll, kl = 0.921 * 12288, 54.88 * 256
    scores = {value.name: value.value for value in s1_scores(nll, kl, subject_of(model, noise_images(2)))}
    assert scores["normalized_nll"] == pytest.approx(0.921)
    assert scores["normalized_kl"] == pytest.approx(54.88)
    assert scores["harmonic_mean"] == pytest.approx(1.812, abs=5e-4)
    # its bits per dimension follow from the same reading
    assert (nll + kl) / (12288 * math.log(2)) == pytest.approx(2.98, abs=5e-3)


def test_results_do_not_depend_on_the_batch_size(small: LinearVAE) -> None:
    images = noise_images(23)
    metrics = (Likelihood(), ImportanceWeighted(4), LatentSpace())
    for metric in metrics:
        one, other = (values_of(metric, subject_of(small, images, batch_size=size)) for size in (4, 64))
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
        assert one != pytest.approx(values_of(metric, subject_of(small, images, seed=1)), rel=1e-5, abs=1e-5)


# Importance sampling, on a linear-Gaussian model: x = W z + b + s * noise


@pytest.fixture
def linear_gaussian() -> tuple[Tensor, DiagonalGaussian, Callable[[slice, Tensor], Tensor]]:
    """Exact log p(x) of 60 observations, a posterior that is not quite right, and log p(x|z)."""
    generator = torch.Generator().manual_seed(3)
    mixing, offset, scale = torch.randn(5, 2, generator=generator), torch.randn(5, generator=generator), 0.7
    latents = torch.randn(60, 2, generator=generator)
    observed = latents @ mixing.T + offset + scale * torch.randn(60, 5, generator=generator)
    exact = MultivariateNormal(offset, mixing @ mixing.T + scale**2 * torch.eye(5)).log_prob(observed)
    precision = torch.eye(2) + mixing.T @ mixing / scale**2
    mean = torch.linalg.solve(precision, mixing.T @ (observed - offset).T / scale**2).T
    proposal = DiagonalGaussian(mean + 0.1, (1.5 / precision.diagonal()).log().expand(60, 2).clone())

    def log_likelihood(part: slice, latents: Tensor) -> Tensor:
        return Normal(latents @ mixing.T + offset, scale).log_prob(observed[part]).sum(1)

    return exact, proposal, log_likelihood


def test_iwae_rises_to_the_exact_likelihood_and_the_elbo_lies_below(
    small: LinearVAE, linear_gaussian: tuple[Tensor, DiagonalGaussian, Callable[[slice, Tensor], Tensor]]
) -> None:
    exact, proposal, log_likelihood = linear_gaussian
    subject = subject_of(
        LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4), noise_images(60), batch_size=17
    )
    log_weights = importance_weights(subject, proposal, log_likelihood, 4096)
    truth = float(exact.mean())
    bounds = [float(importance_bound(log_weights[:, :count]).mean()) for count in (1, 8, 64, 4096)]
    assert bounds == sorted(bounds)
    assert float(log_weights.mean()) < truth - 0.05
    relative = np.exp(log_weights - exact.double().numpy()[:, None])  # unbiased for 1, image by image
    standard_error = math.sqrt(float((relative.var(1) / 4096).mean()) / len(exact))
    assert abs(bounds[-1] - truth) < 4 * standard_error + 1e-3
    assert np.abs(relative.mean() - 1) < 4 * relative.std() / math.sqrt(relative.size)


def test_the_exact_posterior_as_proposal_needs_one_sample(small: LinearVAE) -> None:
    """x = z_1 + s * noise: the posterior is diagonal, so every weight is p(x)."""
    observed = torch.linspace(-2, 2, 30)
    variance = 0.5
    proposal = DiagonalGaussian(
        torch.stack([observed / (1 + variance), torch.zeros(30)], 1),
        torch.tensor([math.log(variance / (1 + variance)), 0.0]).expand(30, 2).clone(),
    )
    model = LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4)
    log_weights = importance_weights(
        subject_of(model, noise_images(30)),
        proposal,
        lambda part, latents: Normal(latents[:, 0], math.sqrt(variance)).log_prob(observed[part]),
        3,
    )
    exact = Normal(0.0, math.sqrt(1 + variance)).log_prob(observed)
    np.testing.assert_allclose(log_weights, exact[:, None].expand(30, 3).numpy(), atol=1e-5)
    np.testing.assert_allclose(effective_samples(log_weights), 3.0, rtol=1e-5)


def test_the_metric_reports_bound_and_gap_of_the_same_samples(small: LinearVAE) -> None:
    subject = subject_of(small, noise_images(30))
    found = values_of(ImportanceWeighted(8), subject)
    assert found["iwae_gap_nats"] > 0
    assert found["iwae_bits_per_dim"] == pytest.approx(-found["iwae_nats"] / (64 * math.log(2)))
    elbo = values_of(Likelihood(), subject)["discretised_elbo_nats"]
    assert found["iwae_nats"] - found["iwae_gap_nats"] == pytest.approx(elbo, abs=3.0)  # other noise
    with pytest.raises(EvaluationError, match="importance_samples=1"):
        ImportanceWeighted(1)


def test_a_narrower_proposal_is_chosen_where_sigma_was_calibrated_and_the_bound_only_rises(small: LinearVAE) -> None:
    images = np.random.default_rng(0).normal(128, 3, (60, 8, 8, 1)).clip(0, 255).astype(np.uint8)
    with torch.no_grad():  # latents that matter: the decoder reads them loudly, the encoder leaves them wide
        small.decoder[0].weight.mul_(6)
    subject = subject_of(small, images)
    found = ImportanceWeighted(16).measure(subject)
    assert found.protocol["proposal_scale"] < 1
    values = {value.name: value.value for value in found.values}
    plain = importance_weights(
        subject,
        subject.posterior(),
        log_likelihood_of(subject, PixelLikelihood(subject), "test", subject.rows("test")),
        16,
    )
    assert values["iwae_nats"] is not None
    assert values["iwae_nats"] > importance_bound(plain).mean() + 1
    own = subject_of(small, images, GaussianShared())
    assert ImportanceWeighted(2).measure(own).protocol["proposal_scale"] == 1


# The aggregate posterior


def test_parts_of_the_kl_add_up_to_it(small: LinearVAE) -> None:
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


def test_gaussian_kl_and_moments_are_the_textbooks() -> None:
    generator = torch.Generator().manual_seed(0)
    posterior = DiagonalGaussian(torch.randn(40, 3, generator=generator), torch.randn(40, 3, generator=generator))
    mean, covariance = aggregate_moments(posterior)
    oracle = kl_divergence(
        MultivariateNormal(mean, covariance),
        MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)),
    )
    assert gaussian_kl(mean, covariance) == pytest.approx(float(oracle), rel=1e-9)
    picks = torch.arange(40).repeat(5000)
    noise = torch.randn(len(picks), 3, generator=generator)
    samples = posterior.mean[picks] + posterior.logvar[picks].mul(0.5).exp() * noise
    torch.testing.assert_close(torch.cov(samples.T.double()), covariance, atol=0.1, rtol=0.03)


def test_collapse_is_said_in_words() -> None:
    assert collapse_verdict(0.2, 0, 8).startswith("Posterior collapse: 0 of 8")
    assert "3 latents say nothing" in collapse_verdict(20.0, 5, 8)
    assert collapse_verdict(20.0, 8, 8).startswith("No collapse: 8 of 8")
    flat = LatentSpace().measure(subject_of(FlatVAE(0.5), noise_images(30)))
    assert flat.remarks[0].startswith("Posterior collapse")


def test_a_plain_autoencoder_has_no_likelihood_and_says_so() -> None:
    model = LinearVAE(image_size=8, color="gray", latent_dim=3, hidden_dim=16, posterior="deterministic")
    subject = subject_of(model, noise_images(20))
    for metric, name in (
        (Likelihood(), "elbo_nats"),
        (ImportanceWeighted(), "iwae_nats"),
        (LatentSpace(), "total_correlation_nats"),
    ):
        value = next(value for value in metric.measure(subject).values if value.name == name)
        assert value.value is None
        assert "posterior=deterministic" in value.note
    assert "mse" in values_of(Likelihood(), subject)


# Intervals


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        low, high = bootstrap_interval(random.exponential(1.0, 80), seed=trial, resamples=400)
        covered += low < 1.0 < high
    assert 0.90 < covered / 400 < 0.975  # 95 % but for the skew of 80 exponential values


def test_an_interval_by_spread_stays_inside_what_is_possible() -> None:
    resampled = np.random.default_rng(0).normal(0.5, 0.1, 2000)  # a biased resampling: only its spread counts
    low, high = spread_interval(0.95, resampled, 0.0, 1.0)
    assert low == pytest.approx(0.95 - 0.196, abs=0.01)
    assert high == 1.0
