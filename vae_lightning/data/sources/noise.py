"""Noise in CelebA's format and numbers, to measure speed and memory without CelebA."""

import io
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vae_lightning.data.sources.source import DataSource, ImageSource, ImageStore, SourceSettings

CELEBA_PARTITION = (162_770, 19_867, 19_962)  # images in train, validation and test
SIZE = (178, 218)  # of CelebA's aligned images
DISTINCT = 64  # images, which repeat: decoding takes as long as if all were different


class NoiseStore(ImageStore):
    """JPEG images of smoothed noise, made in memory; a name's number says which."""

    @cached_property
    def _encoded(self) -> list[bytes]:
        random = np.random.default_rng(0)
        return [self._encode(random) for _ in range(DISTINCT)]

    def _encode(self, random: np.random.Generator) -> bytes:
        coarse = Image.fromarray(random.integers(0, 256, (27, 22, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(file, format="jpeg", quality=90)
        return file.getvalue()

    def read(self, filename: str) -> bytes:
        return self._encoded[int(Path(filename).stem) % DISTINCT]

    def fingerprint(self, filenames: list[str]) -> str:
        return f"noise {DISTINCT}"


def read_noise(count: int) -> ImageSource:
    """`count` images, divided like CelebA's."""
    names = tuple(f"{number:06}.jpg" for number in range(count))
    ends = np.cumsum(CELEBA_PARTITION) * count // sum(CELEBA_PARTITION)
    partition = np.searchsorted(ends, np.arange(count), side="right").astype(np.int8)
    return ImageSource("noise", Path("noise"), names, partition, NoiseStore())


def _read_source(settings: SourceSettings) -> ImageSource:
    return read_noise(settings.noise_count)


SOURCE = DataSource(
    title="noise",
    read=_read_source,
    has_root=False,
    about="Noise, to measure speed and memory. The model has learned nothing.",
    uses="measurements of speed and memory",
    note="It serves to measure speed and memory.",
    licence="",
)
