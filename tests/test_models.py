import pytest
import torch

from vae_lightning.models import ConvVAE, ModelError
from vae_lightning.models.conv import widths_for


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
    assert sum(parameter.numel() for parameter in model.parameters()) == conv_parameters(image_size, widths, 16)
    images = torch.rand(2, 3, image_size, image_size)
    posterior = model.encode(images)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 16)
    reconstruction = model.decode(posterior.mean)
    assert reconstruction.shape == images.shape


def test_s0_flattens_8192_features() -> None:
    """S0 section 3.1: 512 maps of 4x4 before the heads."""
    assert ConvVAE(image_size=128).posterior_head.in_features == 8192


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "silu", "gelu"])
def test_every_norm_and_activation_trains(norm: str, activation: str) -> None:
    model = ConvVAE(image_size=32, latent_dim=4, norm=norm, activation=activation)
    model.decode(model.encode(torch.rand(2, 3, 32, 32)).mean).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("output_activation", "expected"), [("sigmoid", (0.0, 1.0)), ("tanh", (-1.0, 1.0))])
def test_output_stays_in_its_range(output_activation: str, expected: tuple[float, float]) -> None:
    model = ConvVAE(image_size=32, latent_dim=4, output_activation=output_activation)
    assert model.pixel_range == expected
    pixels = model.decode(1000 * torch.randn(4, 4))
    assert pixels.min() >= expected[0]
    assert pixels.max() <= expected[1]


def test_gray_images() -> None:
    model = ConvVAE(image_size=32, latent_dim=4, color="gray")
    assert model.decode(model.encode(torch.rand(2, 1, 32, 32)).mean).shape == (2, 1, 32, 32)


def test_logvar_clamp() -> None:
    model = ConvVAE(image_size=32, latent_dim=4, logvar_clamp=[-4, 4])
    assert model.encode(1e6 * torch.randn(8, 3, 32, 32)).logvar.abs().max() <= 4


def test_float32_leaves_the_model_under_autocast() -> None:
    model = ConvVAE(image_size=32, latent_dim=4)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(torch.rand(2, 3, 32, 32))
        assert posterior.logvar.dtype == model.decode(posterior.mean).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"image_size": 100}, r"\(32, 64, 128, 256\)"),
        ({"image_size": 48, "widths": [8] * 5}, "multiple of 32"),
        ({"widths": []}, "at least one width"),
        ({"latent_dim": 0}, "at least 1 latent"),
        ({"output_activation": "tanh", "pixel_range": [0, 1]}, "model.output_activation=sigmoid"),
        ({"output_activation": "relu"}, "sigmoid, tanh"),
        ({"norm": "layer"}, "none, batch, group"),
        ({"activation": "tan"}, "relu, leaky_relu"),
        ({"color": "hsv"}, "rgb, gray"),
        ({"logvar_clamp": [4, -4]}, "low < high"),
    ],
)
def test_impossible_models_are_refused_with_the_fix(arguments: dict[str, object], fix: str) -> None:
    with pytest.raises(ModelError, match=fix):
        ConvVAE(**arguments)
