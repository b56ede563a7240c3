"""Likelihoods and bounds against closed forms."""

import math

import numpy as np
import pytest
import torch
from stand_ins import FlatVAE, noise_images, subject_of
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics.iwae import (
    ImportanceWeighted,
    LogWeight,
    choose_scale,
    effective_samples,
    importance_bound,
    importance_weights,
    log_weight_of,
)
from vae_lightning.evaluation.metrics.latents import LatentSpace
from vae_lightning.evaluation.metrics.likelihood import Likelihood, PixelLikelihood, calibrate, harmonic_scores
from vae_lightning.losses import GaussianShared
from vae_lightning.models import LinearVAE
from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import bootstrap_interval, spread_interval


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


def test_sigma_is_calibrated_on_training_images_where_the_model_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = 0.5
    images = np.random.default_rng(0).normal(255 * gray, 20, (500, 8, 8, 1)).clip(0, 255).astype(np.uint8)
    subject = subject_of(FlatVAE(gray), images)
    mse, count = calibrate(subject)
    assert count == 500
    assert mse == pytest.approx(((images / 255 - gray) ** 2).mean(), rel=1e-4)
    assert "calibrated on 500 training images" in Likelihood().measure(subject).protocol["pixel_variance"]
    monkeypatch.setattr("vae_lightning.evaluation.metrics.likelihood.CALIBRATION_IMAGES", 90)
    few = subject.pixels("train", subject.rows("train", 90)).double() / 255
    assert calibrate(subject) == (pytest.approx(float((few - gray).square().mean()), rel=1e-4), 90)


@pytest.mark.parametrize("has_variance", [True, False])
def test_the_likelihood_of_pixels_does_not_depend_on_their_range(has_variance: bool) -> None:
    """0.3 in [0, 1] is -0.4 in [-1, 1], and twice the standard deviation there is the same."""
    images, found = noise_images(70), []
    for activation, width in (("sigmoid", 1.0), ("tanh", 2.0)):
        term = GaussianShared() if has_variance else None
        if term is not None:
            term.logvar.fill_(2 * math.log(0.3 * width))
        subject = subject_of(FlatVAE(0.3, activation), images, term, batch_size=32)
        found.append({name: values_of(Likelihood(), subject)[name] for name in ("mse", "bits_per_dim", "kl_nats")})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0]["mse"] == pytest.approx(((images / 255 - 0.3) ** 2).mean(), rel=1e-5)


@torch.no_grad()
def test_elbo_terms_are_those_of_the_objective(small: LinearVAE) -> None:
    subject = subject_of(small, noise_images(40))
    found = values_of(Likelihood(), subject)
    images = subject.model_input(subject.pixels("test", subject.rows("test")))
    posterior = small.encode(images)
    prediction = small.decode(posterior.draw(subject.noise(40, "elbo")).latents)
    squared = (prediction - images).square().sum((1, 2, 3)).mean()
    kl = kl_divergence(Normal(posterior.mean, posterior.logvar.mul(0.5).exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert found["reconstruction_nats"] == pytest.approx(float(squared), rel=1e-5)
    assert found["kl_nats"] == pytest.approx(float(kl), rel=1e-5)
    assert found["elbo_nats"] == pytest.approx(-float(squared + kl), rel=1e-5)
    assert found["bits_per_dim"] == pytest.approx(-found["discretised_elbo_nats"] / (64 * math.log(2)))
    mse = float(squared) / 64
    assert found["mse"] == pytest.approx(mse, rel=1e-5)
    assert found["normalized_nll"] == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5 * mse, rel=1e-5)
    assert found["normalized_kl"] == pytest.approx(float(kl) / 3, rel=1e-5)


def test_notes_name_the_pixel_term_and_whether_it_lacks_a_constant(small: LinearVAE) -> None:
    for term, is_whole in ((None, False), (GaussianShared(), True)):
        values = {value.name: value for value in Likelihood().measure(subject_of(small, noise_images(9), term)).values}
        assert (type(term).__name__ if term else "SquaredError") in values["reconstruction_nats"].note
        assert values["elbo_nats"].note.endswith("β = 1") == is_whole
        assert [name for name, value in values.items() if value.better == "higher"] == [
            "elbo_nats",
            "discretised_elbo_nats",
        ]


def test_s1s_scores_reproduce_its_own_figures() -> None:
    model = LinearVAE(image_size=64, latent_dim=256, hidden_dim=2)
    nll, kl = 0.921 * 12288, 54.88 * 256
    scores = {value.name: value.value for value in harmonic_scores(nll, kl, subject_of(model, noise_images(2)))}
    assert scores["normalized_nll"] == pytest.approx(0.921)
    assert scores["normalized_kl"] == pytest.approx(54.88)
    assert scores["harmonic_mean"] == pytest.approx(1.812, abs=5e-4)
    # its bits per dimension follow from the same reading
    assert (nll + kl) / (12288 * math.log(2)) == pytest.approx(2.98, abs=5e-3)


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch_size(small: LinearVAE) -> None:
    images = noise_images(23)
    metrics = (Likelihood(), ImportanceWeighted(4), LatentSpace())
    for metric in metrics:
        one, other = (values_of(metric, subject_of(small, images, batch_size=size)) for size in (4, 64))
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
        assert one != pytest.approx(values_of(metric, subject_of(small, images, seed=1)), rel=1e-5, abs=1e-5)


# Importance sampling, on a linear-Gaussian model: x = W z + b + s * noise


@pytest.fixture
def linear_gaussian() -> tuple[Tensor, LogWeight]:
    """Exact log p(x) of 60 observations, and log-weights of a posterior that is not quite right."""
    generator = torch.Generator().manual_seed(3)
    mixing, offset, scale = torch.randn(5, 2, generator=generator), torch.randn(5, generator=generator), 0.7
    latents = torch.randn(60, 2, generator=generator)
    observed = latents @ mixing.T + offset + scale * torch.randn(60, 5, generator=generator)
    exact = MultivariateNormal(offset, mixing @ mixing.T + scale**2 * torch.eye(5)).log_prob(observed)
    precision = torch.eye(2) + mixing.T @ mixing / scale**2
    mean = torch.linalg.solve(precision, mixing.T @ (observed - offset).T / scale**2).T
    logvar = (1.5 / precision.diagonal()).log().expand(60, 2)

    def log_weight(part: slice, noise: Tensor) -> Tensor:
        draw = DiagonalGaussian(mean[part] + 0.1, logvar[part]).draw(noise)
        return Normal(draw.latents @ mixing.T + offset, scale).log_prob(observed[part]).sum(1) - draw.log_ratio

    return exact, log_weight


@pytest.mark.slow
def test_iwae_rises_to_the_exact_likelihood_and_the_elbo_lies_below(
    small: LinearVAE, linear_gaussian: tuple[Tensor, LogWeight]
) -> None:
    exact, log_weight = linear_gaussian
    subject = subject_of(
        LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4), noise_images(60), batch_size=17
    )
    log_weights = importance_weights(subject, 60, log_weight, 4096)
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
    mean = torch.stack([observed / (1 + variance), torch.zeros(30)], 1)
    logvar = torch.tensor([math.log(variance / (1 + variance)), 0.0]).expand(30, 2)

    def log_weight(part: slice, noise: Tensor) -> Tensor:
        draw = DiagonalGaussian(mean[part], logvar[part]).draw(noise)
        return Normal(draw.latents[:, 0], math.sqrt(variance)).log_prob(observed[part]) - draw.log_ratio

    model = LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4)
    log_weights = importance_weights(subject_of(model, noise_images(30)), 30, log_weight, 3)
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


def test_the_curve_of_the_bound_rises_to_it(small: LinearVAE) -> None:
    subject = subject_of(small, noise_images(30), GaussianShared())
    measured = ImportanceWeighted(9).measure(subject)
    curve = measured.tables["iwae"]
    assert [row["samples"] for row in curve] == [1, 2, 4, 8]
    bounds = [row["iwae_nats"] for row in curve]
    values = {value.name: value for value in measured.values}
    assert bounds == sorted(bounds)
    assert bounds[-1] <= values["iwae_nats"].value + 1.0  # of nine samples, not of eight
    assert {name: value.better for name, value in values.items()} == {
        "iwae_nats": "higher",
        "iwae_bits_per_dim": "lower",
        "iwae_gap_nats": "",
        "iwae_effective_samples": "",
    }


def test_a_narrower_proposal_is_chosen_where_sigma_was_calibrated_and_the_bound_only_rises(
    small: LinearVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).normal(128, 3, (60, 8, 8, 1)).clip(0, 255).astype(np.uint8)
    with torch.no_grad():  # latents that matter: the decoder reads them loudly, the encoder leaves them wide
        small.decoder[0].weight.mul_(6)
    subject = subject_of(small, images)
    found = ImportanceWeighted(16).measure(subject)
    assert found.protocol["proposal_scale"] < 1
    assert found.protocol["proposal"].endswith(" times as wide")
    monkeypatch.setattr("vae_lightning.evaluation.metrics.iwae.SCALED_IMAGES", 20)
    seen = []
    pixels = subject.pixels
    monkeypatch.setattr(subject, "pixels", lambda split, rows: seen.extend(rows) or pixels(split, rows))
    likelihood = PixelLikelihood(subject)
    seen.clear()
    assert choose_scale(subject, likelihood) < 1
    assert set(seen) == set(subject.rows("train", 20))  # the very images whose posteriors are scaled
    values = {value.name: value.value for value in found.values}
    plain = importance_weights(subject, 60, log_weight_of(subject, PixelLikelihood(subject)), 16)
    assert values["iwae_nats"] is not None
    assert values["iwae_nats"] > importance_bound(plain).mean() + 1
    own = subject_of(small, images, GaussianShared())
    protocol = ImportanceWeighted(2).measure(own).protocol
    assert (protocol["proposal_scale"], protocol["proposal"]) == (1, "the encoder's posterior")


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


def test_an_interval_is_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(0).normal(size=70)
    one = bootstrap_interval(values, seed=3)
    assert one == bootstrap_interval(values, seed=3)
    assert one != bootstrap_interval(values, seed=4)


def test_an_interval_by_spread_stays_inside_what_is_possible() -> None:
    resampled = np.random.default_rng(0).normal(0.5, 0.1, 2000)  # a biased resampling: only its spread counts
    low, high = spread_interval(0.95, resampled, 0.0, 1.0)
    assert low == pytest.approx(0.95 - 0.196, abs=0.01)
    assert high == 1.0
