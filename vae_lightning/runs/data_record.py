"""The data that a run was trained on, found again."""

import logging
import os
from pathlib import Path
from typing import Any

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.runs.layout import RunError

log = logging.getLogger("vae_lightning")
DATA_DIR = "data"  # train.py's default
NUMBERS = ("image_size", "batch_size", "subset_seed", "seed", "faces_count", "faces_seed", "noise_count")
NUMBERS_OR_NONE = ("eval_batch_size", "train_size", "val_size", "test_size")
WORDS = ("color", "residence", "data_dir", "source")
# of what a record says of the data of its run: what each may be
SETTINGS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(NUMBERS, (int,)),
    **dict.fromkeys(NUMBERS_OR_NONE, (int, type(None))),
    **dict.fromkeys(WORDS, (str,)),
    **{"root": (str, type(None)), "crop": (int, list, tuple, type(None)), "horizontal_flip": (bool,)},
    **{"_target_": (str,), "num_workers": (int,)},  # which is of runs before 2026-11-21
}
NEEDED = ("crop", "image_size", "color")
LARGEST_NUMBER = 2**53


def check_record(record: dict[str, Any], file: Path) -> None:
    """What a checkpoint says of its data, by names and types; whether such data exist is another matter.

    Raises:
        RunError: something is missing, unknown, or of another type.
    """
    settings, used = record["config"].get("data"), record.get("data")
    if not isinstance(settings, dict) or not isinstance(used, dict):
        raise RunError(f"{file} does not say which data it was trained on")
    wrong = [name for name in NEEDED if name not in settings]
    wrong += [str(name) for name, value in settings.items() if not isinstance(value, SETTINGS.get(name, ()))]
    wrong += [name for name in NUMBERS if not 0 <= settings.get(name, 0) <= LARGEST_NUMBER] if not wrong else []
    wrong += [name for name in ("source", "root") if not isinstance(used.get(name), str)]
    wrong += [] if isinstance(used.get("content", {}), dict) else ["content"]
    if not wrong and used["source"] not in data_sources():
        wrong = [used["source"]]
    if wrong:
        raise RunError(f"{file} describes no data that this version can open: see {wrong[0][:80]!r} in its record")


def has_same_images(record: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two records of data are of the same images; those of before 2026-11-22 tell by the files' times only."""
    mark = "content" if "content" in record and "content" in other else "fingerprint"
    return bool(record[mark] == other[mark])


def data_settings(record: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the data module that open the data that a run used.

    Where CelebA has gone from the place that it was trained from (another machine), CELEBA_ROOT says where it is now.
    Rendered faces are taken from where they were drawn, if they are still there.
    """
    settings = {name: value for name, value in record["config"]["data"].items() if name != "_target_"}
    settings.pop("num_workers", None)
    used = record["data"]
    source, root = used["source"], Path(used["root"])
    if source == "faces" and root.is_dir():
        settings["data_dir"] = str(root.parent)
    settings["data_dir"] = _place_for_data(str(settings.get("data_dir", DATA_DIR)))
    moved = source == "celeba" and not root.is_dir() and bool(os.environ.get("CELEBA_ROOT"))
    return {**settings, "source": source, "root": str(root) if data_sources()[source].has_root and not moved else None}


def _place_for_data(data_dir: str) -> str:
    """Where images may be decoded to: below the working folder, or where such images lie already.

    A stranger's checkpoint could name any folder.
    """
    place = Path(data_dir).expanduser()
    if place.resolve().is_relative_to(Path.cwd()) or (place / "cache").is_dir() or any(place.glob("faces-*")):
        return data_dir
    log.info(f"The run kept its decoded images in {data_dir}, where there are none: they go to {DATA_DIR}/ here")
    return DATA_DIR
