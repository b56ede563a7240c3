"""Networks that predict attributes or factors of faces, and the weights that their training starts from."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from vae_lightning.data.rendering.factors import FACTOR_RANGES
from vae_lightning.losses.perceptual import IMAGENET_MEAN, IMAGENET_STD
from vae_lightning.system.names import not_allowed
from vae_lightning.system.tensor_files import UNREADABLE, read_tensors

log = logging.getLogger("vae_lightning")

NUM_ATTRIBUTES = 40  # of CelebA
TARGETS = {"attributes": NUM_ATTRIBUTES, "factors": len(FACTOR_RANGES)}
SMALLEST_IMAGE = 32  # of smaller ones ResNet's five halvings leave nothing
WEIGHTS = ResNet18_Weights.IMAGENET1K_V1

Images = Float[Tensor, "batch channels height width"]


class Recognizer(nn.Module, ABC):
    """Predicts `target` from faces in [0, 1]: log-odds of CelebA's 40 attributes, or factors of rendered faces.

    Factors come in standard deviations of the training images, from their mean.

    Args:
        image_size: side of the images, pixels.
        color: "rgb" or "gray".
        target: "attributes" or "factors".

    Raises:
        ValueError: the target does not exist, or the images are too small.
    """

    def __init__(self, image_size: int, color: str = "rgb", target: str = "attributes") -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(not_allowed("recognizer.target", target, TARGETS))
        if image_size < SMALLEST_IMAGE:
            raise ValueError(f"data.image_size={image_size}: this network needs {SMALLEST_IMAGE} pixels or more")
        self.image_size = image_size
        self.channels = 3 if color == "rgb" else 1
        self.target = target
        self.names: tuple[str, ...] = ()  # of the outputs, as the data call them

    @property
    def num_outputs(self) -> int:
        return TARGETS[self.target]

    @abstractmethod
    def embed(self, images: Images) -> Float[Tensor, "batch features"]:
        """The features before the last layer."""

    @abstractmethod
    def read_features(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """Log-odds, or factors in standard deviations, from the features of `embed`."""

    def forward(self, images: Images) -> Float[Tensor, "batch outputs"]:
        return self.read_features(self.embed(images))


class ResNet18Recognizer(Recognizer):
    """torchvision's ResNet18 with one output per attribute or factor; 512 features.

    Images go in as [0, 1], normalised by ImageNet's mean and standard deviation, at their own size; gray ones as
    three equal channels.

    Args:
        weights: what training starts from: "imagenet", "none" (random), "auto" (ImageNet's where they lie in
            torchvision's cache), or the path of torchvision's file.

    Raises:
        ValueError: the weights do not exist, or belong to another network.

    Source: He et al. 2016, arXiv:1512.03385.
    """

    imagenet_mean: Tensor
    imagenet_std: Tensor

    def __init__(self, image_size: int, color: str = "rgb", target: str = "attributes", weights: str = "auto") -> None:
        super().__init__(image_size, color, target)
        self.backbone = resnet18()
        file = find_weights(weights)
        if file is not None:
            load_weights(self.backbone, file)
        self.head = nn.Linear(self.backbone.fc.in_features, self.num_outputs)
        self.backbone.fc = nn.Identity()
        self.register_buffer("imagenet_mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("imagenet_std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def embed(self, images: Images) -> Float[Tensor, "batch features"]:
        features: Tensor = self.backbone((images - self.imagenet_mean) / self.imagenet_std)  # gray -> 3 channels
        return features

    def read_features(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        outputs: Tensor = self.head(features)
        return outputs


def find_weights(weights: str) -> Path | None:
    """The file that training starts from; None for random weights.

    Raises:
        ValueError: the file does not exist; the message says where to get it and where to put it.
    """
    in_cache = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS.url.rpartition("/")[2]
    if weights == "none":
        return None
    if weights == "auto":
        return in_cache if in_cache.is_file() else None
    file = in_cache if weights == "imagenet" else Path(weights).expanduser()
    if not file.is_file():
        raise ValueError(
            f"recognizer.weights={weights}: there is no file {file}, and nothing is downloaded by itself. Fetch "
            f"{WEIGHTS.url} (45 MB) and put it at {in_cache}, or name it; recognizer.weights=none starts from random "
            "weights"
        )
    return file


def load_weights(backbone: nn.Module, file: Path) -> None:
    """
    Raises:
        ValueError: the file is damaged or holds other weights.
    """
    try:
        backbone.load_state_dict(read_tensors(file, may_repeat=True))
    except UNREADABLE as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{file} does not hold torchvision's ResNet18 weights ({reason}); fetch {WEIGHTS.url} again"
        ) from error


def check_source(target: str, source: str) -> None:
    """Refuses data sources that never have the target, before any data are read.

    Raises:
        ValueError: the source has no such target; the message names sources that do.
    """
    if target == "factors" and source in ("celeba", "folder", "noise"):
        raise ValueError(f"recognizer.target=factors with data={source}: only data=faces has known factors")
    if target == "attributes" and source in ("folder", "noise"):
        raise ValueError(
            f"recognizer.target=attributes with data={source}: which has no attributes; data=celeba and data=faces do"
        )


def check_outputs(names: Sequence[str], target: str) -> None:
    """
    Raises:
        ValueError: the data have another number of attributes or factors than the network has outputs.
    """
    if len(names) != TARGETS[target]:
        raise ValueError(f"the data have {len(names)} {target}, and the network predicts {TARGETS[target]}")
