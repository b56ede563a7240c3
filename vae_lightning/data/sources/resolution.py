"""Which data set a run uses: CelebA where somebody said where it is, else the rendered faces, said aloud."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vae_lightning.data.decoded.checksums import read_checksums
from vae_lightning.data.sources.celeba import read_celeba
from vae_lightning.data.sources.folder import read_folder
from vae_lightning.data.sources.noise import read_noise
from vae_lightning.data.sources.source import CheckedStore, DataError, ImageSource

SOURCES = ("auto", "celeba", "faces", "folder", "noise")


def resolve_source(
    source: str,
    root: Path | None,
    data_dir: Path,
    *,
    faces_count: int,
    faces_seed: int,
    noise_count: int,
    warn: Callable[[str], None],
) -> ImageSource:
    """Read the data set that `source` stands for; `warn` gets the line that a person has to see.

    `auto` falls back to rendered faces only when nobody said where CelebA is: with `root`, with CELEBA_ROOT
    in the environment, or with a folder `<data_dir>/celeba`, a missing or damaged file is an error.

    Raises: DataError.
    """
    if source == "folder":
        if root is None:
            raise DataError("data=folder needs to know which: data.root=/path/to/the/images.")
        return read_folder(root)
    if source == "noise":
        return read_noise(noise_count)
    celeba = _celeba_root(root, data_dir)
    if source == "celeba" and celeba is None:
        raise DataError(
            "data=celeba, and nobody said where CelebA is: set CELEBA_ROOT=/path/to/celeba or data.root=…, "
            f"or put it into {data_dir / 'celeba'}. data=faces trains on the built-in rendered faces."
        )
    if source in ("auto", "celeba") and celeba is not None:
        return read_celeba(celeba)
    if source == "auto":
        warn(
            "No CelebA found: training on the built-in RENDERED faces. For real faces set "
            "CELEBA_ROOT=/path/to/celeba (or data.root=/path/to/celeba); data=faces silences this line."
        )
    elif root is not None:
        warn(f"data.root={root} is ignored: data=faces renders its own images.")
    return _rendered_faces(data_dir, faces_count, faces_seed)


def _celeba_root(root: Path | None, data_dir: Path) -> Path | None:
    if root is not None:
        return root
    if os.environ.get("CELEBA_ROOT"):
        return Path(os.environ["CELEBA_ROOT"]).expanduser()
    return data_dir / "celeba" if (data_dir / "celeba").is_dir() else None


def _rendered_faces(data_dir: Path, count: int, seed: int) -> ImageSource:
    # its drawing code only when it is needed
    from vae_lightning.data.rendering.dataset import CHECKSUMS, faces_folder_name, render_faces

    try:
        root = render_faces(data_dir / faces_folder_name(count, seed), count=count, seed=seed)
    except ValueError as error:
        raise DataError(str(error)) from error
    source = read_celeba(root, kind="faces")
    return replace(source, images=CheckedStore(root / "img_align_celeba", read_checksums(root / CHECKSUMS)))
