import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from vae_lightning.distributions import DiagonalGaussian
from vae_lightning.losses import BinaryCrossEntropy, Constant, LinearWarmup, Objective, SquaredError


def images_and_reconstruction() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 8, 8, generator=generator), torch.rand(4, 3, 8, 8, generator=generator)


def test_squared_error_is_a_gaussian_with_variance_one_half_without_its_constant() -> None:
    images, reconstruction = images_and_reconstruction()
    log_prob = Normal(reconstruction, math.sqrt(0.5)).log_prob(images).sum((1, 2, 3))
    constant = 0.5 * math.log(math.pi) * 3 * 64
    torch.testing.assert_close(SquaredError()(reconstruction, images), -log_prob - constant)


def test_bce_is_bernoulli_where_pixels_are_zero_or_one() -> None:
    images, reconstruction = images_and_reconstruction()
    binary = images.round()
    oracle = -Bernoulli(probs=reconstruction).log_prob(binary).sum((1, 2, 3))
    torch.testing.assert_close(BinaryCrossEntropy()(reconstruction, binary), oracle, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bce_clamps_hold_at_the_ends(dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    wrong = (1 - ends).to(dtype).requires_grad_()
    loss = BinaryCrossEntropy(clamp=1e-6)(wrong, ends.to(dtype))
    # -log(1e-6) per pixel; 1 - 1e-6 is 1 - 1.0133e-6 in float32
    assert loss.item() == pytest.approx(4 * -math.log(1e-6), rel=2e-3)
    loss.sum().backward()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()


def test_bce_refuses_tanh_pixels() -> None:
    with pytest.raises(ValueError, match="output_activation=sigmoid"):
        BinaryCrossEntropy().check_pixel_range((-1.0, 1.0))


@pytest.mark.parametrize("clamp", [0.0, 0.5, -1.0])
def test_bce_refuses_clamps_without_sense(clamp: float) -> None:
    with pytest.raises(ValueError, match=f"clamp={clamp}"):
        BinaryCrossEntropy(clamp)


def test_objective_sums_over_pixels_and_latents_and_averages_over_the_batch() -> None:
    images, reconstruction = images_and_reconstruction()
    posterior = DiagonalGaussian(torch.ones(4, 7), torch.zeros(4, 7))  # KL = 1/2 per latent
    terms = Objective(SquaredError(), beta=4.0)(images, reconstruction, posterior, 4.0)
    by_hand = (images - reconstruction).square().sum() / 4 + 4.0 * 7 * 0.5
    torch.testing.assert_close(terms.loss, by_hand)
    torch.testing.assert_close(terms.kl_per_latent.sum(1), torch.full((4,), 3.5))


def test_loss_per_image_does_not_depend_on_the_batch_size() -> None:
    images, reconstruction = images_and_reconstruction()
    posterior = DiagonalGaussian(torch.randn(4, 7), torch.randn(4, 7))
    objective = Objective(SquaredError())
    whole = objective(images, reconstruction, posterior, 2.0).loss
    parts = [
        objective(
            images[row : row + 1],
            reconstruction[row : row + 1],
            DiagonalGaussian(posterior.mean[row : row + 1], posterior.logvar[row : row + 1]),
            2.0,
        ).loss
        for row in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_beta_must_be_a_weight(beta: float) -> None:
    with pytest.raises(ValueError, match="beta="):
        Objective(SquaredError(), beta=beta)


def test_warmup_is_linear_and_ends_at_beta() -> None:
    objective = Objective(SquaredError(), beta=4.0, beta_schedule=LinearWarmup(duration=10))
    assert [objective.beta_at(epoch, step=999) for epoch in (0, 5, 10, 50)] == [0.0, 2.0, 4.0, 4.0]
    by_step = Objective(SquaredError(), beta=1.0, beta_schedule=LinearWarmup(duration=100, unit="step"))
    assert [by_step.beta_at(epoch=7, step=step) for step in (0, 25, 100)] == [0.0, 0.25, 1.0]
    assert Objective(SquaredError(), beta=3.0, beta_schedule=Constant()).beta_at(0, 0) == 3.0


@pytest.mark.parametrize("arguments", [{"duration": 0}, {"unit": "hour"}])
def test_warmup_refuses_nonsense(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="beta_schedule"):
        LinearWarmup(**arguments)  # type: ignore[arg-type]
