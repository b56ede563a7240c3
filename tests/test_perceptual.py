"""The VGG16 term, on random weights in a file of the same names and shapes as torchvision's."""

from pathlib import Path

import pytest
import torch
from torchvision.models import vgg16

from vae_lightning.losses import KLWeight, Objective, SquaredError, VGG16Perceptual
from vae_lightning.models.distributions import DiagonalGaussian, PixelPrediction


def pair(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, channels, 32, 32, generator=generator), torch.rand(2, channels, 32, 32, generator=generator)


def test_distance_is_that_of_torchvisions_own_network(torch_home: Path) -> None:
    """Layers are found by name in `vgg16().features`, fed with ImageNet's normalisation, compared by their MSE."""
    images, made = pair()
    network = vgg16(init_weights=False).features[:16].eval()
    weights = torch.load(torch_home / "hub" / "checkpoints" / "vgg16-397923af.pth", weights_only=True)
    network.load_state_dict({name.removeprefix("features."): weights[name] for name in weights if "feat" in name})
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    oracle = torch.zeros(2)
    with torch.no_grad():
        for end in (4, 9, 16):
            difference = network[:end]((made - mean) / std) - network[:end]((images - mean) / std)
            oracle += difference.square().flatten(1).mean(1)
    distance = VGG16Perceptual()(PixelPrediction(made), images)
    torch.testing.assert_close(distance, oracle, rtol=1e-4, atol=1e-5)


def test_range_and_colour_of_the_pixels_do_not_matter() -> None:
    images, made = pair(channels=1)
    term = VGG16Perceptual()
    gray = term(PixelPrediction(made), images)
    in_tanh_range = term(PixelPrediction(2 * made - 1, None, (-1.0, 1.0)), 2 * images - 1)
    three_channels = term(PixelPrediction(made.expand(2, 3, 32, 32)), images.expand(2, 3, 32, 32))
    torch.testing.assert_close(in_tanh_range, gray, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(three_channels, gray, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_reaches_the_reconstruction_alone(dtype: torch.dtype) -> None:
    images, made = pair()
    made.requires_grad_()
    term = VGG16Perceptual()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        term(PixelPrediction(made), images).sum().backward()
    assert made.grad is not None
    assert made.grad.isfinite().all()
    assert made.grad.count_nonzero() > 0
    assert term(PixelPrediction(images), images).abs().max() == 0


def test_the_network_is_frozen_and_no_part_of_a_checkpoint() -> None:
    objective = Objective(SquaredError(), perceptual=VGG16Perceptual()).train()
    assert objective.perceptual is not None
    (network,) = objective.perceptual._network
    assert len(network) == 16  # up to relu3_3, no layer more
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    objective.to(torch.float64)
    assert next(network.parameters()).dtype == torch.float64  # it moves with the module


def test_weight_counts_in_the_loss_and_not_in_the_nats() -> None:
    images, made = pair()
    posterior = DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 3))
    with_term = Objective(SquaredError(), perceptual=VGG16Perceptual(weight=0.5))
    terms = with_term(images, PixelPrediction(made), posterior.kl_per_latent(), KLWeight(1.0))
    assert terms.perceptual is not None
    torch.testing.assert_close(terms.loss, terms.reconstruction_nats.mean() + 0.5 * terms.perceptual.mean())


def test_left_out_is_the_weight_of_the_preset() -> None:
    assert VGG16Perceptual(layers=["relu1_2"]).weight == 0.1


def test_missing_weights_say_where_they_belong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"put it at .*hub/checkpoints/vgg16-397923af\.pth") as missing:
        VGG16Perceptual()
    assert "=None" not in str(missing.value)
    with pytest.raises(ValueError, match=r"weights_path=nowhere\.pth is not a file"):
        VGG16Perceptual(weights_path="nowhere.pth")


@pytest.mark.parametrize("content", [b"", b"not weights", {"features.0.weight": torch.zeros(1)}, [1, 2]])
def test_other_weights_are_refused(content: object, tmp_path: Path) -> None:
    file = tmp_path / "vgg.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match="does not hold torchvision's VGG16 weights"):
        VGG16Perceptual(weights_path=str(file))


def test_weights_from_a_path_are_those_of_the_cache(torch_home: Path) -> None:
    images, made = pair()
    path = torch_home / "hub" / "checkpoints" / "vgg16-397923af.pth"
    by_path = VGG16Perceptual(weights_path=str(path), layers=["relu2_2"])
    assert by_path(PixelPrediction(made), images).equal(
        VGG16Perceptual(layers=["relu2_2"])(PixelPrediction(made), images)
    )


def test_the_reason_why_weights_are_others_is_one_line(torch_home: Path, tmp_path: Path) -> None:
    weights = torch.load(torch_home / "hub" / "checkpoints" / "vgg16-397923af.pth", weights_only=True)
    for content, reason in (
        (
            {**weights, "features.5.bias": torch.zeros(3)},
            r"\(Error\(s\) in loading state_dict for Sequential:\); fetch",
        ),
        ({"features.0.weight": weights["features.0.weight"]}, r"\('features\.0\.bias'\); fetch"),
    ):
        torch.save(content, tmp_path / "vgg.pth")
        with pytest.raises(ValueError, match=reason):
            VGG16Perceptual(weights_path=str(tmp_path / "vgg.pth"))


def test_a_layer_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"\['relu9'\]: allowed are relu1_2, relu2_2, relu3_3, relu4_3$"):
        VGG16Perceptual(layers=["relu9"])


@pytest.mark.parametrize("arguments", [{"weight": 0.0}, {"layers": ["relu9"]}, {"layers": []}])
def test_nonsense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"perceptual\."):
        VGG16Perceptual(**arguments)  # type: ignore[arg-type]
