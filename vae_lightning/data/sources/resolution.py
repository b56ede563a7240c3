"""Finds the data sources, and chooses the one that a run uses."""

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module

import vae_lightning.data.sources
from vae_lightning.data.sources.celeba import celeba_root
from vae_lightning.data.sources.source import DataError, DataSource, ImageSource, SourceSettings


@cache
def data_sources() -> dict[str, DataSource]:
    """All by name: the modules of this package that have a SOURCE."""
    names = [module.name for module in pkgutil.iter_modules(vae_lightning.data.sources.__path__)]
    modules = {name: import_module(f"{vae_lightning.data.sources.__name__}.{name}") for name in sorted(names)}
    return {name: module.SOURCE for name, module in modules.items() if hasattr(module, "SOURCE")}


def resolve_source(name: str, settings: SourceSettings, warn: Callable[[str], None]) -> ImageSource:
    """Reads the data set of that name; `warn` gets the line that a person has to see.

    `auto` takes the rendered faces only if the place of CelebA is unknown: with `root`, with CELEBA_ROOT in the
    environment, or with a folder `<data_dir>/celeba`, a missing or damaged file is an error.

    Raises: DataError.
    """
    if name == "auto":
        name = "celeba" if celeba_root(settings) is not None else "faces"
        if name == "faces":
            warn(
                "No CelebA found: training on the built-in RENDERED faces. For real faces set "
                "CELEBA_ROOT=/path/to/celeba (or data.root=/path/to/celeba); data=faces silences this line."
            )
    source = data_sources()[name]
    if settings.root is not None and not source.has_root:
        warn(f"data.root={settings.root} is ignored: data={name} makes its own images.")
    if settings.allow_missing and name != "celeba":
        raise DataError(f"data.allow_missing=true is for the lists of data=celeba; data={name} has none: leave it out.")
    images = source.read(settings)
    if images.kind != name:
        raise DataError(f"data={name}: its images call themselves {images.kind!r}; both names have to be the same.")
    for remark in images.remarks:
        warn(remark)
    return images
