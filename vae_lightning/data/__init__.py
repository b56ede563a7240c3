"""Images of CelebA, of rendered faces or of a folder, decoded once and served as batches of uint8.

Only the readers are imported with the package. PyTorch and Lightning are imported on first use, so that `--help` and
the processes that render faces start quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.folder import read_folder
from vae_lightning.data.sources.source import SPLITS, DataError, ImageSource, Split

if TYPE_CHECKING:
    from vae_lightning.data.datamodule import FaceDataModule
    from vae_lightning.data.decoded.cache import open_cache
    from vae_lightning.data.decoded.preprocessing import Preprocessing
    from vae_lightning.data.loading import SplitImages

__all__ = [
    "SPLITS",
    "DataError",
    "FaceDataModule",
    "ImageSource",
    "Preprocessing",
    "Split",
    "SplitImages",
    "open_cache",
    "read_celeba",
    "read_folder",
]

_LAZY = {
    "FaceDataModule": "datamodule",
    "Preprocessing": "decoded.preprocessing",
    "SplitImages": "loading",
    "open_cache": "decoded.cache",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
