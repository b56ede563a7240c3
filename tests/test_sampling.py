"""Samples of pixels against their probabilities, and of latents at temperatures by level."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import FlatVAE, noise_images, subject_of, tiny_ladder
from tiny_runs import LADDER, write_run
from torch import Tensor
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli.app import app
from vae_lightning.cli.arguments import temperature_of
from vae_lightning.evaluation.metrics.pictures import Showcase
from vae_lightning.latents.priors import FittedGaussian, GaussianMixture, PriorError, StandardNormal
from vae_lightning.latents.temperature import falling_temperatures, temperature_in_words, temperature_per_latent
from vae_lightning.models.distributions import PixelPrediction, discretised_gaussian_nll
from vae_lightning.models.levels import LatentLevel
from vae_lightning.models.logistic import LogisticPrediction, num_logistic_maps
from vae_lightning.models.pixels import PixelRange, as_level, to_pixel_range
from vae_lightning.pictures.face_grids import levels_grid
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.image_codec import OF_PIXELS, generator_of

RANGES: list[PixelRange] = [(0.0, 1.0), (-1.0, 1.0)]
SAMPLES = 100_000
LEVELS = [LatentLevel("2x2", 2, 2, 2), LatentLevel("4x4", 1, 4, 4)]
FLAT = [LatentLevel("latents", 6, 1, 1)]


def pixel(channels: int, components: int, pixel_range: PixelRange, scale: float, location: float) -> LogisticPrediction:
    """One pixel with random parameters; `scale` is added to the maps of scales and `location` to those of locations."""
    generator = torch.Generator().manual_seed(components)
    maps = torch.randn(1, num_logistic_maps(channels, components), 1, 1, generator=generator)
    parts = maps[:, components * (components > 1) :].unflatten(1, (components, -1))
    parts[:, :, :channels] *= 0.05
    parts[:, :, :channels] += location
    parts[:, :, channels : 2 * channels] += scale
    return LogisticPrediction.from_maps(maps, channels, components, pixel_range)


def times(one: LogisticPrediction, count: int) -> LogisticPrediction:
    parts = (one.log_weights, one.locations, one.log_scales, one.coefficients)
    mean, *rest = (part.expand(count, *part.shape[1:]) for part in (one.mean, *parts))
    return LogisticPrediction(mean, None, one.pixel_range, *rest)


def check_frequencies(found: Tensor, expected: Tensor) -> None:
    """Pearson's chi-squared over cells that are expected five times or more; the others are one cell."""
    often = expected >= 5
    found, expected = (torch.cat([each[often], each[~often].sum()[None]]) for each in (found, expected))
    found, expected = found[expected > 0.5], expected[expected > 0.5]
    assert found.sum() == SAMPLES
    assert expected.sum().item() == pytest.approx(SAMPLES, rel=1e-3)
    freedom = len(expected) - 1
    assert ((found - expected).square() / expected).sum().item() < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("location", [0.0, 0.9])  # in the middle, and at the edge, where much lies on level 255
@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_samples_of_a_gray_pixel_have_its_probabilities(
    pixel_range: PixelRange, components: int, location: float
) -> None:
    one = pixel(1, components, pixel_range, scale=0.0, location=location)
    every_level = to_pixel_range(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1), pixel_range)
    expected = SAMPLES * torch.exp(-times(one, 256).nll(every_level).double())
    samples = times(one, SAMPLES).sample(generator_of(0))
    levels = as_level(samples, pixel_range)
    torch.testing.assert_close(samples, to_pixel_range(levels.byte(), pixel_range))
    check_frequencies(torch.bincount(levels.flatten().int(), minlength=256), expected)


@pytest.mark.parametrize("components", [1, 3])
def test_samples_of_a_coloured_pixel_have_its_probabilities(components: int) -> None:
    """All three channels together: each sample is one of 32 x 32 x 32 colours around the middle."""
    one = pixel(3, components, (0.0, 1.0), scale=-3.0, location=0.0)
    first, side = 112, 32
    grid = torch.cartesian_prod(*[torch.arange(first, first + side, dtype=torch.uint8)] * 3)
    nll = times(one, len(grid)).nll(to_pixel_range(grid[:, :, None, None], (0.0, 1.0)))
    expected = SAMPLES * torch.exp(-nll.double())
    levels = as_level(times(one, SAMPLES).sample(generator_of(0)), (0.0, 1.0)).long()[:, :, 0, 0] - first
    inside = ((levels >= 0) & (levels < side)).all(1)
    number = (levels[inside] * torch.tensor([side**2, side, 1])).sum(1)
    outside = torch.tensor([int((~inside).sum())])
    found = torch.cat([torch.bincount(number, minlength=side**3), outside])
    check_frequencies(found, torch.cat([expected, SAMPLES - expected.sum()[None]]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("pixel_range", RANGES)
def test_the_mean_is_that_of_samples(pixel_range: PixelRange, components: int, channels: int) -> None:
    one = pixel(channels, components, pixel_range, scale=-1.0, location=0.05)
    samples = times(one, SAMPLES).sample(generator_of(0))
    error = 4 * samples.std(0) / math.sqrt(SAMPLES)
    assert (samples.mean(0) - one.mean[0]).abs().le(error).all()


@pytest.mark.parametrize("pixel_range", RANGES)
@pytest.mark.parametrize("mean", [0.03, 0.6])
def test_samples_of_a_gaussian_have_the_mass_of_each_level(pixel_range: PixelRange, mean: float) -> None:
    low, high = pixel_range
    variance = torch.tensor(0.05**2)  # of pixels in [0, 1]
    means = torch.full((SAMPLES, 1, 1, 1), low + mean * (high - low))
    logvar = torch.log(variance * (high - low) ** 2).expand_as(means)
    samples = PixelPrediction(means, logvar, pixel_range).sample(generator_of(0))
    every_level = to_pixel_range(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1), pixel_range)
    nll = discretised_gaussian_nll(means[:256], every_level, variance, pixel_range)
    found = torch.bincount(as_level(samples, pixel_range).flatten().int(), minlength=256)
    check_frequencies(found, SAMPLES * torch.exp(-nll.double()))


def test_temperature_scales_the_spread_of_pixels() -> None:
    one = pixel(1, 1, (0.0, 1.0), scale=0.0, location=0.0)
    narrow = LogisticPrediction(
        one.mean, None, one.pixel_range, one.log_weights, one.locations, one.log_scales - math.log(4), one.coefficients
    )
    assert torch.equal(times(one, 99).sample(generator_of(3), 0.25), times(narrow, 99).sample(generator_of(3)))
    mixture = pixel(1, 4, (0.0, 1.0), scale=0.0, location=0.0)
    likeliest = mixture.locations[0, mixture.log_weights[0, :, 0, 0].argmax()]
    cold = times(mixture, 99).sample(generator_of(0), 1e-6)
    assert (cold - (likeliest + 1) / 2).abs().max() <= 0.5 / 255 + 1e-6
    mean, logvar = torch.full((9, 1, 2, 2), 0.5), torch.full((9, 1, 2, 2), math.log(0.01))
    half = PixelPrediction(mean, logvar - math.log(4)).sample(generator_of(1))
    assert torch.equal(PixelPrediction(mean, logvar).sample(generator_of(1), 0.5), half)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_pixels_are_drawn_above_zero(temperature: float) -> None:
    one = pixel(1, 1, (0.0, 1.0), scale=0.0, location=0.0)
    with pytest.raises(ValueError, match="pixel_temperature="):
        one.sample(generator_of(0), temperature)


def test_temperatures_by_level_are_those_of_their_latents() -> None:
    scale = temperature_per_latent({"4x4": 0.5}, LEVELS)
    assert isinstance(scale, Tensor)
    assert scale.tolist() == [1.0] * 8 + [0.5] * 16
    assert temperature_per_latent(0.7, LEVELS) == temperature_per_latent(0.7, FLAT) == 0.7
    assert temperature_in_words({"4x4": 0.5}, LEVELS) == "1 · 0.5"
    assert temperature_in_words(0.7, LEVELS) == "0.7"


@pytest.mark.parametrize(
    ("temperature", "levels", "message"),
    [
        ({"4x5": 1.0}, LEVELS, r"level=4x5 \(did you mean 4x4\?\): allowed are 2x2, 4x4"),
        ({"4x4": -1.0}, LEVELS, "temperature=-1.0 for level 4x4"),
        ({"4x4": math.nan}, LEVELS, "temperature=nan for level 4x4"),
        ({"latents": 1.0}, FLAT, "single level, so that there is nothing to name: give one number"),
    ],
)
def test_temperatures_without_sense_are_refused(
    temperature: dict[str, float], levels: list[LatentLevel], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        temperature_per_latent(temperature, levels)


def test_temperatures_of_pictures_fall_to_the_finest_level() -> None:
    four = [LatentLevel(f"{side}x{side}", 1, side, side) for side in (4, 8, 16, 32)]
    rows = falling_temperatures(four)
    assert [temperature_in_words(row, four) for row in rows] == ["1 · 0.79 · 0.63 · 0.5", "1 · 0.46 · 0.22 · 0.1"]
    assert falling_temperatures(LEVELS) == [{"2x2": 1.0, "4x4": 0.5}, {"2x2": 1.0, "4x4": 0.1}]
    assert falling_temperatures(FLAT) == []


def test_only_independent_latents_may_differ_in_temperature() -> None:
    fitted = FittedGaussian(torch.ones(24), 2 * torch.eye(24))
    mixture = GaussianMixture(torch.ones(2), torch.eye(24)[:2], torch.eye(24).repeat(2, 1, 1))
    apart, same = (temperature_per_latent({"2x2": 0.5, "4x4": fine}, LEVELS) for fine in (0.1, 0.5))
    normal = StandardNormal(24)
    whole = normal.sample(5, generator_of(0))
    torch.testing.assert_close(normal.sample(5, generator_of(0), apart), whole * apart, check_dtype=False)
    for prior in (normal, fitted, mixture):
        assert torch.equal(prior.sample(5, generator_of(0), same), prior.sample(5, generator_of(0), 0.5))
    for prior in (fitted, mixture):
        with pytest.raises(PriorError, match=r"several temperatures: .* they have one together"):
            prior.sample(5, generator_of(0), apart)


def test_a_ladder_is_sampled_level_by_level(tmp_path: Path) -> None:
    write_run(tmp_path, reconstruction="Logistic", **LADDER)
    vae = load_run(tmp_path)
    coarse, middle, fine = vae.model.latent_levels
    whole = vae.sample_latents(4, seed=0)
    by_level = {coarse.name: 0.5, fine.name: 0.0}
    scaled = vae.sample_latents(4, by_level, seed=0)
    end = coarse.size + middle.size
    torch.testing.assert_close(scaled[:, : coarse.size], 0.5 * whole[:, : coarse.size])
    assert torch.equal(scaled[:, coarse.size : end], whole[:, coarse.size : end])
    assert not scaled[:, end:].any()
    assert torch.equal(vae.sample(4, by_level, seed=0), vae.decode(scaled))
    assert not torch.equal(vae.sample(4, by_level, seed=0), vae.sample(4, seed=0))
    everywhere = {level.name: 0.7 for level in vae.model.latent_levels}
    assert torch.equal(vae.sample(4, everywhere, seed=0), vae.sample(4, 0.7, seed=0))


@pytest.mark.parametrize(
    ("term", "model"),
    [
        ("Logistic", LADDER),
        ("Logistic", {"logistic_components": 3}),
        ("GaussianPerPixel", {"pixel_logvar": True, "output_activation": "tanh"}),
        ("GaussianDiscretised", {"pixel_logvar": True}),
        ("GaussianShared", {}),
    ],
)
def test_pixels_of_a_run_are_drawn_from_its_own_distribution(
    term: str, model: dict[str, object], tmp_path: Path
) -> None:
    write_run(tmp_path, reconstruction=term, **model)
    vae = load_run(tmp_path)
    drawn = vae.sample(2, seed=0, pixel_temperature=0.5)
    assert torch.equal(drawn, vae.sample(2, seed=0, pixel_temperature=0.5))
    assert torch.equal(drawn, vae.decode(vae.sample_latents(2, seed=0), pixel_temperature=0.5, seed=0))
    assert not torch.equal(drawn, vae.sample(2, seed=1, pixel_temperature=0.5))
    assert not torch.equal(vae.sample(1, seed=0, pixel_temperature=0.5), vae.sample(1, seed=0))
    torch.testing.assert_close(drawn * 255, (drawn * 255).round(), atol=1e-4, rtol=0)
    still = vae.decode(vae.sample_latents(2, seed=0), pixel_temperature=0.0)
    assert torch.equal(still, vae.sample(2, seed=0))
    assert OF_PIXELS < 2**32, "torch's generator of the CPU reads 32 bits of a seed"


def test_a_model_of_means_has_no_pixels_to_draw(tmp_path: Path) -> None:
    write_run(tmp_path)
    vae = load_run(tmp_path)
    with pytest.raises(ValueError, match=r"pixel_temperature=0\.5: .* no distribution .*reconstruction=logistic"):
        vae.sample(1, pixel_temperature=0.5)
    with pytest.raises(ValueError, match="pixel_temperature=-1"):
        vae.sample(1, pixel_temperature=-1.0)
    with pytest.raises(ValueError, match="give one number"):
        vae.sample(1, temperature={"4x4": 1.0})


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "4x4", "4x4=", "4x4=x", "4x4=1,4x4=2", "4x4=-1", "1,2"])
def test_words_that_are_no_temperature_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--temperature .*4x4=1,8x8=0\.6"):
        temperature_of(text)


def test_words_that_are_temperatures() -> None:
    assert temperature_of("0.7") == 0.7
    assert temperature_of("4x4=1, 8x8=0.6") == {"4x4": 1.0, "8x8": 0.6}


def test_sample_names_its_temperatures(tmp_path: Path) -> None:
    write_run(tmp_path, reconstruction="Logistic", **LADDER)
    command = ["sample", str(tmp_path), "-n", "2"]
    for words, name in (
        (["--temperature", "4x4=1,32x32=0.2"], "sample_t=1-1-0.2_seed=0.png"),
        (["--temperature", "0.7", "--pixel-temperature", "0.5"], "sample_t=0.7_pixels=0.5_seed=0.png"),
    ):
        result = CliRunner().invoke(app, [*command, *words])
        assert result.stdout.strip() == str(tmp_path / "images" / name)
    refused = CliRunner().invoke(app, [*command, "--temperature", "5x5=1"])
    assert refused.exit_code == 2
    assert "level=5x5: allowed are 4x4, 8x8, 32x32" in refused.stderr


def test_the_verb_of_levels_draws_photographs_of_a_ladder_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "ladder", reconstruction="Logistic", **LADDER)
    write_run(tmp_path / "flat")
    Image.effect_noise((90, 120), 80).save(tmp_path / "me.png")
    photograph = str(tmp_path / "me.png")
    drawn = CliRunner().invoke(app, ["levels", str(tmp_path / "ladder"), photograph, "--temperature", "32x32=0.5"])
    path = tmp_path / "ladder" / "images" / "levels_me.png"
    assert drawn.stdout.strip() == str(path)
    vae = load_run(tmp_path / "ladder")
    face = vae.preprocess(Image.open(photograph))
    grid = levels_grid(vae.model, face, 2, {"32x32": 0.5})
    expected = labelled_grid(grid.images, grid.row_labels, grid.column_labels, grid.title)
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), expected)
    assert "τ = 1 · 1 · 0.5" in grid.title
    for words, message in (
        (["levels", str(tmp_path / "flat"), photograph], "this model has a single level of latents"),
        (["levels", str(tmp_path / "ladder"), "--split", "train"], "--split"),
    ):
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2
        assert message in refused.stderr


@torch.inference_mode()
def test_the_evaluation_of_a_ladder_shows_its_levels() -> None:
    pictures = {}
    for model in (tiny_ladder(), FlatVAE(0.5)):
        pictures[model.is_flat] = Showcase().measure(subject_of(model, noise_images(6))).pictures
    assert set(pictures[False]) - set(pictures[True]) == {"levels"}
    assert pictures[False]["temperatures"].shape[0] > pictures[True]["temperatures"].shape[0]
