"""Metrics of a hierarchical model: a linear Gaussian of two levels, whose likelihood is known, and a tiny ladder."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import by_name, noise_images, subject_of, tiny_ladder
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.kl_by_level import drawn_kl
from vae_lightning.evaluation.metrics.iwae import (
    ImportanceWeighted,
    importance_bound,
    importance_weights,
    log_weight_of,
)
from vae_lightning.evaluation.metrics.latents import OF_THE_KL, LatentSpace
from vae_lightning.evaluation.metrics.likelihood import Likelihood, PixelLikelihood, per_image
from vae_lightning.evaluation.metrics.samplers import Samplers
from vae_lightning.latents.priors import CoarsePrior, FittedGaussian
from vae_lightning.losses import GaussianShared, Logistic, SquaredError
from vae_lightning.models import Autoencoder, LadderVAE, LinearVAE
from vae_lightning.models.distributions import (
    HierarchicalGaussian,
    PixelPrediction,
    PosteriorDraw,
    gaussian_kl_per_latent,
    gaussian_log_ratio,
)
from vae_lightning.models.levels import LatentLevel
from vae_lightning.runs.subject import Subject

SIGMA = 0.05  # of pixels
# the columns of the finer level are orthogonal, so that its two latents are independent given image and first level
COARSE = torch.tensor([[0.06], [0.03], [0.06], [-0.03]])
FINER = torch.tensor([[0.05, 0.04], [-0.05, 0.04], [0.025, 0.0], [0.0, 0.08]])
WIDER = 1.6


class TwoLevels(Autoencoder):
    """x = 1/2 + COARSE z1 + FINER z2 + SIGMA noise on four pixels: log p(x) is a Gaussian's.

    q(z2|x, z1) depends on what z1 was drawn. Each width is `wider` times that of the exact posterior; 1 is exact.
    """

    def __init__(self, wider: float) -> None:
        super().__init__(image_size=2, color="gray", latent_dim=3)
        self.wider = wider
        mixing = torch.cat([COARSE, FINER], dim=1)
        precision = torch.eye(3) + mixing.T @ mixing / SIGMA**2
        covariance = torch.linalg.inv(precision)
        self.first_from_image = (covariance @ mixing.T)[0] / SIGMA**2
        self.first_std = wider * covariance[0, 0].sqrt()
        self.rest_precision = precision.diagonal()[1:]
        self.rest_std = wider * self.rest_precision.rsqrt()

    @property
    def latent_levels(self) -> list[LatentLevel]:
        return [LatentLevel("1x1", 1, 1, 1), LatentLevel("2x1", 1, 2, 1)]

    def first_mean(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ self.first_from_image[:, None]

    def rest_mean(self, images: Tensor, first: Tensor) -> Tensor:
        left = images.flatten(1) - 0.5 - first @ COARSE.T
        return left @ FINER / SIGMA**2 / self.rest_precision

    def posterior_parameters(self, images: Tensor) -> Tensor:
        first = self.first_mean(images)
        std = torch.cat([self.first_std[None], self.rest_std])
        return torch.cat([first, self.rest_mean(images, first), 2 * std.log().expand(len(images), 3)], dim=1)

    def encode(self, images: Tensor) -> HierarchicalGaussian:
        return HierarchicalGaussian(*self.posterior_parameters(images).chunk(2, dim=1))

    def draw(self, images: Tensor, noise: Tensor) -> PosteriorDraw:
        first_mean = self.first_mean(images)
        first = first_mean + self.first_std * noise[:, :1]
        rest_mean = self.rest_mean(images, first)
        latents = torch.cat([first, rest_mean + self.rest_std * noise[:, 1:]], dim=1)
        mean, logvar = torch.cat([first_mean, rest_mean], dim=1), self.posterior_parameters(images)[:, 3:]
        return PosteriorDraw(latents, gaussian_kl_per_latent(mean, logvar), gaussian_log_ratio(latents, noise, logvar))

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return (0.5 + latents @ torch.cat([COARSE, FINER], dim=1).T).unflatten(1, (1, 2, 2))

    def predict_pixels(self, latents: Tensor) -> PixelPrediction:
        return PixelPrediction(self.pixel_parameters(latents), None, self.pixel_range)

    def joint_posterior(self, images: Tensor) -> MultivariateNormal:
        """q(z1, z2|x) as one Gaussian of three latents."""
        slope = -(COARSE.T @ FINER) / SIGMA**2 / self.rest_precision  # of the finer means in the first latent
        root = torch.diag(torch.cat([self.first_std[None], self.rest_std]))
        root[1:, 0] = slope[0] * self.first_std
        return MultivariateNormal(self.posterior_parameters(images)[:, :3], scale_tril=root.expand(len(images), 3, 3))


def shared_sigma() -> GaussianShared:
    term = GaussianShared()
    floor = math.log(1 / 255) * 2  # `floored_logvar` adds softplus(logvar - floor) to it
    term.logvar.fill_(floor + math.log(math.expm1(2 * math.log(SIGMA) - floor)))
    assert float(term.sigma((0.0, 1.0))) == pytest.approx(SIGMA, rel=1e-5)
    return term


def two_levels(wider: float, count: int = 400) -> tuple[Subject, Tensor]:
    """Images of the model, and log p(x) of each: a density."""
    mixing = torch.cat([COARSE, FINER], dim=1)
    law = MultivariateNormal(torch.full((4,), 0.5), mixing @ mixing.T + SIGMA**2 * torch.eye(4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        levels = (law.sample((count,)) * 255).round()
    assert levels.min() > 0
    assert levels.max() < 255
    subject = subject_of(
        TwoLevels(wider), levels.to(torch.uint8).numpy().reshape(count, 2, 2, 1), shared_sigma(), batch_size=150
    )
    return subject, law.log_prob(levels / 255)


def model_input(subject: Subject) -> Tensor:
    return subject.model_input(subject.pixels("test", subject.rows("test")))


def drawn(subject: Subject, noise: Tensor, split: Split | None = None) -> PosteriorDraw:
    parts = [draw for _, draw in subject.draws(noise, split)]
    names = ("latents", "kl_per_latent", "log_ratio")
    return PosteriorDraw(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def standard_error(values: np.ndarray) -> float:
    return float(values.std() / math.sqrt(len(values)))


@torch.no_grad()
def test_the_exact_posterior_gives_every_draw_the_weight_of_the_image() -> None:
    subject, exact = two_levels(1.0)
    values = by_name(ImportanceWeighted(4).measure(subject))
    truth = float(exact.mean()) - 4 * math.log(255)  # of levels 1/255 apart
    assert values["iwae_nats"].value == pytest.approx(truth, abs=0.01)
    assert values["iwae_gap_nats"].value == pytest.approx(0.0, abs=0.01)
    assert values["iwae_effective_samples"].value == pytest.approx(4.0, abs=0.01)


@torch.no_grad()
def test_the_elbo_is_what_the_wider_posterior_costs_below_the_exact_likelihood() -> None:
    subject, exact = two_levels(WIDER)
    found = per_image(subject, PixelLikelihood(subject))
    gap = exact.double().numpy() - found["elbo_nats"]
    in_closed_form = 3 * 0.5 * (WIDER**2 - 1 - 2 * math.log(WIDER))  # KL(q(z|x) || p(z|x)), the same for all images
    assert abs(gap.mean() - in_closed_form) < 4 * standard_error(gap)
    origin = MultivariateNormal(torch.zeros(3), torch.eye(3))
    kl = kl_divergence(subject.model.joint_posterior(model_input(subject)), origin).numpy()
    assert abs((found["kl_nats"] - kl).mean()) < 4 * standard_error(found["kl_nats"] - kl)
    # a rate by one sample of z has the same mean, and so has the sum of the levels
    rate = by_name(Samplers(("normal",)).measure(subject))["normal_rate_nats"]
    draw = drawn(subject, subject.noise(400, "samplers"))
    assert rate.value == pytest.approx(float(draw.log_ratio.double().mean()), rel=1e-6)
    assert abs(rate.value - kl.mean()) < 4 * standard_error(draw.log_ratio.numpy() - kl)
    by_level = drawn_kl(subject).per_level.sum(1).numpy()
    assert abs((by_level - kl).mean()) < 4 * standard_error(by_level - kl)
    # the path of the means misses how far apart the draws above lie
    of_means = subject.posterior().kl_per_latent().sum(1).numpy()
    assert (kl - of_means).min() > 0.04


@torch.no_grad()
def test_the_bound_rises_to_the_exact_likelihood() -> None:
    subject, exact = two_levels(WIDER, 100)
    log_weights = importance_weights(subject, 100, log_weight_of(subject, PixelLikelihood(subject)), 128)
    truth = exact.double().numpy() - 4 * math.log(255)
    bounds = [float(importance_bound(log_weights[:, :count]).mean()) for count in (1, 8, 32, 128)]
    assert bounds == sorted(bounds)
    assert bounds[0] < truth.mean() - 0.3
    relative = np.exp(log_weights - truth[:, None])  # unbiased for 1, image by image
    assert abs(bounds[-1] - truth.mean()) < 4 * math.sqrt(float((relative.var(1) / 128).mean()) / 100) + 5e-3
    assert abs(relative.mean() - 1) < 4 * relative.std() / math.sqrt(relative.size)


def vae(name: str) -> tuple[Autoencoder, Any]:
    torch.manual_seed(0)
    if name == "two levels":
        return TwoLevels(WIDER), shared_sigma()
    if name == "ladder":
        return tiny_ladder(), Logistic()
    return LinearVAE(image_size=8, color="gray", latent_dim=3, hidden_dim=16), SquaredError()


@pytest.mark.parametrize("name", ["two levels", "ladder", "flat"])
def test_one_importance_sample_is_the_elbo_of_the_same_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, term = vae(name)
    subject = subject_of(model, noise_images(400, model.image_size), term, batch_size=130)
    noise = torch.randn(400, model.latent_dim, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(subject, "noise", lambda *_: noise)
    likelihood = PixelLikelihood(subject)
    log_weights = importance_weights(subject, 400, log_weight_of(subject, likelihood), 1)[:, 0]
    found, draw = per_image(subject, likelihood), drawn(subject, noise)
    by_chance = found["kl_nats"] - draw.log_ratio.double().numpy()  # of this draw; 0 on average
    np.testing.assert_allclose(log_weights, found["discretised_elbo_nats"] + by_chance, rtol=1e-5, atol=1e-3)
    assert abs(by_chance.mean()) < 4 * standard_error(by_chance)


def test_a_narrower_proposal_is_that_of_an_encoder_as_narrow() -> None:
    """Level by level: half of a posterior 1.6 times too wide is one of 0.8 times the width."""
    found = []
    for wider, scale in ((1.6, 0.5), (0.8, 1.0)):
        subject, _ = two_levels(wider, 50)
        found.append(importance_weights(subject, 50, log_weight_of(subject, PixelLikelihood(subject), scale), 3))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-4)


def test_a_proposal_is_scaled_where_sigma_was_calibrated() -> None:
    protocol = ImportanceWeighted(2).measure(subject_of(tiny_ladder(logistic_components=0), noise_images(40))).protocol
    assert protocol["proposal_scale"] <= 1
    assert protocol["pixel_variance"].startswith("one σ")


def test_notes_of_a_ladder_are_true() -> None:
    subject = subject_of(tiny_ladder(), noise_images(9), Logistic())
    values = by_name(Likelihood().measure(subject))
    assert values["kl_nats"].note.endswith("each level's in closed form, given a draw of those above")
    assert values["elbo_nats"].note.endswith("β = 1")  # the term is a whole probability
    assert values["elbo_nats"].value == pytest.approx(values["discretised_elbo_nats"].value)
    assert values["normalized_kl"].value == pytest.approx(values["kl_nats"].value / 24)


def telling_ladder() -> LadderVAE:
    """A tiny ladder whose posterior means differ from image to image."""
    model = tiny_ladder()
    with torch.no_grad():
        for group in model.groups:
            group.posterior[-1].weight.mul_(10)
    return model


def test_the_latents_of_a_ladder_are_measured_level_by_level() -> None:
    model = telling_ladder()
    subject = subject_of(model, noise_images(60), Logistic(), batch_size=25, levels=["2x2"])
    measured = LatentSpace().measure(subject)
    values = by_name(measured)
    variance = subject.posterior().mean.double().var(0, correction=0)
    assert values["active_units"].value == int((variance > 0.01).sum()) > 0
    assert all(values[name].value is None and "product over latents" in values[name].note for name in OF_THE_KL)
    draw = drawn(subject, subject.noise(60, "KL by level"))
    rows = measured.tables["kl_by_level"]
    assert [(row["level"], row["latents"]) for row in rows] == [("2x2", 8), ("4x4", 16)]
    assert [row["kl_nats"] for row in rows] == [
        pytest.approx(float(draw.kl_per_latent[:, part].sum(1).mean()), rel=1e-5) for part in (slice(8), slice(8, 24))
    ]
    assert sum(row["active_units"] for row in rows) == values["active_units"].value
    assert all(row["kl_nats low"] < row["kl_nats"] < row["kl_nats high"] for row in rows)
    assert sorted(row["latent"] for row in measured.tables["kl_per_latent"]) == list(range(8))
    assert {row["place"] for row in measured.tables["kl_per_latent"]} >= {"2x2 map 0 (0, 0)", "2x2 map 1 (1, 1)"}
    assert f"the KL is {sum(row['kl_nats'] for row in rows):.3g} nats" in measured.remarks[0]
    assert "2x2 (8 of 24 latents)" in measured.protocol["kl_per_latent"]
    assert {name: picture.std() > 10 for name, picture in measured.pictures.items()} == {
        "kl_by_level": True,
        "aggregate_posterior": True,
    }


def test_a_level_that_sleeps_is_named() -> None:
    model = telling_ladder()
    with torch.no_grad():
        for parameters in model.groups[0].posterior[-1].parameters():
            parameters.zero_()
    remarks = LatentSpace().measure(subject_of(model, noise_images(60), Logistic())).remarks
    assert remarks[1].endswith("(KL below 1 nat, no active latent): 2x2.")


def test_priors_are_fitted_to_the_levels_asked_for() -> None:
    subject = subject_of(tiny_ladder(), noise_images(90), Logistic(), batch_size=40, levels=["2x2"])
    prior = subject.prior("gaussian")
    assert isinstance(prior, CoarsePrior)
    assert (prior.levels, prior.latent_dim) == (("2x2",), 24)
    generator = torch.Generator().manual_seed(0)
    latents = drawn(subject, torch.randn(90, 24, generator=generator), "train").latents
    assert torch.equal(subject.fitting_latents(), latents[:, :8])
    alone = FittedGaussian.fit(latents[:, :8])
    finer = MultivariateNormal(torch.zeros(16).double(), torch.eye(16).double())
    torch.testing.assert_close(
        prior.log_prob(latents), alone.log_prob(latents[:, :8]) + finer.log_prob(latents[:, 8:].double())
    )
    measured = Samplers(("normal", "gaussian")).measure(subject)
    assert "of the levels 2x2 (8 of 24 latents)" in measured.protocol["fitted_to"]
    assert measured.protocol["priors"]["gaussian"]["levels"] == ("2x2",)
    assert "2x2" in measured.remarks[0]
    values = by_name(measured)
    rates = values["normal_rate_nats"].value - values["gaussian_rate_nats"].value
    assert values["gaussian_elbo_gain_nats"].value == pytest.approx(rates)


def test_probes_read_the_coarse_levels_alone() -> None:
    for is_cached in (False, True):
        subject = subject_of(tiny_ladder(), noise_images(50), Logistic(), batch_size=20, levels=["2x2"])
        means = subject.model.encode(model_input(subject)).mean
        if is_cached:
            subject.posterior()
        assert subject.codes().shape == (50, 8)
        torch.testing.assert_close(subject.codes(), means[:, :8])


@pytest.mark.parametrize(("model", "names"), [("ladder", ["4x4"]), ("ladder", ["2x2", "8x8"]), ("flat", ["latents"])])
def test_levels_that_are_not_the_coarsest_are_refused(model: str, names: list[str]) -> None:
    reason = "allowed are the coarsest levels in their order, 2x2 or 2x2,4x4" if model == "ladder" else "single level"
    with pytest.raises(ValueError, match=f"levels={','.join(names)}: .*{reason}"):
        subject_of(vae(model)[0], noise_images(3), vae(model)[1], levels=names)
