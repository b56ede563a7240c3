"""Networks whose features are compared: finds, checks and loads their weights. Nothing is downloaded."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights

from vae_lightning.evaluation.metric import EvaluationError
from vae_lightning.runs.subject import Subject
from vae_lightning.system.tensor_files import UNREADABLE, read_tensors

INCEPTION_LAYER = "2048"  # torch-fidelity's name of the last average pooling, and its number of features
SMALLEST_LPIPS_SIDE = 31  # pixels; of smaller images AlexNet's second pooling leaves nothing
MOST_AT_ONCE = 64  # images in Inception, which sees them at 299x299

Pixels = UInt8[Tensor, "batch _channels _height _width"]


class WeightsMissing(ValueError):  # noqa: N818 (read as the state that it is: nothing is wrong yet)
    """The weights of a feature network were not found; the message says where to get them and where to put them."""


@dataclass(frozen=True)
class FeatureNetwork:
    name: str  # in messages
    url: str
    other_file_names: tuple[str, ...]  # under which other libraries keep the same file
    size_mb: int

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def file_names(self) -> tuple[str, ...]:
        return (self.file_name, *self.other_file_names)

    @property
    def sha256_prefix(self) -> str:
        """Both files end in the first 8 digits of theirs."""
        return self.file_name.removesuffix(".pth").rpartition("-")[2]


INCEPTION = FeatureNetwork("FID's Inception", URL_INCEPTION_V3, ("pt_inception-2015-12-05-6726825d.pth",), 96)
ALEXNET = FeatureNetwork("LPIPS' AlexNet", AlexNet_Weights.IMAGENET1K_V1.url, (), 244)
NETWORKS = (INCEPTION, ALEXNET)


@dataclass(frozen=True)
class Weights:
    """A file of weights, whether or not it can be loaded."""

    file: Path
    sha256: str
    official: bool  # by its hash

    def protocol(self) -> dict[str, Any]:
        return {"file": self.file.name, "sha256": self.sha256, "official": self.official}

    def warning(self) -> str:
        """For the note of a number that was measured with them; empty where they are the official ones."""
        return "" if self.official else f"; {self.file.name} is not the official weights: compare with nothing else"


def find_weights(network: FeatureNetwork, weights: Path | None) -> Path:
    """The file in `weights`, a folder or the file itself, or else in torch.hub's cache.

    Raises:
        WeightsMissing: the file is in neither.
        EvaluationError: `weights` does not exist, or is not the file of a known network.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    folders = [cache]
    if weights is not None:
        _check_named(weights)
        if weights.is_dir():
            folders.insert(0, weights)
        elif weights.name in network.file_names:
            return weights
    for folder in folders:
        for name in network.file_names:
            if (folder / name).is_file():
                return folder / name
    raise WeightsMissing(
        f"the weights of {network.name} are missing, and nothing is downloaded by itself: fetch {network.url} "
        f"({network.size_mb} MB) and put it at {cache / network.file_name}, or name its folder with --weights "
        f"(looked in {' and '.join(map(str, folders))})"
    )


def _check_named(weights: Path) -> None:
    known = [name for network in NETWORKS for name in network.file_names]
    if not weights.exists():
        raise EvaluationError(f"weights={weights} does not exist: name the folder that holds {' or '.join(known)}")
    if weights.is_file() and weights.name not in known:
        raise EvaluationError(
            f"weights={weights}: the file's name says which network it holds, and must be one of {', '.join(known)}; "
            "rename the file"
        )


def examine_weights(network: FeatureNetwork, weights: str | None) -> Weights:
    """Finds and hashes the weights without loading them. Raises: as `find_weights`."""
    file = find_weights(network, None if weights is None else Path(weights).expanduser())
    status = file.stat()
    sha256 = _sha256(file.resolve(), status.st_size, status.st_mtime_ns)
    return Weights(file, sha256, sha256.startswith(network.sha256_prefix))


def weights_digest(network: FeatureNetwork, weights: str | None) -> str:
    """sha256 of the weights, or "missing": stored results depend on it. Raises: EvaluationError as `find_weights`."""
    try:
        return examine_weights(network, weights).sha256
    except WeightsMissing:
        return "missing"


@lru_cache
def _sha256(file: Path, num_bytes: int, modified_ns: int) -> str:
    """Size and time are arguments so that a replaced file is read again instead of taken from the cache."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load_inception(file: Path, device: torch.device) -> FeatureExtractorInceptionV3:
    """uint8 RGB [0, 255] of any size -> (float32 [batch, 2048],); in eval mode, frozen.

    Raises:
        EvaluationError: the file is damaged or holds other weights.
    Source: Heusel et al. 2017, arXiv:1706.08500; the weights are those of its TensorFlow graph.
    """
    with _reading(INCEPTION, file):
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", [INCEPTION_LAYER], feature_extractor_weights_path=str(file)
        )
    return network.to(device)


def load_lpips(file: Path, device: torch.device) -> LearnedPerceptualImagePatchSimilarity:
    """RGB in [0, 1] -> one distance per image; its small linear heads come with torchmetrics.

    Raises:
        EvaluationError: the file is damaged or holds other weights.
    Source: Zhang et al. 2018, arXiv:1801.03924.
    """
    with _reading(ALEXNET, file), _hub_holding(file):
        metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", reduction="none", normalize=True)
    return metric.to(device)


@torch.inference_mode()
def extract_features(
    network: FeatureExtractorInceptionV3,
    subject: Subject,
    count: int,
    images_of: Callable[[slice], Pixels],
    description: str,
) -> Float[Tensor, "count features"]:
    """Inception's features, in float64 on the CPU, of `count` images that are made or read batch by batch."""
    at_once = min(subject.batch_size, MOST_AT_ONCE)
    firsts = range(0, count, at_once)
    parts = []
    for first in subject.track(firsts, description, len(firsts)):
        images = images_of(slice(first, min(first + at_once, count))).expand(-1, 3, -1, -1)
        parts.append(network(images)[0].cpu().double())  # in this order: MPS has no float64
    return torch.cat(parts)


@contextmanager
def _reading(network: FeatureNetwork, file: Path) -> Iterator[None]:
    """Turns errors of reading into an EvaluationError that names the file.

    The libraries unpickle anything, so the file is first checked to hold nothing but tensors. They initialise layers
    before they load them; that must not use up the random numbers of others.
    """
    try:
        read_tensors(file, may_repeat=True)
        with torch.random.fork_rng(devices=[]):
            yield
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0]
        raise EvaluationError(
            f"{file} is damaged or does not hold the weights of {network.name} ({type(error).__name__}: {reason}); "
            f"fetch {network.url} again"
        ) from error


@contextmanager
def _hub_holding(file: Path) -> Iterator[None]:
    """Makes torch.hub's cache a temporary folder with this file alone, because torchmetrics looks nowhere else.

    TORCH_HOME sets the cache, because torch.hub.set_dir() cannot be undone; where set_dir() was called before,
    it has precedence and is called again.
    """
    before, home = torch.hub.get_dir(), os.environ.get("TORCH_HOME")
    with TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        (checkpoints / ALEXNET.file_name).symlink_to(file.resolve())
        os.environ["TORCH_HOME"] = folder
        was_set = torch.hub.get_dir() == before
        if was_set:
            torch.hub.set_dir(checkpoints.parent)
        try:
            yield
        finally:
            if was_set:
                torch.hub.set_dir(before)
            if home is None:
                del os.environ["TORCH_HOME"]
            else:
                os.environ["TORCH_HOME"] = home
