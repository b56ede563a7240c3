"""What metrics of images are tested on: random weights under the official ones' names, and tiny models with data."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_celeba
from tiny_runs import awake
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import alexnet

from vae_lightning.data import FaceDataModule
from vae_lightning.data.loading import SplitImages
from vae_lightning.evaluation.feature_networks import ALEXNET, INCEPTION, FeatureNetwork
from vae_lightning.losses import ReconstructionLoss, SquaredError
from vae_lightning.models import Autoencoder, ConvVAE, LadderVAE
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Value

CPU = torch.device("cpu")
ALEXNET_KERNELS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
MakeSubject = Callable[..., Subject]


def random_alexnet() -> dict[str, torch.Tensor]:
    """Random convolutions; the classifier, which LPIPS does not use, is one zero seen many times: a small file."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # only the shapes
        shapes = {name: value.shape for name, value in alexnet().state_dict().items()}
    weights = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    for position, (after, before, side) in ALEXNET_KERNELS.items():
        kernel = torch.randn(after, before, side, side, generator=generator)
        weights[f"features.{position}.weight"] = kernel * math.sqrt(2 / (before * side**2))
    return weights


def random_inception() -> dict[str, torch.Tensor]:
    """The module's own initialisation, times the root of 6: He's, without which the features die out."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        weights = FeatureExtractorInceptionV3("untrained", ["2048"]).state_dict()
    return {name: value * math.sqrt(6) if name.endswith("conv.weight") else value for name, value in weights.items()}


RANDOM = {ALEXNET: random_alexnet, INCEPTION: random_inception}


def random_weights(tmp_path_factory: pytest.TempPathFactory, *networks: FeatureNetwork) -> Path:
    """A folder with the files of these networks, written once for all test files of a process."""
    folder = tmp_path_factory.getbasetemp() / "weights"
    folder.mkdir(exist_ok=True)
    for network in networks:
        if not (folder / network.file_name).exists():
            torch.save(RANDOM[network](), folder / network.file_name)
    return folder


def subject_maker(tmp_path_factory: pytest.TempPathFactory) -> MakeSubject:
    """`make()` gives a tiny model and 20 training images, which are what is evaluated; 3 images to test.

    The images lie decoded in one folder for all test files of a process; every subject is a new one.
    """
    folder = tmp_path_factory.getbasetemp() / "faces"
    if not folder.exists():
        write_celeba(folder / "celeba", 30)

    def make(
        image_size: int = 32, color: str = "rgb", posterior: str = "gaussian", train_size: int = 20, **arguments: Any
    ) -> Subject:
        data = FaceDataModule(
            "celeba",
            str(folder / "celeba"),
            image_size=image_size,
            color=color,
            train_size=train_size,
            data_dir=str(folder / "data"),
        )
        data.setup()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = ConvVAE(image_size, [8, 16, 16], color=color, latent_dim=4, posterior=posterior).eval()
        return Subject(model, data, SquaredError(), **{"split": "train", "batch_size": 8} | arguments)

    return make


def by_name(measured: Result) -> dict[str, Value]:
    return {value.name: value for value in measured.values}


def subject_of(
    model: Autoencoder, images: np.ndarray, reconstruction: ReconstructionLoss | None = None, **others: Any
) -> Subject:
    """The same images in all splits, without a data set on disk."""
    data = FaceDataModule(source="noise")
    data._splits = {split: SplitImages(images) for split in ("train", "val", "test")}
    data.identities = lambda split: None  # type: ignore[method-assign]
    return Subject(model.eval(), data, reconstruction or SquaredError(), **others)


def noise_images(count: int, size: int = 8, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def tiny_ladder(**arguments: Any) -> LadderVAE:
    """Two levels, 2x2 with 8 latents and 4x4 with 16, whose posteriors are not the prior."""
    settings = {"sides": (2, 4), "widths": (8, 8), "blocks": (1, 1), "latent_channels": (2, 1)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(LadderVAE(**{"image_size": 8, "color": "gray", "logistic_components": 1} | settings | arguments))


class FlatVAE(Autoencoder):
    """The same gray whatever the latents, and a posterior that is the prior: what is left is the pixels' own law."""

    def __init__(self, gray: float, output_activation: str = "sigmoid") -> None:
        super().__init__(image_size=8, color="gray", latent_dim=2, output_activation=output_activation)
        logit = math.log(gray / (1 - gray))
        self.logit = nn.Parameter(torch.tensor(logit if output_activation == "sigmoid" else logit / 2))

    def posterior_parameters(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 4)

    def pixel_parameters(self, latents: Tensor) -> Tensor:
        return self.logit.expand(len(latents), 1, 8, 8)
