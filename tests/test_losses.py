"""Reconstruction terms, KL terms and the objective, against torch.distributions and closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Laplace, Normal, kl_divergence

from vae_lightning.losses import (
    AbsoluteError,
    AnalyticKL,
    BinaryCrossEntropy,
    Capacity,
    FreeBits,
    GaussianDiscretised,
    GaussianPerPixel,
    GaussianShared,
    KLTerm,
    KLWeight,
    Logistic,
    Objective,
    PerLevelKL,
    ReconstructionLoss,
    SquaredError,
)
from vae_lightning.models.distributions import DiagonalGaussian, PixelPrediction, discretised_gaussian_nll
from vae_lightning.models.levels import LatentLevel

NUM_PIXELS = 3 * 8 * 8
TERMS: list[Callable[[], ReconstructionLoss]] = [
    SquaredError,
    AbsoluteError,
    BinaryCrossEntropy,
    GaussianPerPixel,
    GaussianShared,
    lambda: GaussianShared("learned"),
]


def images_and_prediction(seed: int = 0) -> tuple[torch.Tensor, PixelPrediction]:
    generator = torch.Generator().manual_seed(seed)
    images, mean, logvar = (torch.rand(4, 3, 8, 8, generator=generator) for _ in range(3))
    return images, PixelPrediction(mean, 4 * logvar - 4)


def test_squared_error_is_a_gaussian_with_variance_one_half_without_its_constant() -> None:
    images, prediction = images_and_prediction()
    log_prob = Normal(prediction.mean, math.sqrt(0.5)).log_prob(images).sum((1, 2, 3))
    constant = 0.5 * math.log(math.pi) * NUM_PIXELS
    torch.testing.assert_close(SquaredError()(prediction, images), -log_prob - constant)


def test_absolute_error_is_a_laplace_with_scale_one_without_its_constant() -> None:
    images, prediction = images_and_prediction()
    log_prob = Laplace(prediction.mean, 1.0).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(AbsoluteError()(prediction, images), -log_prob - math.log(2) * NUM_PIXELS)


def test_bce_is_bernoulli_where_pixels_are_zero_or_one() -> None:
    images, prediction = images_and_prediction()
    binary = images.round()
    oracle = -Bernoulli(probs=prediction.mean).log_prob(binary).sum((1, 2, 3))
    torch.testing.assert_close(BinaryCrossEntropy()(prediction, binary), oracle, rtol=1e-3, atol=1e-2)


def test_bce_clamps_images_as_it_clamps_the_reconstruction() -> None:
    """Both are compared inside [clamp, 1 - clamp]: the entropy of the clamped pixel is the least that it can cost."""
    images = torch.tensor([0.0, 1.0, 0.3, 0.95]).reshape(1, 1, 2, 2)
    inside = images.clamp(0.1, 0.9)
    entropy = Bernoulli(probs=inside).entropy().sum()
    torch.testing.assert_close(BinaryCrossEntropy(clamp=0.1)(PixelPrediction(images), images)[0], entropy)
    torch.testing.assert_close(BinaryCrossEntropy(clamp=0.1)(PixelPrediction(inside), images)[0], entropy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bce_clamps_hold_at_the_ends(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    wrong = (1 - ends).to(dtype).requires_grad_()
    loss = BinaryCrossEntropy(clamp=1e-6)(PixelPrediction(wrong), ends.to(dtype))
    # -log(1e-6) per pixel; 1 - 1e-6 is 1 - 1.0133e-6 in float32
    assert loss.item() == pytest.approx(4 * -math.log(1e-6), rel=2e-3)
    loss.sum().backward()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()


@pytest.mark.parametrize("clamp", [0.0, 0.5, -1.0])
def test_bce_refuses_clamps_without_sense(clamp: float) -> None:
    with pytest.raises(ValueError, match=f"clamp={clamp}"):
        BinaryCrossEntropy(clamp)


def test_gaussian_per_pixel_is_the_normal_density() -> None:
    images, prediction = images_and_prediction()
    assert prediction.logvar is not None
    oracle = -Independent(Normal(prediction.mean, torch.exp(0.5 * prediction.logvar)), 3).log_prob(images)
    torch.testing.assert_close(GaussianPerPixel()(prediction, images), oracle)
    torch.testing.assert_close(GaussianPerPixel().pixel_variance(prediction), prediction.logvar.exp())


def levels_and_gaussians(
    pixel_range: tuple[float, float], sigma: float, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, PixelPrediction]:
    """Each of the 256 levels as an image of one pixel, under one Gaussian whose mean lies between two levels."""
    low, high = pixel_range
    images = torch.arange(256, dtype=dtype).reshape(256, 1, 1, 1) / 255 * (high - low) + low
    mean = torch.full_like(images, low + 0.2987 * (high - low))
    return images, PixelPrediction(mean, torch.full_like(images, 2 * math.log(sigma * (high - low))), pixel_range)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("sigma", [1 / 255, 0.02, 0.3, 3.0])  # of pixels in [0, 1]
def test_gaussian_discretised_is_the_likelihood_over_256_levels(pixel_range: tuple[float, float], sigma: float) -> None:
    images, prediction = levels_and_gaussians(pixel_range, sigma)
    nll = GaussianDiscretised()(prediction, images)
    oracle = discretised_gaussian_nll(prediction.mean, images, torch.tensor(sigma**2), pixel_range)
    torch.testing.assert_close(nll, oracle, rtol=1e-4, atol=1e-3)
    assert (nll >= 0).all()
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("sigma", [1 / 255, 0.05, 1.0])
def test_gaussian_discretised_adds_up_to_one_and_has_the_gradient_of_finite_differences(sigma: float) -> None:
    """In float64, for every level: from the mean to 180 standard deviations away."""
    images, prediction = levels_and_gaussians((0.0, 1.0), sigma, torch.float64)
    assert prediction.logvar is not None
    nll = GaussianDiscretised()(prediction, images)
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=1e-6)

    def nll_of(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        return GaussianDiscretised()(PixelPrediction(mean, logvar), images)

    inputs = (prediction.mean.clone().requires_grad_(), prediction.logvar.clone().requires_grad_())
    assert torch.autograd.gradcheck(nll_of, inputs, fast_mode=True)


def test_gaussian_discretised_pulls_from_however_far_away() -> None:
    """At the smallest sigma, an error of the whole range: the gradient is the density's, error / sigma^2."""
    images = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    mean = (1 - images).requires_grad_()
    logvar = torch.full_like(images, -2 * math.log(255)).requires_grad_()
    GaussianDiscretised()(PixelPrediction(mean, logvar), images).sum().backward()
    assert mean.grad is not None
    assert logvar.grad is not None
    assert mean.grad.flatten().tolist() == pytest.approx([255.0**2, -(255.0**2)], rel=0.01)
    assert logvar.grad.flatten().tolist() == pytest.approx([-(255.0**2) / 2] * 2, rel=0.01)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_learned_shared_variance_is_the_normal_density(pixel_range: tuple[float, float]) -> None:
    images, prediction = images_and_prediction()
    prediction = PixelPrediction(prediction.mean, None, pixel_range)
    term = GaussianShared("learned")
    with torch.no_grad():
        term.logvar.fill_(-2.0)
    sigma = term.sigma((0.0, 1.0)).item()
    assert sigma == pytest.approx(math.exp(-1.0), rel=2e-3)  # the floor of one grey level adds a trace
    width = pixel_range[1] - pixel_range[0]
    oracle = -Independent(Normal(prediction.mean, term.sigma(pixel_range) * width), 3).log_prob(images)
    torch.testing.assert_close(term(prediction, images), oracle)
    term(prediction, images).sum().backward()
    assert term.logvar.grad is not None


def test_optimal_shared_variance_is_the_best_there_is() -> None:
    """Rybkin et al. 2021, equation 6: the batch's mean squared error minimises the negative log-likelihood."""
    images, prediction = images_and_prediction()
    term = GaussianShared("optimal").train()
    at_optimum = term(prediction, images).mean()
    mse = (prediction.mean - images).square().mean()
    assert at_optimum.item() == pytest.approx(0.5 * NUM_PIXELS * (math.log(2 * math.pi * mse) + 1), rel=1e-4)
    for factor in (0.8, 0.95, 1.05, 1.25):
        other = -Normal(prediction.mean, factor * mse.sqrt()).log_prob(images).sum((1, 2, 3)).mean()
        assert other > at_optimum


def test_gradient_at_the_optimum_is_that_of_the_log_of_the_error() -> None:
    """With sigma at its optimum the loss is D/2 log(MSE) + constant; its gradient needs none through sigma."""
    images, prediction = images_and_prediction()
    mean, same_mean = (prediction.mean.clone().requires_grad_() for _ in range(2))
    GaussianShared("optimal").train()(PixelPrediction(mean), images).mean().backward()
    (0.5 * NUM_PIXELS * (same_mean - images).square().mean().log()).backward()
    torch.testing.assert_close(mean.grad, same_mean.grad, rtol=1e-3, atol=1e-6)


def test_evaluation_uses_the_variance_of_training() -> None:
    images, prediction = images_and_prediction()
    term = GaussianShared("optimal").train()
    for _ in range(3):
        term(prediction, images)
    trained_sigma = term.sigma((0.0, 1.0))
    assert trained_sigma.item() == pytest.approx((prediction.mean - images).square().mean().sqrt().item(), rel=1e-3)
    term.eval()
    other_images = images_and_prediction(seed=1)[0] * 0.1
    oracle = -Independent(Normal(prediction.mean, trained_sigma), 3).log_prob(other_images)
    torch.testing.assert_close(term(prediction, other_images), oracle)
    assert term.sigma((0.0, 1.0)).equal(trained_sigma)


def test_running_variance_is_first_the_mean_of_all_batches() -> None:
    """The geometric one, that of log-variances: of what it started with nothing is left after the first."""
    term, zeros = GaussianShared("optimal").train(), torch.zeros(1, 1, 8, 8)
    errors = [0.5, 0.1, 0.3]
    for count, error in enumerate(errors, start=1):
        term(PixelPrediction(zeros), zeros + error)
        so_far = math.prod(errors[:count]) ** (1 / count)
        assert term.sigma((0.0, 1.0)).item() == pytest.approx(so_far, rel=2e-3)


def test_running_variance_forgets_slowly() -> None:
    term = GaussianShared("optimal").train()
    zeros = torch.zeros(1, 1, 8, 8)
    for _ in range(200):
        term(PixelPrediction(zeros), zeros + 0.5)
    for _ in range(200):
        term(PixelPrediction(zeros), zeros + 0.1)
    assert 0.1 < term.sigma((0.0, 1.0)).item() < 0.11


@pytest.mark.parametrize("make_term", TERMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_also_at_the_ends(make_term: Callable[[], ReconstructionLoss], dtype: torch.dtype) -> None:
    images = torch.tensor([0.0, 1.0, 0.5, 0.0]).reshape(1, 1, 2, 2).to(dtype)
    mean = torch.tensor([0.0, 0.0, 0.5, 1.0], dtype=dtype).reshape(1, 1, 2, 2).requires_grad_()
    logvar = torch.tensor([-11.0, 20.0, 0.0, -11.0]).reshape(1, 1, 2, 2).to(dtype).requires_grad_()
    loss = make_term().train()(PixelPrediction(mean, logvar), images)
    assert loss.shape == (1,)
    loss.sum().backward()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()
    assert logvar.grad is None or bool(logvar.grad.isfinite().all())


def test_terms_refuse_models_whose_pixels_they_cannot_measure() -> None:
    with pytest.raises(ValueError, match="output_activation=sigmoid"):
        BinaryCrossEntropy().check_model((-1.0, 1.0), pixel_logvar=False)
    with pytest.raises(ValueError, match=r"model\.pixel_logvar=true"):
        GaussianPerPixel().check_model((0.0, 1.0), pixel_logvar=False)
    with pytest.raises(ValueError, match=r"SquaredError does not read .* model\.pixel_logvar=false"):
        SquaredError().check_model((0.0, 1.0), pixel_logvar=True)
    with pytest.raises(ValueError, match="optimal, learned"):
        GaussianShared("guessed")


@pytest.mark.parametrize("term", [SquaredError(), GaussianPerPixel(), GaussianDiscretised(), GaussianShared()])
def test_terms_refuse_logistic_distributions_that_they_do_not_read(term: ReconstructionLoss) -> None:
    with pytest.raises(ValueError, match=r"model\.logistic_components=1 .* set it to 0, or reconstruction=logistic"):
        term.check_model((0.0, 1.0), pixel_logvar=term.uses_pixel_logvar, logistic_components=1)
    with pytest.raises(ValueError, match=r"model\.logistic_components=0 .* reconstruction=logistic"):
        Logistic().check_model((0.0, 1.0), pixel_logvar=False)


def test_what_is_a_probability_over_256_levels_says_so() -> None:
    assert {term.has_probability for term in (Logistic, GaussianDiscretised)} == {True}
    assert not any(term.has_probability for term in (SquaredError, GaussianPerPixel, GaussianShared))


def test_terms_take_models_whose_pixels_they_measure() -> None:
    Logistic().check_model((-1.0, 1.0), pixel_logvar=False, logistic_components=5)
    GaussianDiscretised().check_model((0.0, 1.0), pixel_logvar=True)
    BinaryCrossEntropy().check_model((0.0, 1.0), pixel_logvar=False)
    GaussianPerPixel().check_model((-1.0, 1.0), pixel_logvar=True)
    SquaredError().check_model((-1.0, 1.0), pixel_logvar=False)


# ---- KL terms


def some_posterior_of(count: int) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(0)
    return DiagonalGaussian(*(torch.randn(count, 5, generator=generator) for _ in range(2)))


def test_analytic_kl_is_that_of_torch_distributions() -> None:
    posterior = some_posterior_of(16)
    oracle = kl_divergence(
        Normal(posterior.mean, torch.exp(0.5 * posterior.logvar)), Normal(torch.zeros(16, 5), torch.ones(16, 5))
    )
    torch.testing.assert_close(AnalyticKL()(posterior.kl_per_latent()), oracle.sum(1).mean())
    assert (posterior.kl_per_latent() >= 0).all()


def test_free_bits_by_hand() -> None:
    """Kingma et al. 2016, equation 15: batch means 0.1 and 2.0 with an allowance of 0.5 cost 0.5 + 2.0."""
    kl_per_latent = torch.tensor([[0.0, 1.0], [0.2, 3.0]], requires_grad=True)
    cost = FreeBits(0.5)(kl_per_latent)
    assert cost.item() == pytest.approx(2.5)
    cost.backward()
    assert kl_per_latent.grad is not None
    assert kl_per_latent.grad[:, 0].tolist() == [0.0, 0.0]  # nothing pushes the quiet latent down
    assert kl_per_latent.grad[:, 1].tolist() == [0.5, 0.5]
    for allowance in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"nats_per_latent={allowance}.* kl=analytic"):
            FreeBits(allowance)


TWO_LEVELS = [LatentLevel("1x1", 2, 1, 1), LatentLevel("1x3", 1, 1, 3)]


def per_level(**settings: list[float]) -> PerLevelKL:
    term = PerLevelKL(**settings)  # type: ignore[arg-type]
    term.check_levels(TWO_LEVELS)
    return term


@pytest.mark.parametrize(
    ("settings", "cost", "gradients"),
    [
        # the batch's mean KL is 3 on the first level and 1 on the second
        ({}, 4.0, (0.5, 0.5)),
        ({"weights": [1, 2]}, 5.0, (0.5, 1.0)),
        ({"free_nats": [2, 2]}, 5.0, (0.5, 0.0)),
        ({"free_nats": [3.5, 0.5]}, 4.5, (0.0, 0.5)),
        ({"weights": [10, 0.1], "free_nats": [0, 2]}, 30.2, (5.0, 0.0)),
        ({"weights": [0, 1]}, 1.0, (0.0, 0.5)),
    ],
)
def test_per_level_kl_by_hand(settings: dict[str, list[float]], cost: float, gradients: tuple[float, float]) -> None:
    """An image above the allowance makes up for one below it, and so does a latent for another of its level."""
    kl_per_latent = torch.tensor([[0.0, 5.0, 0.0, 0.0, 0.1], [1.0, 0.0, 0.9, 1.0, 0.0]], requires_grad=True)
    found = per_level(**settings)(kl_per_latent)
    assert found.item() == pytest.approx(cost)
    found.backward()
    assert kl_per_latent.grad is not None
    for row in kl_per_latent.grad.tolist():
        assert row == pytest.approx([gradients[0]] * 2 + [gradients[1]] * 3)


def test_per_level_kl_without_weights_and_allowance_is_the_kl() -> None:
    kl_per_latent = some_posterior_of(16).kl_per_latent()
    for term in (per_level(), per_level(weights=[1, 1]), per_level(free_nats=[0, 0])):
        torch.testing.assert_close(term(kl_per_latent), AnalyticKL()(kl_per_latent))


def test_per_level_kl_has_an_allowance_where_a_level_has_one() -> None:
    assert not per_level().has_allowance
    assert not per_level(weights=[1, 2], free_nats=[0, 0]).has_allowance
    assert per_level(free_nats=[0, 1]).has_allowance
    with pytest.raises(ValueError, match=r"kl=PerLevelKL and beta_schedule=capacity"):
        Objective(SquaredError(), beta_schedule=Capacity(0.5), kl=per_level(free_nats=[0, 1]))
    Objective(SquaredError(), beta_schedule=Capacity(0.5), kl=per_level(weights=[1, 2]))


@pytest.mark.parametrize("name", ["weights", "free_nats"])
@pytest.mark.parametrize("values", [[1, -1], [math.nan, 1], [1, math.inf]])
def test_per_level_kl_refuses_values_without_sense(name: str, values: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"kl\.{name}=.*finite numbers, 0 or larger"):
        PerLevelKL(**{name: values})


def test_per_level_kl_refuses_levels_that_it_has_no_numbers_for() -> None:
    with pytest.raises(ValueError, match=r"kl\.weights=\[1, 2, 3\]: 3 numbers for 2 levels; .* 1x1, 1x3"):
        per_level(weights=[1, 2, 3])
    with pytest.raises(ValueError, match=r"kl\.free_nats=\[1\]: 1 numbers for 2 levels"):
        per_level(free_nats=[1])
    with pytest.raises(ValueError, match=r"single level: set model=ladder, or kl=analytic"):
        PerLevelKL().check_levels(TWO_LEVELS[:1])


@pytest.mark.parametrize("term", [AnalyticKL(), FreeBits(), PerLevelKL(free_nats=[1.0, 1.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_the_kl_are_finite_for_wide_and_narrow_posteriors(term: KLTerm, dtype: torch.dtype) -> None:
    term.check_levels([LatentLevel("1x1", 1, 1, 1), LatentLevel("1x2", 1, 1, 2)])
    mean = torch.tensor([[0.0, 1e3, -30.0]], dtype=dtype).requires_grad_()
    logvar = torch.tensor([[-80.0, 0.0, 40.0]], dtype=dtype).requires_grad_()
    term(DiagonalGaussian(mean, logvar).kl_per_latent()).backward()
    for tensor in (mean, logvar):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


# ---- the objective


def test_objective_sums_over_pixels_and_latents_and_averages_over_the_batch() -> None:
    images, prediction = images_and_prediction()
    posterior = DiagonalGaussian(torch.ones(4, 7), torch.zeros(4, 7))  # KL = 1/2 per latent
    terms = Objective(SquaredError(), beta=4.0)(images, prediction, posterior.kl_per_latent(), KLWeight(4.0))
    by_hand = (images - prediction.mean).square().sum() / 4 + 4.0 * 7 * 0.5
    torch.testing.assert_close(terms.loss, by_hand)


def test_loss_per_image_does_not_depend_on_the_batch_size() -> None:
    images, prediction = images_and_prediction()
    posterior = DiagonalGaussian(torch.randn(4, 7), torch.randn(4, 7))
    objective, weight = Objective(SquaredError()), KLWeight(2.0)
    whole = objective(images, prediction, posterior.kl_per_latent(), weight).loss
    parts = [
        objective(
            images[row : row + 1],
            PixelPrediction(prediction.mean[row : row + 1]),
            DiagonalGaussian(posterior.mean[row : row + 1], posterior.logvar[row : row + 1]).kl_per_latent(),
            weight,
        ).loss
        for row in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize(("kl_per_image", "expected"), [(2.0, 3.0), (5.0, 0.0), (6.5, 1.5)])
def test_capacity_charges_for_the_distance_to_it(kl_per_image: float, expected: float) -> None:
    """Burgess et al. 2018, equation 8, with gamma = 10 and C = 5."""
    images, prediction = images_and_prediction()
    mean = torch.full((4, 1), math.sqrt(2 * kl_per_image))
    posterior = DiagonalGaussian(mean, torch.zeros(4, 1))
    objective = Objective(SquaredError(), beta=10.0, beta_schedule=Capacity(5.0, duration=1))
    terms = objective(images, prediction, posterior.kl_per_latent(), objective.final_weight)
    assert (terms.loss - terms.reconstruction_nats.mean()).item() == pytest.approx(10 * expected, abs=1e-3)


def test_an_autoencoder_pays_for_reconstruction_alone() -> None:
    images, prediction = images_and_prediction()
    objective = Objective(SquaredError(), beta=1000.0, beta_schedule=Capacity(5.0))
    terms = objective(images, prediction, None, objective.final_weight)
    assert terms.loss.equal(terms.reconstruction_nats.mean())


@pytest.mark.parametrize("beta", [0.0, 0.001])
def test_beta_may_be_zero_or_small(beta: float) -> None:
    images, prediction = images_and_prediction()
    objective = Objective(SquaredError(), beta=beta)
    kl_per_latent = some_posterior_of(4).kl_per_latent()
    terms = objective(images, prediction, kl_per_latent, objective.final_weight)
    kl_nats = kl_per_latent.sum(1).mean()
    torch.testing.assert_close(terms.loss, terms.reconstruction_nats.mean() + beta * kl_nats)


def test_free_bits_charge_in_the_objective_what_they_charge_alone() -> None:
    images, prediction = images_and_prediction()
    objective = Objective(SquaredError(), beta=2.0, kl=FreeBits(0.5))
    kl_per_latent = some_posterior_of(4).kl_per_latent()
    terms = objective(images, prediction, kl_per_latent, objective.final_weight)
    allowed = kl_per_latent.mean(0).clamp_min(0.5).sum()
    torch.testing.assert_close(terms.loss, terms.reconstruction_nats.mean() + 2.0 * allowed)


def test_left_out_is_the_plain_vae_and_its_usual_allowance() -> None:
    assert Objective(SquaredError()).final_weight == KLWeight(1.0, 0.0)
    assert FreeBits().nats_per_latent == 0.25


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_beta_must_be_a_weight(beta: float) -> None:
    with pytest.raises(ValueError, match="beta="):
        Objective(SquaredError(), beta=beta)


def test_two_rules_against_collapse_are_one_too_many() -> None:
    with pytest.raises(ValueError, match=r"kl=FreeBits and beta_schedule=capacity"):
        Objective(SquaredError(), beta_schedule=Capacity(0.5), kl=FreeBits())
