"""Finds the data that a run was trained on, by what its checkpoint records about them."""

import logging
import os
import typing
from pathlib import Path
from typing import Any

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.runs.layout import RunError
from vae_lightning.system.names import shown

log = logging.getLogger("vae_lightning")
DATA_DIR = "data"  # train.py's default
AS_SEEN = ("crop", "image_size", "color")  # the settings that decide which pixels of an image a model gets
LARGEST_NUMBER = 2**53


def check_record(record: dict[str, Any], file: Path) -> None:
    """Refuses a checkpoint that does not record the source, crop and size of its training images.

    Raises:
        RunError: an entry is missing, unknown, or of another type.
    """
    settings, used = record["config"].get("data"), record.get("data")
    if not isinstance(settings, dict) or not isinstance(used, dict):
        raise RunError(f"{file} does not record which data it was trained on")
    size = settings.get("image_size")
    is_right = {
        "crop": "crop" in settings and isinstance(settings["crop"], int | list | tuple | None),
        "image_size": isinstance(size, int) and 0 <= size <= LARGEST_NUMBER,
        "color": isinstance(settings.get("color"), str),
        "source": isinstance(used.get("source"), str) and used["source"] in data_sources(),
        "root": isinstance(used.get("root"), str),
        "content": isinstance(used.get("content"), dict),
    }
    wrong = [name for name, right in is_right.items() if not right]
    if wrong:
        raise RunError(f"{file} records data that this version cannot open: see {wrong[0]!r} in its record")


def _check_settings(settings: dict[str, Any]) -> None:
    """Compares recorded settings with the signature of the data module.

    Raises:
        RunError: an argument is unknown, or its value has another type.
    """
    from vae_lightning.data import FaceDataModule  # with Lightning, which takes longer to import than a model to load

    annotations = typing.get_type_hints(FaceDataModule.__init__)
    for name, value in settings.items():
        annotation = annotations.get(name, typing.Never)
        types = [typing.get_origin(each) or each for each in typing.get_args(annotation) or (annotation,)]
        fits = any(isinstance(value, each) if isinstance(each, type) else value == each for each in types)
        if not fits or (isinstance(value, int) and not 0 <= value <= LARGEST_NUMBER):
            raise RunError(
                f"the run's data settings hold {shown(name)}={shown(str(value))}, which FaceDataModule does not take"
            )


def has_same_images(record: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records describe the same images."""
    return bool(record["content"] == other["content"])


def data_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Arguments with which the data module opens the data that a run used.

    Where CelebA no longer lies at the recorded place (on another machine), the environment variable CELEBA_ROOT is
    used. Rendered faces are read from the folder that they were drawn into, as long as it exists.
    """
    settings = {name: value for name, value in record["config"]["data"].items() if name != "_target_"}
    _check_settings(settings)
    used = record["data"]
    source, root = used["source"], Path(used["root"])
    if source == "faces" and root.is_dir():
        settings["data_dir"] = str(root.parent)
    settings["data_dir"] = _place_for_data(str(settings.get("data_dir", DATA_DIR)))
    moved = source == "celeba" and not root.is_dir() and bool(os.environ.get("CELEBA_ROOT"))
    return {**settings, "source": source, "root": str(root) if data_sources()[source].has_root and not moved else None}


def _place_for_data(data_dir: str) -> str:
    """The recorded folder for decoded images where `is_place_for_data`, else the default one."""
    if is_place_for_data(data_dir):
        return data_dir
    log.info(f"The run kept its decoded images in {data_dir}, which holds none now; they are written to {DATA_DIR}/")
    return DATA_DIR


def is_place_for_data(data_dir: str) -> bool:
    """Whether images may be decoded into a folder that somebody else's run names: the default, or one that has some."""
    try:
        place = Path(data_dir).expanduser()
        if place.resolve() == Path(DATA_DIR).resolve():
            return True
        held = [place / "cache", *place.glob("faces-*")]
        return any(folder.is_dir() and not folder.is_symlink() for folder in held)
    except (OSError, ValueError, RuntimeError):  # a name that no folder can have
        return False
