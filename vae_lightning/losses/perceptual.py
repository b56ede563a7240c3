"""Perceptual terms: distances between features of a trained network, added to the pixel term."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lightning.models.distributions import PixelPrediction
from vae_lightning.models.pixels import PixelRange, to_unit_range
from vae_lightning.system.names import not_allowed
from vae_lightning.system.tensor_files import UNREADABLE, read_tensors

# Position in torchvision's `vgg16().features` of the last ReLUs of VGG's first four blocks
VGG16_LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22}
# Mean and standard deviation of ImageNet's channels in [0, 1], with which the weights were trained
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualTerm(nn.Module, ABC):
    """Added to the objective with `weight`. It is not in nats and does not count in `elbo_nats`."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not math.isfinite(weight) or weight <= 0:
            raise ValueError(f"perceptual.weight={weight}: must be above 0; perceptual=none leaves the term out")
        self.weight = weight

    @abstractmethod
    def forward(
        self, prediction: PixelPrediction, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, " batch"]: ...


class VGG16Perceptual(PerceptualTerm):
    """Mean squared difference of VGG16's features, summed over `layers`.

    The network reads pixels in [0, 1], normalised by ImageNet's mean and standard deviation, at their own size, and
    gray images as three equal channels. It is frozen, in eval mode, and not among the module's parameters: no
    checkpoint, optimizer or mean of weights holds it.

    Args:
        weight: factor in the objective.
        weights_path: torchvision's `vgg16-397923af.pth`; None looks in torchvision's cache.
        layers: of `relu1_2`, `relu2_2`, `relu3_3`, `relu4_3`.

    Raises:
        ValueError: the weights are missing, or are others.

    Source: Johnson et al. 2016, equation 2, arXiv:1603.08155; Simonyan & Zisserman 2015, arXiv:1409.1556.
    """

    imagenet_mean: Tensor
    imagenet_std: Tensor

    def __init__(
        self,
        weight: float = 0.1,
        weights_path: str | None = None,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"),
    ) -> None:
        super().__init__(weight)
        unknown = [layer for layer in layers if layer not in VGG16_LAYERS]
        if unknown or not layers:
            raise ValueError(not_allowed("perceptual.layers", list(layers), VGG16_LAYERS))
        self._ends = sorted(VGG16_LAYERS[layer] for layer in set(layers))
        self.register_buffer("imagenet_mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("imagenet_std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        # in a tuple, where nn.Module does not look for parameters
        self._network = (load_vgg16_features(cached_weights(weights_path), self._ends[-1] + 1),)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "VGG16Perceptual":
        self._network[0]._apply(fn)  # goes to the device with the rest
        super()._apply(fn, recurse)
        return self

    def forward(
        self, prediction: PixelPrediction, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, " batch"]:
        with torch.no_grad():
            targets = self._features(images, prediction.pixel_range)
        distances = [
            (made.float() - target.float()).square().mean(dim=(1, 2, 3))
            for made, target in zip(self._features(prediction.mean, prediction.pixel_range), targets, strict=True)
        ]
        return torch.stack(distances).sum(0)

    def _features(
        self, images: Float[Tensor, "batch channels height width"], pixel_range: PixelRange
    ) -> list[Float[Tensor, "batch features rows columns"]]:
        # broadcasts gray to three channels
        maps = (to_unit_range(images, pixel_range) - self.imagenet_mean) / self.imagenet_std
        collected = []
        for position, layer in enumerate(self._network[0]):
            maps = layer(maps)
            if position in self._ends:
                collected.append(maps)
        return collected


def weights_source() -> str:
    """The address from which torchvision takes them."""
    from torchvision.models import VGG16_Weights

    return str(VGG16_Weights.IMAGENET1K_V1.url)


def cached_weights(weights_path: str | None) -> Path:
    """The file of VGG16's weights.

    Raises:
        ValueError: it is missing; says where it belongs and where it comes from.
    """
    source = weights_source()
    in_cache = Path(torch.hub.get_dir()) / "checkpoints" / source.rpartition("/")[2]
    file = in_cache if weights_path is None else Path(weights_path).expanduser()
    if not file.is_file():
        asked = "" if weights_path is None else f"perceptual.weights_path={weights_path} is not a file. "
        raise ValueError(
            f"perceptual=vgg16 needs VGG16's ImageNet weights, and this program downloads nothing by itself. {asked}"
            f"Fetch {source} (528 MB) and put it at {in_cache}, or name it with perceptual.weights_path=…; "
            "perceptual=none trains without the term"
        )
    return file


def load_vgg16_features(file: Path, num_layers: int) -> nn.Sequential:
    """The first `num_layers` layers of VGG16's convolutional part, frozen, in eval mode.

    Raises:
        ValueError: the file is damaged or holds other weights.
    """
    from torchvision.models import vgg16  # takes a second, which runs without the term save

    with torch.device("meta"):  # its 138 million parameters are neither allocated nor initialised
        network = vgg16(init_weights=False).features[:num_layers]
    assert isinstance(network, nn.Sequential)
    try:
        content = read_tensors(file, may_repeat=True)
        network.load_state_dict({name: content[f"features.{name}"] for name in network.state_dict()}, assign=True)
    except UNREADABLE as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{file} does not hold torchvision's VGG16 weights ({reason}); fetch {weights_source()} again"
        ) from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
