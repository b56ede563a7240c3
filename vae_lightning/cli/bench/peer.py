"""The default convolutional VAE of the best-known VAE repository, rebuilt from its published description.

Five stages of 32 to 512 channels (kernel 3, stride 2, batch normalisation, LeakyReLU), 128 latents, tanh, Adam 5e-3,
float32; its data loading decodes, crops and resizes each JPEG file anew in every epoch: PIL, two worker processes.
Source: AntixK/PyTorch-VAE, models/vanilla_vae.py, dataset.py and configs/vae.yaml; none of its code is copied.
"""

import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vae_lightning.cli.bench.benched import Benched

WIDTHS = (32, 64, 128, 256, 512)
LATENT_DIM = 128
BATCH_SIZE = 64
NUM_WORKERS = 2
NUM_FILES = 2048
WARM_UP_BATCHES = 3


class PeerVAE(nn.Module):
    """Images of 64x64 in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(_stage(nn.Conv2d(before, after, 3, 2, 1), after) for before, after in pairwise((3, *WIDTHS))),
            nn.Flatten(),
        )
        self.mean = nn.Linear(WIDTHS[-1] * 4, LATENT_DIM)
        self.logvar = nn.Linear(WIDTHS[-1] * 4, LATENT_DIM)
        ups = (*reversed(WIDTHS), WIDTHS[0])
        self.decoder = nn.Sequential(
            nn.Linear(LATENT_DIM, WIDTHS[-1] * 4),
            nn.Unflatten(1, (WIDTHS[-1], 2, 2)),
            *(_stage(nn.ConvTranspose2d(before, after, 3, 2, 1, 1), after) for before, after in pairwise(ups)),
            nn.Conv2d(WIDTHS[0], 3, 3, padding=1),
            nn.Tanh(),
        )

    def loss(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        mean, logvar = self.mean(features), self.logvar(features)
        reconstruction = self.decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
        return F.mse_loss(reconstruction, images) + 0.00025 * kl


def _stage(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU())


class JpegFiles(Dataset[Tensor]):
    """Images that are decoded when they are read."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.CenterCrop(148),
                v2.Resize(64),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, True),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            pixels: Tensor = self.transform(image.convert("RGB"))
        return pixels


def peer_speed(benched: Benched, seconds: float) -> float:
    """Images per second of the peer in a bare loop, on the run's own images as files."""
    source = benched.datamodule.image_source
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as folder:
        for number, row in enumerate(source.split_rows("train")[:NUM_FILES].tolist()):
            (Path(folder) / f"{number:06}.jpg").write_bytes(source.read(row))
        model = PeerVAE().to(benched.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        loader = DataLoader(JpegFiles(Path(folder)), BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
        started, count, number = 0.0, 0, 0
        while number <= WARM_UP_BATCHES or time.perf_counter() - started < seconds:
            for images in loader:
                if number == WARM_UP_BATCHES:
                    started, count = time.perf_counter(), 0
                loss = model.loss(images.to(benched.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()  # it logs every step's loss
                count, number = count + len(images), number + 1
                if number > WARM_UP_BATCHES and time.perf_counter() - started > seconds:
                    break
        return count / (time.perf_counter() - started)
