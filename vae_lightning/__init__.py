"""Variational autoencoders on CelebA faces: train, sweep, compare, edit, show."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_lightning.latents.finer import with_finer
    from vae_lightning.latents.paths import latents_between
    from vae_lightning.models.pixels import to_pil
    from vae_lightning.recognition.load import load_recognizer
    from vae_lightning.runs.load import load_run
    from vae_lightning.runs.run import Run

__all__ = ["Run", "latents_between", "load_recognizer", "load_run", "to_pil", "with_finer"]
PLACES = {
    "Run": "runs.run",
    "latents_between": "latents.paths",
    "load_recognizer": "recognition.load",
    "load_run": "runs.load",
    "to_pil": "models.pixels",
    "with_finer": "latents.finer",
}


def __getattr__(name: str) -> Any:
    """Imports torch when a run is asked for, not with the package: `--help` answers at once."""
    if name == "__version__":
        return version("vae-lightning")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vae_lightning.{PLACES[name]}"), name)
