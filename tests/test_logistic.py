"""Discretised logistic distributions and mixtures of them, against sums over all levels and float64's sigmoid."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from vae_lightning.losses import Logistic
from vae_lightning.models.logistic import SMALLEST_LOG_SCALE, LogisticPrediction, num_logistic_maps
from vae_lightning.models.pixels import PixelRange, as_level, to_pixel_range

RANGES: list[PixelRange] = [(0.0, 1.0), (-1.0, 1.0)]


def prediction(
    channels: int, components: int, pixel_range: PixelRange = (0.0, 1.0), log_scale: float = 0.0, size: int = 1
) -> LogisticPrediction:
    """Random parameters; `log_scale` is added to the scale maps, where 0 is about 17 levels."""
    generator = torch.Generator().manual_seed(10 * channels + components)
    maps = torch.randn(1, num_logistic_maps(channels, components), size, size, generator=generator)
    scales = maps[:, components * (components > 1) :].unflatten(1, (components, -1))[:, :, channels : 2 * channels]
    scales += log_scale
    return LogisticPrediction.from_maps(maps, channels, components, pixel_range)


def repeated(one: LogisticPrediction, count: int) -> LogisticPrediction:
    """The same for each of `count` images."""
    parts = (one.log_weights, one.locations, one.log_scales, one.coefficients)
    return LogisticPrediction(
        one.mean.expand(count, -1, -1, -1),
        None,
        one.pixel_range,
        *(part.expand(count, *part.shape[1:]) for part in parts),
    )


def nll_of_levels(one: LogisticPrediction, levels: Tensor) -> Tensor:
    """-log p of uint8 pixels (pixels, channels), each an image of 1x1."""
    return repeated(one, len(levels)).nll(to_pixel_range(levels[:, :, None, None], one.pixel_range))


def oracle_log_prob(one: LogisticPrediction, levels: Tensor, channels: int) -> Tensor:
    """log p of the first `channels` channels of a 1x1 image, in float64: PixelCNN++, equations 2 and 3."""
    pixels = levels.double() / 127.5 - 1  # (pixels, channels)
    parts = (one.log_weights, one.locations, one.log_scales, one.coefficients)
    log_weights, locations, log_scales, pairs = (part[0, ..., 0, 0].double() for part in parts)
    total = log_weights.expand(len(pixels), -1)
    off: list[Tensor] = []
    for channel in range(channels):
        location = locations[:, channel].expand(len(pixels), -1)
        for before in range(channel):
            location = location + pairs[:, channel * (channel - 1) // 2 + before] * off[before]
        scale = log_scales[:, channel].exp().expand_as(location)
        value, level = pixels[:, channel, None], levels[:, channel, None]
        high = torch.where(level == 255, 1.0, torch.sigmoid((value + 1 / 255 - location) / scale))
        low = torch.where(level == 0, 0.0, torch.sigmoid((value - 1 / 255 - location) / scale))
        total = total + torch.log(high - low)
        off.append(value - locations[:, channel])
    return torch.logsumexp(total, dim=1)


def every_level() -> Tensor:
    return torch.arange(256, dtype=torch.uint8)[:, None]


def with_all_of_the_last(*first: int) -> Tensor:
    """Pixels (256, channels) whose first channels are given and whose last has each level once."""
    given = torch.tensor(first, dtype=torch.uint8).expand(256, -1)
    return torch.cat([given, every_level()], dim=1)


@pytest.mark.parametrize("log_scale", [-20.0, 0.0, 6.0, 30.0])  # nearly one level; 17 levels; far beyond the range
@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_the_256_levels_of_a_gray_pixel_add_up_to_one(
    pixel_range: PixelRange, components: int, log_scale: float
) -> None:
    nll = nll_of_levels(prediction(1, components, pixel_range, log_scale), every_level())
    assert (nll >= 0).all()
    assert torch.exp(-nll.double()).sum().item() == pytest.approx(1.0, abs=2e-5)


@pytest.mark.parametrize("log_scale", [-20.0, 0.0, 6.0])
@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_the_levels_of_blue_add_up_to_what_red_and_green_have(
    pixel_range: PixelRange, components: int, log_scale: float
) -> None:
    one = prediction(3, components, pixel_range, log_scale)
    likely = as_level(one.sample(torch.Generator().manual_seed(0))[0, :, 0, 0], pixel_range).int().tolist()
    for red, green in [(likely[0], likely[1]), (0, likely[1]), (likely[0], 255), (255, 0)]:
        nll = nll_of_levels(one, with_all_of_the_last(red, green))
        marginal = oracle_log_prob(one, torch.tensor([[red, green]]), channels=2).exp().item()
        assert torch.exp(-nll.double()).sum().item() == pytest.approx(marginal, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("components", [1, 5])
def test_the_levels_of_green_and_blue_add_up_to_what_red_has_and_those_of_red_to_one(components: int) -> None:
    one = prediction(3, components, (-1.0, 1.0))
    marginals = oracle_log_prob(one, every_level(), channels=1).exp()
    assert marginals.sum().item() == pytest.approx(1.0, abs=1e-6)  # the weights are float32
    for red in (0, 140, 255):
        pixels = torch.cat([with_all_of_the_last(red, green) for green in range(256)])
        total = torch.exp(-nll_of_levels(one, pixels).double()).sum().item()
        assert total == pytest.approx(marginals[red].item(), rel=1e-4)


@pytest.mark.slow
def test_all_colours_add_up_to_one() -> None:
    one = prediction(3, components=2)
    pixels = torch.cat([with_all_of_the_last(0, green) for green in range(256)])
    total = 0.0
    for red in range(256):
        pixels[:, 0] = red
        total += torch.exp(-nll_of_levels(one, pixels).double()).sum().item()
    assert total == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_likelihood_is_a_difference_of_sigmoids(pixel_range: PixelRange, components: int, channels: int) -> None:
    """With both edges in each channel."""
    one = prediction(channels, components, pixel_range, log_scale=1.0)
    levels = torch.tensor(list(itertools.product([0, 1, 90, 200, 254, 255], repeat=channels)), dtype=torch.uint8)
    oracle = -oracle_log_prob(one, levels, channels)
    torch.testing.assert_close(nll_of_levels(one, levels).double(), oracle, rtol=1e-4, atol=1e-4)


def test_likelihood_of_an_image_is_the_sum_over_its_pixels() -> None:
    one = prediction(3, components=5, size=3)
    levels = torch.randint(0, 256, (1, 3, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(1, dtype=torch.float64)
    for row, column in itertools.product(range(3), repeat=2):
        place = (..., slice(row, row + 1), slice(column, column + 1))
        parts = (part[place] for part in (one.log_weights, one.locations, one.log_scales, one.coefficients))
        pixel = LogisticPrediction(one.mean[place], None, one.pixel_range, *parts)
        total -= oracle_log_prob(pixel, levels[place][..., 0, 0], channels=3)
    nll = Logistic()(one, to_pixel_range(levels, one.pixel_range))
    torch.testing.assert_close(nll.double(), total, rtol=1e-5, atol=0)


@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("log_scale", [-20.0, 0.0, 40.0])
@pytest.mark.parametrize("location", [-1e4, -3.0, 0.0, 1.0, 3.0, 1e4])
def test_gradients_are_finite_far_out(location: float, log_scale: float, components: int) -> None:
    maps = torch.zeros(1, num_logistic_maps(3, components), 2, 2)
    rest = maps[:, components * (components > 1) :].unflatten(1, (components, -1))
    rest[:, :, :3], rest[:, :, 3:6] = location, log_scale
    maps.requires_grad_()
    images = torch.tensor([0.0, 1.0, 128 / 255, 3 / 255]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    nll = LogisticPrediction.from_maps(maps, 3, components, (0.0, 1.0)).nll(images)
    assert nll.isfinite().all()
    nll.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert bool(maps.grad.any())  # a level far out pulls


@pytest.mark.parametrize("components", [1, 3])
def test_gradients_are_those_of_finite_differences(components: int) -> None:
    maps = torch.randn(1, num_logistic_maps(3, components), 1, 3, generator=torch.Generator().manual_seed(0)).double()
    images = torch.tensor([0, 255, 100]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3).double() / 255

    def nll(maps: Tensor) -> Tensor:
        return LogisticPrediction.from_maps(maps, 3, components, (0.0, 1.0)).nll(images)

    assert torch.autograd.gradcheck(nll, maps.requires_grad_(), fast_mode=True)


def test_scales_stay_above_the_smallest_and_have_a_gradient_there() -> None:
    maps = torch.tensor([0.0, -30.0]).reshape(1, 2, 1, 1).requires_grad_()
    made = LogisticPrediction.from_maps(maps, 1, 1, (0.0, 1.0))
    assert made.log_scales.item() == pytest.approx(SMALLEST_LOG_SCALE, abs=1e-4)
    made.log_scales.sum().backward()
    assert maps.grad is not None
    assert maps.grad[0, 1].item() > 0


@pytest.mark.parametrize("pixel_range", RANGES)
def test_mean_is_that_of_the_mixture_before_it_is_discretised(pixel_range: PixelRange) -> None:
    """By the law of total expectation, from a hundred thousand draws of the component and of its logistic."""
    one = prediction(3, 5, pixel_range, log_scale=-2.0)
    draws, generator = 100_000, torch.Generator().manual_seed(0)
    weights = one.log_weights[0, :, 0, 0].exp()
    chosen = torch.multinomial(weights, draws, replacement=True, generator=generator)
    noise = torch.logit(torch.rand(draws, 3, generator=generator, dtype=torch.float64))
    locations, scales = one.locations[0, chosen, :, 0, 0], one.log_scales[0, chosen, :, 0, 0].exp()
    pairs, values = one.coefficients[0, chosen, :, 0, 0], torch.zeros(draws, 3, dtype=torch.float64)
    for channel in range(3):
        moved = sum(
            pairs[:, channel * (channel - 1) // 2 + before] * (values[:, before] - locations[:, before])
            for before in range(channel)
        )
        values[:, channel] = locations[:, channel] + moved + scales[:, channel] * noise[:, channel]
    low, high = pixel_range
    expected = (values.mean(0).clamp(-1, 1) + 1) / 2 * (high - low) + low
    error = values.std(0) / math.sqrt(draws) * (high - low) / 2
    assert ((one.mean[0, :, 0, 0] - expected).abs() < 4 * error).all()


def test_mean_stays_in_the_range_of_the_pixels() -> None:
    maps = torch.tensor([-5.0, 5.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).reshape(1, 9, 1, 1)
    assert LogisticPrediction.from_maps(maps, 3, 1, (0.0, 1.0)).mean.flatten().tolist() == [0.0, 1.0, 0.75]


@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_samples_have_the_probabilities_of_the_levels(pixel_range: PixelRange, components: int) -> None:
    """The probability below a sampled level, given the channels before it, is uniform: Kolmogorov's test."""
    one, draws, generator = prediction(3, components, pixel_range, 1.0), 400, torch.Generator().manual_seed(0)
    sampled = as_level(repeated(one, draws).sample(generator), pixel_range)[:, :, 0, 0].to(torch.uint8)
    for channel in range(3):
        pixels = sampled[:, None, : channel + 1].repeat(1, 256, 1)
        pixels[:, :, channel] = every_level()[:, 0]
        masses = oracle_log_prob(one, pixels.flatten(0, 1), channel + 1).exp().unflatten(0, (draws, 256))
        masses /= masses.sum(1, keepdim=True)
        own = sampled[:, channel, None].long()
        below = (masses.cumsum(1) - masses * torch.rand(draws, 1, generator=generator)).gather(1, own)[:, 0]
        distance = (below.sort().values - (torch.arange(draws) + 0.5) / draws).abs().max().item()
        assert distance * math.sqrt(draws) < 2.2  # one in ten thousand


def test_with_little_temperature_a_sample_is_its_location() -> None:
    one = prediction(1, components=1)
    drawn = repeated(one, 200).sample(torch.Generator().manual_seed(0), temperature=1e-6)
    location = one.locations.clamp(-1, 1).add(1).mul(127.5).round().item()
    assert as_level(drawn, one.pixel_range).unique().tolist() == [location]


def test_a_detached_prediction_has_the_same_numbers_without_gradients() -> None:
    maps = torch.randn(2, num_logistic_maps(3, 2), 4, 4, requires_grad=True)
    made = LogisticPrediction.from_maps(maps, 3, 2, (-1.0, 1.0))
    images = to_pixel_range(torch.full((2, 3, 4, 4), 77, dtype=torch.uint8), (-1.0, 1.0))
    detached = made.detach()
    assert detached.nll(images).equal(made.nll(images))
    assert detached.mean.equal(made.mean)
    assert made.nll(images).requires_grad
    assert not detached.nll(images).requires_grad
    assert not detached.mean.requires_grad


@pytest.mark.parametrize("components", [1, 3])
def test_maps_that_have_run_away_cost_much_and_not_infinitely(components: int) -> None:
    """A decoder that explodes on one image would end the training of all the others."""
    maps = torch.full((1, num_logistic_maps(3, components), 2, 2), 1e4, requires_grad=True)
    images = to_pixel_range(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), (0.0, 1.0))
    nats = LogisticPrediction.from_maps(maps, 3, components, (0.0, 1.0)).nll(images)
    nats.sum().backward()
    assert nats.isfinite().all()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize(("channels", "components", "maps"), [(1, 1, 2), (1, 5, 15), (3, 1, 9), (3, 10, 100)])
def test_maps_by_hand(channels: int, components: int, maps: int) -> None:
    """RGB: three locations, three scales, three pairs; PixelCNN++ has 100 for its mixtures of 10."""
    assert num_logistic_maps(channels, components) == maps
