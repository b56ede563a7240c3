import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.evaluation.metrics.samplers import COLUMNS, Samplers
from vae_lightning.latents.priors import FittedGaussian, Prior, fit_prior
from vae_lightning.models.distributions import Deterministic, DiagonalGaussian, PosteriorDraw
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result

Flat = DiagonalGaussian | Deterministic


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(count: int, seed: int) -> Tensor:
    """2-D: three narrow clusters."""
    centres = torch.tensor([[0.0, 4.0], [4.0, -2.0], [-4.0, -2.0]])
    chosen = torch.randint(3, (count,), generator=generator(seed))
    return centres[chosen] + 0.5 * torch.randn(count, 2, generator=generator(seed + 1))


class StandIn:
    """Of a subject: what the metric asks it for."""

    split = "test"
    seed = 0
    which_latents = ""

    def __init__(self, posterior: Flat, fitted: Flat) -> None:
        self._posterior = posterior
        self._fitted = fitted

        self.model = SimpleNamespace(has_prior=isinstance(posterior, DiagonalGaussian), is_flat=True)

    def rows(self, split: str) -> range:
        return range(len(self._posterior.mean))

    def draws(self, noise: Tensor) -> Iterator[tuple[slice, PosteriorDraw]]:
        yield slice(None), self._posterior.draw(noise)

    def noise(self, count: int, purpose: str) -> Tensor:
        return torch.randn(count, self._posterior.mean.shape[1], generator=generator(self.seed_of(purpose)))

    def seed_of(self, purpose: str) -> int:
        return len(purpose)

    def prior(self, name: str) -> Prior:
        return fit_prior(name, self._fitted.draw(self.noise_like(self._fitted.mean)).latents, seed=0)

    def noise_like(self, mean: Tensor) -> Tensor:
        return torch.randn(mean.shape, generator=generator(11))

    def decode_uint8(self, latents: Tensor) -> Tensor:
        return (latents[:, :1, None, None] * 40 + 128).clamp(0, 255).to(torch.uint8).expand(-1, 3, 16, 16)


def clustered_posterior(count: int, seed: int) -> DiagonalGaussian:
    """sigma 0.5 around codes in clusters."""
    return DiagonalGaussian(clusters(count, seed), torch.full((count, 2), 2 * math.log(0.5)))


def measured(metric: Samplers, posterior: Flat, fitted: Flat) -> tuple[Result, dict[str, Any]]:
    result = metric.measure(cast(Subject, StandIn(posterior, fitted)))
    return result, {value.name: value for value in result.values}


def test_rates_are_the_closed_form_kl_within_their_error() -> None:
    posterior = clustered_posterior(4_000, 1)
    metric = Samplers(("normal", "gaussian", "gmm"))
    result, values = measured(metric, posterior, clustered_posterior(1_000, 8))
    closed_form = float(posterior.kl_per_latent().sum(1).mean())
    interval = values["normal_rate_nats"].interval
    error = (interval[1] - interval[0]) / 4  # bounds the standard error from above: images differ, too
    assert values["normal_rate_nats"].value == pytest.approx(closed_form, abs=4 * error)
    gaussian = FittedGaussian.fit(
        clustered_posterior(1_000, 8).draw(torch.randn(1_000, 2, generator=generator(11))).latents
    )
    one_by_one = MultivariateNormal(posterior.mean.double(), torch.eye(2).double() * 0.25)
    kl = kl_divergence(one_by_one, MultivariateNormal(gaussian.mean, scale_tril=gaussian.cholesky))
    assert values["gaussian_rate_nats"].value == pytest.approx(float(kl.mean()), abs=0.1)
    for name in ("gaussian", "gmm"):
        gain = values[f"{name}_elbo_gain_nats"]
        assert gain.value == pytest.approx(values["normal_rate_nats"].value - values[f"{name}_rate_nats"].value)
        assert gain.interval[0] < gain.value < gain.interval[1]
        assert gain.better == "higher"
    assert values["gmm_rate_nats"].value < values["gaussian_rate_nats"].value
    assert "mixture" in result.remarks[0]
    assert result.protocol["priors"]["gmm"]["components"] == 10
    assert result.pictures["samplers"].shape[1] > COLUMNS * 16


def test_no_gain_is_claimed_where_the_latents_are_normal() -> None:
    posterior = DiagonalGaussian(0.6 * torch.randn(500, 2, generator=generator()), torch.full((500, 2), math.log(0.64)))
    result, values = measured(Samplers(("gaussian",)), posterior, posterior)
    assert abs(values["gaussian_elbo_gain_nats"].value) < 0.05
    assert set(values) == {"gaussian_rate_nats", "gaussian_elbo_gain_nats"}
    posterior = DiagonalGaussian(posterior.mean[:20], posterior.logvar[:20])
    result, _ = measured(Samplers(("gaussian",)), posterior, DiagonalGaussian(posterior.mean + 3, posterior.logvar))
    assert result.remarks[0].startswith("No prior fitted after training is surely better")


def test_an_autoencoder_has_cross_entropies_and_no_normal_prior() -> None:
    codes, fitted = clusters(400, 1), clusters(400, 8)
    result, values = measured(Samplers(("normal", "gaussian")), Deterministic(codes), Deterministic(fitted))
    assert set(values) == {"normal_cross_entropy_nats", "gaussian_cross_entropy_nats"}
    assert values["normal_cross_entropy_nats"].value is None
    oracle = MultivariateNormal(fitted.mean(0), torch.cov(fitted.T)).log_prob(codes).mean()
    assert values["gaussian_cross_entropy_nats"].value == pytest.approx(-float(oracle), abs=0.01)
    one_row = result.pictures["samplers"].shape[0]
    two_rows = measured(Samplers(("gaussian", "gmm")), Deterministic(codes), Deterministic(fitted))[0]
    assert two_rows.pictures["samplers"].shape[0] > 1.7 * one_row


def test_a_prior_that_cannot_be_fitted_is_missing_with_the_reason() -> None:
    posterior = clustered_posterior(15, 1)
    _, values = measured(Samplers(("gaussian", "gmm")), posterior, posterior)
    assert values["gaussian_rate_nats"].value is not None
    assert values["gmm_rate_nats"].value is None
    assert "15 latents are too few" in values["gmm_rate_nats"].note
    _, values = measured(Samplers(("gmm",)), posterior, posterior)
    assert set(values) == {"gmm_rate_nats"}


def test_settings_of_the_metric_are_checked() -> None:
    assert Samplers().settings() == {"priors": ("normal", "gaussian", "gmm", "flow")}
    with pytest.raises(EvaluationError, match="did you mean flow"):
        Samplers(("flo",))
    for priors in ((), ("gmm", "gmm")):
        with pytest.raises(EvaluationError, match="expected some of normal, gaussian, gmm, flow, each once"):
            Samplers(priors)
