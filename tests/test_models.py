from typing import Any

import pytest
import torch

from vae_lightning.models import Autoencoder, ConvVAE, LinearVAE, PatchVAE, ResidualVAE
from vae_lightning.models.conv import widths_for
from vae_lightning.models.distributions import Deterministic, DiagonalGaussian
from vae_lightning.models.levels import LatentLevel
from vae_lightning.models.logistic import LogisticPrediction
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.models.residual import ResidualBottleneck

MODELS: list[type[Autoencoder]] = [ConvVAE, LinearVAE, PatchVAE, ResidualVAE]


def small(model: type[Autoencoder], **arguments: Any) -> Autoencoder:
    """At 32x32, with 4 latents and few channels."""
    width = {
        ConvVAE: {"widths": [8, 8, 8]},
        LinearVAE: {"hidden_dim": 16},
        PatchVAE: {"widths": [8, 8], "decoder_widths": [8, 16]},
        ResidualVAE: {"widths": [8, 8, 16]},
    }[model]
    return model(**{"image_size": 32, "latent_dim": 4, **width, **arguments})


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def conv_parameters(image_size: int, widths: tuple[int, ...], latent_dim: int, channels: int = 3) -> int:
    """Counted by hand: kernels of 4x4 with bias, two linear heads, one projection."""
    stages = list(zip((channels, *widths[:-1]), widths, strict=True))
    encoder = sum(before * after * 16 + after for before, after in stages)
    decoder = sum(after * before * 16 + before for before, after in stages)
    flat = widths[-1] * (image_size // 2 ** len(widths)) ** 2
    heads = 2 * (flat * latent_dim + latent_dim)
    return encoder + decoder + heads + latent_dim * flat + flat


@pytest.mark.parametrize(
    ("image_size", "widths"),
    [
        (32, (32, 64, 128)),
        (64, (32, 64, 128, 256)),
        (128, (32, 64, 128, 256, 512)),
        (256, (32, 64, 128, 256, 512, 512)),
    ],
)
def test_conv_shapes_and_parameters(image_size: int, widths: tuple[int, ...]) -> None:
    model = ConvVAE(image_size=image_size, latent_dim=16)
    assert model.widths == widths == widths_for(image_size)
    assert num_parameters(model) == conv_parameters(image_size, widths, 16)
    images = torch.rand(2, 3, image_size, image_size)
    posterior = model.encode(images)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 16)
    reconstruction = model.decode(posterior.mean)
    assert reconstruction.shape == images.shape


def test_s0_flattens_8192_features() -> None:
    """The original of beta_vae_128 has 512 maps of 4x4 before the heads."""
    assert ConvVAE(image_size=128).posterior_head.in_features == 8192


def test_patch_parameters_by_hand() -> None:
    """At 64x64: 48 numbers per patch in and out, maps of 16x16, 8x8 and 4x4, two numbers per channel of a norm."""
    encoder = (48 * 32 + 3 * 32) + (16 * 32 * 64 + 3 * 64) + (16 * 64 * 128 + 3 * 128)
    heads = 2048 * 128 + 128 + 64 * 4096 + 4096
    decoder = (16 * 256 * 128 + 3 * 128) + (16 * 128 * 64 + 3 * 64) + (9 * 64 * 48 + 48)
    model = PatchVAE(latent_dim=64)
    assert num_parameters(model) == encoder + heads + decoder
    posterior = model.encode(torch.rand(5, 3, 64, 64))
    assert isinstance(posterior, DiagonalGaussian)
    assert posterior.logvar.mean().item() == pytest.approx(-4, abs=0.1)
    assert model.map_shape == (256, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 5}, r"model\.patch=5: data\.image_size=64 must be a multiple"),
        ({"patch": 32}, r"model\.widths=\[32, 64, 128\] halve"),
        ({"decoder_widths": [8, 8]}, r"give 3 widths, as many as model\.widths"),
        ({"widths": []}, r"at least one width"),
    ],
)
def test_patches_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchVAE(**arguments)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "silu", "gelu"])
def test_every_norm_and_activation_trains(norm: str, activation: str) -> None:
    model = ConvVAE(image_size=32, latent_dim=4, norm=norm, activation=activation)
    model.decode(model.encode(torch.rand(2, 3, 32, 32)).mean).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_linear_vae_of_s2_by_hand() -> None:
    """4096-512-100, gray 64x64: encoder, two heads, decoder, mean and log-variance of every pixel."""
    model = LinearVAE(image_size=64, color="gray", latent_dim=100, hidden_dim=512, pixel_logvar=True)
    encoder, heads = 4096 * 512 + 512, 2 * (512 * 100 + 100)
    decoder, outputs = 100 * 512 + 512, 2 * (512 * 4096 + 4096)
    assert num_parameters(model.encoder) == encoder + heads == 2_200_264
    assert num_parameters(model.decoder) == decoder + outputs == 4_254_208
    prediction = model.predict_pixels(model.encode(torch.rand(3, 1, 64, 64)).mean)
    assert prediction.logvar is not None
    assert prediction.mean.shape == prediction.logvar.shape == (3, 1, 64, 64)


def test_linear_autoencoder_of_s2_by_hand() -> None:
    """4096-2048-256-2048-4096, gray 64x64: one head, one output."""
    model = LinearVAE(color="gray", latent_dim=256, hidden_dim=2048, posterior="deterministic")
    by_hand = (4096 * 2048 + 2048) + (2048 * 256 + 256) + (256 * 2048 + 2048) + (2048 * 4096 + 4096)
    assert num_parameters(model) == by_hand == 17_834_240


@pytest.mark.parametrize("image_size", [8, 37, 100])
def test_linear_takes_any_image_size(image_size: int) -> None:
    model = LinearVAE(image_size=image_size, latent_dim=3)
    assert model.decode(model.encode(torch.rand(2, 3, image_size, image_size)).mean).shape[2:] == (image_size,) * 2


def test_bottleneck_block_by_hand() -> None:
    """64 channels: 1x1 to 16, 3x3, 1x1 back, a norm after each; attention through 4; one scale per channel."""
    convolutions = (64 * 16 + 16) + (16 * 16 * 9 + 16) + (16 * 64 + 64)
    norms = 2 * (16 + 16 + 64)
    attention = (64 * 4 + 4) + (4 * 64 + 64)
    assert num_parameters(ResidualBottleneck(64, "silu")) == convolutions + norms + attention + 64


@pytest.mark.parametrize(("image_size", "widths"), [(64, (64, 128, 256, 512)), (128, (64, 128, 256, 512, 512))])
def test_residual_reads_a_map_of_8x8x512(image_size: int, widths: tuple[int, ...]) -> None:
    """The original of residual halves 64x64 three times; linear heads read the flattened map, nothing is pooled."""
    model = ResidualVAE(image_size=image_size, latent_dim=6)
    assert model.widths == widths
    assert model.map_shape == (512, 8, 8)
    assert model.posterior_head.in_features == model.latent_projection.out_features == 8 * 8 * 512
    assert model.posterior_head.out_features == 12
    images = torch.rand(1, 3, image_size, image_size)
    assert model.decode(model.encode(images).mean).shape == images.shape


def test_residual_has_the_parts_that_s1_names() -> None:
    model = ResidualVAE(latent_dim=6)
    layers = list(model.modules())
    norms = [layer for layer in layers if isinstance(layer, torch.nn.GroupNorm)]
    assert max(norm.num_groups for norm in norms) == 32
    assert all(norm.num_channels // norm.num_groups >= 2 for norm in norms)
    assert sum(isinstance(layer, ResidualBottleneck) for layer in layers) == 2 * 2 * 4
    assert sum(isinstance(layer, torch.nn.Upsample) for layer in layers) == 3
    assert not any(isinstance(layer, torch.nn.ConvTranspose2d | torch.nn.AdaptiveAvgPool2d) for layer in layers)


def test_residual_block_starts_near_the_identity() -> None:
    block, maps = ResidualBottleneck(32, "silu"), torch.randn(2, 32, 8, 8)
    assert (block(maps) - maps).std() < 0.1 * maps.std()
    with torch.no_grad():
        block.scale.zero_()
    assert block(maps).equal(maps)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("posterior", ["gaussian", "deterministic"])
@pytest.mark.parametrize("pixel_logvar", [False, True])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_every_option_is_every_models(model: type[Autoencoder], posterior: str, pixel_logvar: bool, color: str) -> None:
    built = small(model, posterior=posterior, pixel_logvar=pixel_logvar, color=color)
    images = torch.rand(2, built.channels, 32, 32)
    encoded = built.encode(images)
    assert isinstance(encoded, Deterministic if posterior == "deterministic" else DiagonalGaussian)
    assert encoded.mean.shape == (2, 4)
    prediction = built.predict_pixels(encoded.draw(torch.randn(2, 4)).latents)
    assert prediction.mean.shape == images.shape
    assert (prediction.logvar is not None) == pixel_logvar
    (prediction.mean.sum() + (0 if prediction.logvar is None else prediction.logvar.sum())).backward()
    without_gradient = [name for name, parameter in built.named_parameters() if parameter.grad is None]
    assert not without_gradient
    assert built.has_prior == (posterior == "gaussian")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize(("color", "output_activation"), [("rgb", "sigmoid"), ("gray", "tanh")])
def test_every_model_predicts_logistic_distributions(
    model: type[Autoencoder], components: int, color: str, output_activation: str
) -> None:
    built = small(model, color=color, output_activation=output_activation, logistic_components=components)
    images = torch.randint(0, 256, (2, built.channels, 32, 32), dtype=torch.uint8)
    pixels = to_pixel_range(images, built.pixel_range)
    draw, prediction = built.draw_and_predict(pixels, torch.randn(2, 4))
    assert isinstance(prediction, LogisticPrediction)
    assert prediction.locations.shape == (2, components, built.channels, 32, 32)
    assert prediction.mean.shape == pixels.shape
    assert built.decode(draw.latents).equal(prediction.mean)
    (prediction.nll(pixels).sum() + draw.kl_per_latent.sum()).backward()
    assert not [name for name, parameter in built.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("model", MODELS)
def test_a_flat_model_has_one_level(model: type[Autoencoder]) -> None:
    built = small(model)
    assert built.latent_levels == [LatentLevel("latents", 4, 1, 1)]
    assert built.is_flat
    images, noise = torch.rand(2, 3, 32, 32), torch.randn(2, 4)
    posterior, draw = built.encode(images), built.draw(images, noise)
    assert isinstance(posterior, DiagonalGaussian)
    torch.testing.assert_close(draw.latents, posterior.mean + torch.exp(0.5 * posterior.logvar) * noise)


@pytest.mark.parametrize("model", MODELS)
def test_means_come_before_log_variances(model: type[Autoencoder]) -> None:
    """The first half of the head's bias moves means, the second log-variances; the same for the decoder's maps."""
    built = small(model, pixel_logvar=True)
    head = built.encoder[-1] if model is LinearVAE else built.posterior_head  # type: ignore[index]
    images = torch.rand(2, 3, 32, 32)
    before = built.encode(images)
    with torch.no_grad():
        head.bias[4:] += 1.0  # type: ignore[index, operator, union-attr]
    after = built.encode(images)
    assert isinstance(before, DiagonalGaussian)
    assert isinstance(after, DiagonalGaussian)
    torch.testing.assert_close(after.mean, before.mean)
    torch.testing.assert_close(after.logvar, before.logvar + 1)


def test_predicted_variances_stay_above_one_grey_level() -> None:
    model = small(LinearVAE, pixel_logvar=True, output_activation="tanh")
    logvar = model.predict_pixels(-1e5 * torch.randn(8, 4)).logvar
    assert logvar is not None
    assert logvar.mul(0.5).exp().min().item() == pytest.approx(2 / 255, rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("output_activation", "expected"), [("sigmoid", (0.0, 1.0)), ("tanh", (-1.0, 1.0))])
def test_output_stays_in_its_range(
    model: type[Autoencoder], output_activation: str, expected: tuple[float, float]
) -> None:
    built = small(model, output_activation=output_activation)
    assert built.pixel_range == expected
    pixels = built.decode(1000 * torch.randn(4, 4))
    assert pixels.min() >= expected[0]
    assert pixels.max() <= expected[1]


@pytest.mark.parametrize("model", MODELS)
def test_logvar_clamp(model: type[Autoencoder]) -> None:
    built = small(model, logvar_clamp=[-4, 4])
    posterior = built.encode(1e6 * torch.randn(8, 3, 32, 32))
    assert isinstance(posterior, DiagonalGaussian)
    assert posterior.logvar.abs().max() <= 4


@pytest.mark.parametrize("model", MODELS)
def test_float32_leaves_the_model_under_autocast(model: type[Autoencoder]) -> None:
    built = small(model, pixel_logvar=True)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = built.encode(torch.rand(2, 3, 32, 32))
        prediction = built.predict_pixels(posterior.mean)
    assert isinstance(posterior, DiagonalGaussian)
    assert prediction.logvar is not None
    assert posterior.logvar.dtype == prediction.mean.dtype == prediction.logvar.dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "arguments", "fix"),
    [
        (ConvVAE, {"image_size": 100}, r"\(32, 64, 128, 256\)"),
        (ConvVAE, {"image_size": 48, "widths": [8] * 5}, "multiple of 32"),
        (ConvVAE, {"widths": []}, "at least one width"),
        (ConvVAE, {"latent_dim": 0}, "at least 1 latent"),
        (ConvVAE, {"output_activation": "tanh", "pixel_range": [0, 1]}, "model.output_activation=sigmoid"),
        (ConvVAE, {"output_activation": "relu"}, "sigmoid, tanh"),
        (ConvVAE, {"norm": "layer"}, "none, batch, group"),
        (ConvVAE, {"activation": "tan"}, "relu, leaky_relu"),
        (ConvVAE, {"color": "hsv"}, "rgb, gray"),
        (ConvVAE, {"logvar_clamp": [4, -4]}, "low < high"),
        (ConvVAE, {"posterior": "categorical"}, "gaussian, deterministic"),
        (ConvVAE, {"posterior": "deterministic", "logvar_clamp": [-4, 4]}, "posterior=gaussian"),
        (ConvVAE, {"logistic_components": -1}, r"logistic_components=-1 .* 0 to 100"),
        (ConvVAE, {"logistic_components": 101}, r"logistic_components=101 .* 0 to 100"),
        (ConvVAE, {"logistic_components": 1, "pixel_logvar": True}, "reconstruction=logistic sets both"),
        (LinearVAE, {"hidden_dim": 0}, "at least 1 hidden unit"),
        (ResidualVAE, {"image_size": 100}, r"model=residual knows its widths for \(32, 64, 128, 256\)"),
        (ResidualVAE, {"image_size": 36, "widths": [8] * 4}, "multiple of 8"),
        (ResidualVAE, {"num_blocks": -1}, "num_blocks=-1"),
    ],
)
def test_impossible_models_are_refused_with_the_fix(
    model: type[Autoencoder], arguments: dict[str, object], fix: str
) -> None:
    with pytest.raises(ValueError, match=fix):
        model(**arguments)  # type: ignore[arg-type]
