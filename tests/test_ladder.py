"""The ladder VAE against torch.distributions, Monte Carlo, and linear Gaussian models whose likelihood is known."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stand_ins import tiny_ladder
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_lightning.models import LadderVAE
from vae_lightning.models.distributions import DiagonalGaussian, HierarchicalGaussian
from vae_lightning.models.levels import LatentLevel, coarse_levels, level_slices
from vae_lightning.models.logistic import LogisticPrediction
from vae_lightning.models.pixels import to_pixel_range

TWO_BLOCKS = {"blocks": (2, 1)}  # two groups of latents on the coarse map, the second given the first


def images_for(model: LadderVAE, count: int = 3) -> Tensor:
    shape = (count, model.channels, model.image_size, model.image_size)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return to_pixel_range(pixels, model.pixel_range)


def noise_for(model: LadderVAE, count: int = 3, seed: int = 2) -> Tensor:
    return torch.randn(count, model.latent_dim, generator=torch.Generator().manual_seed(seed))


def group_slices(model: LadderVAE) -> list[slice]:
    """Where the latents of each block lie, coarse first; those of one block are independent given what is above."""
    found: list[slice] = []
    for group in model.groups:
        start = found[-1].stop if found else 0
        found.append(slice(start, start + group.latent_channels * group.side**2))  # type: ignore[operator]
    return found


def conditionals(model: LadderVAE, images: Tensor, noise: Tensor) -> list[Normal]:
    """q(a block's latents | image, what was drawn above), seen from outside: its draws for noise of 0 and of 1."""
    found = []
    for part in group_slices(model):
        at_mean, one_sigma_above = noise.clone(), noise.clone()
        at_mean[:, part], one_sigma_above[:, part] = 0.0, 1.0
        mean = model.draw(images, at_mean).latents[:, part]
        found.append(Normal(mean, model.draw(images, one_sigma_above).latents[:, part] - mean))
    return found


@pytest.mark.parametrize("settings", [{}, TWO_BLOCKS], ids=["a block each", "two blocks"])
@torch.no_grad()
def test_kl_and_log_ratio_are_those_of_torch_distributions_block_by_block(settings: dict[str, Any]) -> None:
    model = tiny_ladder(**settings)
    images, noise = images_for(model), noise_for(model)
    draw, ratios, prior = model.draw(images, noise), [], Normal(0.0, 1.0)
    for part, posterior in zip(group_slices(model), conditionals(model, images, noise), strict=True):
        latents = draw.latents[:, part]
        ratios.append((posterior.log_prob(latents) - prior.log_prob(latents)).sum(1))
        torch.testing.assert_close(draw.kl_per_latent[:, part], kl_divergence(posterior, prior), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(draw.log_ratio, torch.stack(ratios).sum(0), rtol=1e-4, atol=1e-3)
    assert (draw.kl_per_latent.sum(1) > 0.1).all()


@torch.no_grad()
def test_kl_of_each_level_is_the_mean_log_ratio_of_many_draws() -> None:
    """E[log q - log p] by Monte Carlo: level by level from the conditionals, and all levels by `log_ratio`."""
    model, draws = tiny_ladder(**TWO_BLOCKS), 2_000
    images, noise = images_for(model, 1).expand(draws, -1, -1, -1), noise_for(model, draws)
    draw, prior = model.draw(images, noise), Normal(0.0, 1.0)
    excess = [draw.log_ratio - draw.kl_per_latent.sum(1)]
    for part, posterior in zip(group_slices(model), conditionals(model, images, noise), strict=True):
        latents = draw.latents[:, part]
        ratio = (posterior.log_prob(latents) - prior.log_prob(latents)).sum(1)
        excess.append(ratio - draw.kl_per_latent[:, part].sum(1))
    for off in excess:
        assert off.std() > 0.1
        assert off.mean().abs() < 4 * off.std() / math.sqrt(draws)
    assert draw.kl_per_latent.std(0).max() > 1e-3  # the KL of finer levels depends on what was drawn above


@pytest.mark.parametrize("settings", [{}, TWO_BLOCKS, {"color": "rgb", "output_activation": "tanh"}])
@pytest.mark.parametrize("channels_last", [False, True])
@torch.no_grad()
def test_decoded_latents_of_a_draw_are_what_training_predicts(channels_last: bool, settings: dict[str, Any]) -> None:
    model = tiny_ladder(**settings)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    images, noise = images_for(model), noise_for(model)
    draw, prediction = model.draw_and_predict(images, noise)
    torch.testing.assert_close(model.decode(draw.latents), prediction.mean, rtol=0, atol=1e-6)
    alone = model.draw(images, noise)
    for name in ("latents", "kl_per_latent", "log_ratio"):
        torch.testing.assert_close(getattr(alone, name), getattr(draw, name), rtol=1e-5, atol=1e-5)
    assert draw.mean is None


@torch.no_grad()
def test_decoded_latents_of_a_draw_are_what_training_predicts_in_bfloat16() -> None:
    model = tiny_ladder()
    images, noise = images_for(model), noise_for(model)
    exact = model.draw(images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        draw, prediction = model.draw_and_predict(images, noise)
        decoded = model.decode(draw.latents)
        posterior = model.encode(images)
    tensors = (*vars(draw).values(), prediction.mean, decoded, *vars(posterior).values())
    assert all(tensor is None or tensor.dtype == torch.float32 for tensor in tensors)
    torch.testing.assert_close(decoded, prediction.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(draw.latents, exact.latents, rtol=0, atol=0.05)
    torch.testing.assert_close(draw.log_ratio, exact.log_ratio, rtol=0.05, atol=0.3)


@torch.no_grad()
def test_encoding_takes_each_level_at_its_mean_given_the_means_above() -> None:
    model = tiny_ladder(**TWO_BLOCKS)
    images = images_for(model)
    posterior, still = model.encode(images), torch.zeros(3, model.latent_dim)
    assert isinstance(posterior, HierarchicalGaussian)
    assert not isinstance(posterior, DiagonalGaussian)
    assert model.draw(images, still).latents.equal(posterior.mean)
    assert model.draw(images, still).kl_per_latent.equal(posterior.kl_per_latent())
    widths = torch.cat([each.stddev for each in conditionals(model, images, still)], dim=1)
    torch.testing.assert_close(posterior.logvar_given_means.mul(0.5).exp(), widths, rtol=1e-4, atol=1e-5)
    detached = posterior.detach()
    assert detached.mean.equal(posterior.mean)
    assert detached.logvar_given_means.equal(posterior.logvar_given_means)


@torch.no_grad()
def test_what_is_drawn_on_a_level_depends_on_those_above_alone() -> None:
    model = tiny_ladder()
    images, noise, other = images_for(model), noise_for(model), noise_for(model, seed=3)
    coarse, fine = level_slices(model.latent_levels)
    latents = model.draw(images, noise).latents
    below = model.draw(images, torch.cat([noise[:, coarse], other[:, fine]], dim=1)).latents
    assert below[:, coarse].equal(latents[:, coarse])
    above = model.draw(images, torch.cat([other[:, coarse], noise[:, fine]], dim=1)).latents
    assert not above[:, fine].isclose(latents[:, fine]).all()
    alone = torch.cat([model.draw(images[row : row + 1], noise[row : row + 1]).latents for row in range(3)])
    torch.testing.assert_close(alone, latents, rtol=1e-4, atol=1e-5)


# ---- a linear ladder is a linear Gaussian model: everything about it is known in closed form


PIXEL_SIGMA = 1.0


@pytest.fixture
def linear_ladder(monkeypatch: pytest.MonkeyPatch) -> LadderVAE:
    """Two levels (1x1 with 2 latents, 2x2 with 4) under 16 pixels; without activations and with constant widths."""
    monkeypatch.setattr(F, "silu", lambda maps, inplace=False: maps)
    model = tiny_ladder(image_size=4, sides=(1, 2), widths=(4, 4), latent_channels=(2, 1), logistic_components=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
        for group in model.groups:
            for head in (group.prior, group.posterior[-1]):  # type: ignore[union-attr, index]
                head.weight[group.latent_channels :] = 0.0  # type: ignore[index, union-attr]
    return model


def jacobian(function: Any, at: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda one: function(one[None])[0].flatten(), at).double()


def image_near(model: LadderVAE) -> Tensor:
    """As likely as any that the model makes."""
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return model.pixel_parameters(torch.zeros(1, 6)).detach() + PIXEL_SIGMA * noise


def pixel_log_prob(model: LadderVAE, latents: Tensor, images: Tensor) -> Tensor:
    return Normal(model.pixel_parameters(latents), PIXEL_SIGMA).log_prob(images).sum((1, 2, 3))


def test_elbo_of_a_linear_ladder_is_the_known_one(linear_ladder: LadderVAE) -> None:
    """log p(x) = log N(x; b, AA' + s^2 I); the ELBO is below it by KL(q || p(z|x)), and draws have it on average."""
    model, draws, origin = linear_ladder, 20_000, torch.zeros(6)
    image = image_near(model)
    decoder, offset = jacobian(model.pixel_parameters, origin), model.pixel_parameters(origin[None]).flatten().double()
    torch.testing.assert_close(jacobian(model.pixel_parameters, noise_for(model, 1)[0]), decoder)  # it is linear
    covariance = decoder @ decoder.T + PIXEL_SIGMA**2 * torch.eye(16)
    evidence = MultivariateNormal(offset, covariance).log_prob(image.flatten().double()).item()

    precision = torch.eye(6) + decoder.T @ decoder / PIXEL_SIGMA**2
    centre = torch.linalg.solve(precision, decoder.T @ (image.flatten() - offset) / PIXEL_SIGMA**2)
    true_posterior = MultivariateNormal(centre, precision_matrix=precision)
    spread = jacobian(lambda noise: model.draw(image, noise).latents, origin)
    assert spread.triu(1).abs().max() == 0
    assert spread[2:, :2].abs().max() > 0.01  # the fine level depends on what is drawn above
    proposal = MultivariateNormal(model.encode(image).mean[0].double(), scale_tril=spread)
    elbo = evidence - kl_divergence(proposal, true_posterior).item()

    with torch.no_grad():
        noise = noise_for(model, draws)
        draw = model.draw(image.expand(draws, -1, -1, -1), noise)
        log_likelihood = pixel_log_prob(model, draw.latents, image).double()
    assert elbo < evidence - 0.1
    for found in (log_likelihood - draw.kl_per_latent.sum(1), log_likelihood - draw.log_ratio):
        assert found.mean().item() == pytest.approx(elbo, abs=4 * found.std().item() / math.sqrt(draws))
    prior = MultivariateNormal(origin.double(), torch.eye(6).double())
    torch.testing.assert_close(
        draw.log_ratio.double(),
        proposal.log_prob(draw.latents.double()) - prior.log_prob(draw.latents.double()),
        rtol=1e-4,
        atol=1e-4,
    )


@torch.no_grad()
def test_importance_samples_of_a_linear_ladder_reach_the_known_likelihood(linear_ladder: LadderVAE) -> None:
    """From the prior and from the posterior alike: mean of p(x|z) p(z) / q(z) = p(x)."""
    model, draws = linear_ladder, 40_000
    image = image_near(model)
    with torch.enable_grad():
        decoder = jacobian(model.pixel_parameters, torch.zeros(6))
    offset = model.pixel_parameters(torch.zeros(1, 6)).flatten().double()
    known = MultivariateNormal(offset, decoder @ decoder.T + PIXEL_SIGMA**2 * torch.eye(16))
    noise = noise_for(model, draws)
    draw = model.draw(image.expand(draws, -1, -1, -1), noise)
    for log_weights in (
        pixel_log_prob(model, noise, image).double(),
        (pixel_log_prob(model, draw.latents, image) - draw.log_ratio).double(),
    ):
        relative = torch.exp(log_weights - known.log_prob(image.flatten().double()))
        assert relative.mean().item() == pytest.approx(1.0, abs=4 * relative.std().item() / math.sqrt(draws))
        assert relative.std() / math.sqrt(draws) < 0.05


# ---- what it is built of


def test_levels_are_named_coarse_first_and_divide_the_latents() -> None:
    with torch.device("meta"):
        model = LadderVAE(sides=(4, 8, 16, 32), widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), latent_channels=(16, 8, 8, 4))
    levels = model.latent_levels
    assert levels == [
        LatentLevel("4x4", 16, 4, 4),
        LatentLevel("8x8", 8, 8, 8),
        LatentLevel("16x16", 8, 16, 16),
        LatentLevel("32x32", 4, 32, 32),
    ]
    assert [level.size for level in levels] == [256, 512, 2048, 4096]
    assert level_slices(levels) == [slice(0, 256), slice(256, 768), slice(768, 2816), slice(2816, 6912)]
    assert model.latent_dim == 6912
    assert not model.is_flat
    assert model.has_prior
    deep = tiny_ladder(blocks=(3, 2))
    assert [level.channels for level in deep.latent_levels] == [6, 2]  # blocks times channels
    assert len(deep.groups) == 5


@pytest.mark.parametrize(
    ("sizes", "at_most", "kept"),
    [([256, 512, 2048], 1024, 2), ([256, 768, 1], 1024, 2), ([256, 769, 1], 1024, 1), ([2000, 1], 1024, 1)],
)
def test_coarse_levels_are_the_leading_ones_that_fit_together(sizes: list[int], at_most: int, kept: int) -> None:
    levels = [LatentLevel(str(number), size, 1, 1) for number, size in enumerate(sizes)]
    assert coarse_levels(levels, at_most) == levels[:kept]
    assert coarse_levels(levels) == levels[:kept]


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("sides", [(4, 8, 16, 32), (1, 4, 8, 16, 32)])
def test_every_image_size_and_colour_runs(image_size: int, color: str, sides: tuple[int, ...]) -> None:
    """On the meta device, where shapes are worked out and nothing is computed."""
    with torch.device("meta"):
        lists = {"sides": sides, "widths": [8] * len(sides), "blocks": [1] * len(sides)}
        model = LadderVAE(image_size, **lists, latent_channels=[2] * len(sides), color=color, logistic_components=2)
        images = torch.rand(2, model.channels, image_size, image_size)
        draw, prediction = model.draw_and_predict(images, torch.randn(2, model.latent_dim))
    assert draw.latents.shape == draw.kl_per_latent.shape == (2, model.latent_dim)
    assert prediction.mean.shape == images.shape


def test_a_map_may_be_as_large_as_the_image() -> None:
    model = tiny_ladder(image_size=4)
    assert model.patch == 1
    assert model.decode(noise_for(model)).shape == (3, 1, 4, 4)


@pytest.mark.parametrize("settings", [{}, TWO_BLOCKS, {"sides": (1, 8), "color": "rgb"}])
@torch.no_grad()
def test_at_first_every_posterior_is_near_the_prior(settings: dict[str, Any]) -> None:
    lists = {"sides": (2, 4), "widths": (8, 8), "blocks": (1, 1), "latent_channels": (2, 1)}
    model = LadderVAE(**{"image_size": 8, "color": "gray", **lists, **settings})
    draw = model.draw(images_for(model), noise_for(model))
    assert draw.kl_per_latent.max() < 0.1
    assert all(part.any() for part in draw.kl_per_latent.split([level.size for level in model.latent_levels], dim=1))
    torch.testing.assert_close(draw.latents, noise_for(model), rtol=0, atol=0.5)


@pytest.mark.parametrize("settings", [{}, TWO_BLOCKS, {"sides": (1, 2, 8), "color": "rgb"}])
def test_every_parameter_has_a_gradient(settings: dict[str, Any]) -> None:
    count = len(settings.get("sides", (2, 4)))
    lists = {"widths": (8,) * count, "latent_channels": (1,) * count, "blocks": (1,) * count}
    model = tiny_ladder(**lists | settings)
    images = images_for(model)
    draw, prediction = model.draw_and_predict(images, noise_for(model))
    assert isinstance(prediction, LogisticPrediction)
    (prediction.nll(images).sum() + draw.kl_per_latent.sum()).backward()
    still = {name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()}
    assert not still


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 128}, r"model\.latent_dim=128: .* set model\.latent_dim=null, and model\.latent_channels"),
        ({"posterior": "deterministic"}, r"posterior=deterministic: .* posterior=gaussian, or model=conv"),
        ({"sides": (4, 2)}, r"model\.sides=\[4, 2\]: .* coarse first"),
        ({"sides": (2, 3)}, r"model\.sides=\[2, 3\]: .* a multiple of the one before"),
        ({"sides": (2, 2)}, r"model\.sides=\[2, 2\]"),
        ({"sides": (0, 4)}, r"model\.sides=\[0, 4\]"),
        ({"sides": (-2, 4)}, r"model\.sides=\[-2, 4\]"),
        ({"sides": (), "widths": (), "blocks": (), "latent_channels": ()}, r"model\.sides=\[\]"),
        ({"sides": (4,), "widths": (8,), "blocks": (1,), "latent_channels": (1,)}, r"model\.sides=\[4\]: .* two"),
        ({"sides": (2, 16)}, r"data\.image_size=8: must be a multiple of the finest map's side, 16"),
        ({"widths": (8, 8, 8)}, r"model\.widths=\[8, 8, 8\]: .* each of model\.sides=\[2, 4\]"),
        ({"widths": (8, 0)}, r"model\.widths=\[8, 0\]"),
        ({"blocks": (1,)}, r"model\.blocks=\[1\]"),
        ({"blocks": (1, 101)}, r"model\.blocks=\[1, 101\]: .* at most 100"),
        ({"latent_channels": (0, 1)}, r"model\.latent_channels=\[0, 1\]"),
        ({"pixel_logvar": True}, r"model\.logistic_components=1 with model\.pixel_logvar=true"),
        ({"color": "hsv"}, r"rgb, gray"),
    ],
)
def test_impossible_ladders_are_refused_with_the_fix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_ladder(**settings)


def test_log_variances_are_clamped_level_by_level() -> None:
    model = tiny_ladder(logvar_clamp=[-0.01, 0.01])
    posterior = model.encode(1e3 * images_for(model))
    assert posterior.logvar_given_means.abs().max().item() == pytest.approx(0.01)
    widths = torch.cat([each.stddev for each in conditionals(model, images_for(model), noise_for(model))], dim=1)
    assert widths.log().abs().max().item() <= 0.0051
