"""Variational autoencoders on CelebA faces: train, sweep, compare, show."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_lightning.runs import Run, load_run

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    """Imports torch when a run is asked for, not with the package: `--help` answers at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vae_lightning import runs

    return getattr(runs, name)
