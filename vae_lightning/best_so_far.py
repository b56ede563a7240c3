"""The best epoch of a run that goes on: whether later ones can be measured against it, where its files lie now."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in what Lightning's ModelCheckpoint remembers
AS_A_WHOLE = ("model", "posterior", "reconstruction", "beta", "kl")
IN_PART = {"beta_schedule": "capacity_nats", "recognizer": "target", "trainer": "limit_val_batches"}


def changes_of_the_loss(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What makes a validation loss say another thing than it did, from two records of checkpoints.

    A schedule only moves the objective in training; validation always uses its end.
    """
    then, today = _meaning(before), _meaning(now)
    return [name for name in today if then[name] != today[name]]


def _meaning(record: Mapping[str, Any]) -> dict[str, Any]:
    config, data = record.get("config", {}), record.get("data") or {}
    perceptual = dict(config.get("perceptual") or {})
    perceptual.pop("weights_path", None)  # where they lie does not matter
    return {
        **{name: config.get(name) for name in AS_A_WHOLE},
        "perceptual": perceptual,
        **{f"{group}.{key}": (config.get(group) or {}).get(key) for group, key in IN_PART.items()},
        "validation images": (data.get("content") or {}).get("val"),
        "annotation": data.get("annotation") if config.get("recognizer") else None,
    }


def moved(state: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """What a ModelCheckpoint remembers of its folder, after that was moved or copied to `folder`.

    Of files elsewhere it forgets: it deletes those that are not among the best any more.
    """

    def here(path: str) -> str:
        inside = PurePath(path)
        if not inside.is_relative_to(state["dirpath"]):
            return ""
        inside = inside.relative_to(state["dirpath"])
        return "" if ".." in inside.parts else str(Path(folder, inside))

    scores = {here(path): score for path, score in state["best_k_models"].items() if here(path)}
    return {**state, "dirpath": folder, "best_k_models": scores, **{name: here(state[name]) for name in PATHS}}
