"""Resuming: how far a checkpoint's training got, and whether later epochs are comparable with its best one."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.runs.layout import RECORD_KEY, RunError

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in the state of Lightning's ModelCheckpoint
AS_A_WHOLE = ("model", "posterior", "reconstruction", "beta", "kl")
IN_PART = {"beta_schedule": "capacity_nats", "recognizer": "target", "trainer": "limit_val_batches"}


class Position(NamedTuple):
    """Finished epochs, and finished batches of the epoch under way: None at an epoch's end."""

    epochs: int
    batches: int | None


def position_in(loops: Mapping[str, Any]) -> Position:
    """Corrects Lightning's counters, which count an epoch that `max_steps` or a time limit cut short as processed."""
    epoch = loops["fit_loop"]["epoch_progress"]["current"]
    batch = loops["fit_loop"]["epoch_loop.batch_progress"]
    was_cut = epoch["processed"] > epoch["completed"] and not batch["is_last_batch"]
    epochs = epoch["processed"] - was_cut
    return Position(epochs, batch["current"]["completed"] if epoch["ready"] > epochs else None)


def check_position(path: Path, settings: Mapping[str, Any]) -> None:
    """Checks that training with these settings can resume from a checkpoint as if it had never stopped.

    Raises:
        RunError: the checkpoint has more epochs than are asked for, lies within an epoch of batches of another size,
            or does not say how far its training got.
    """
    content = read_checkpoint(path)
    try:
        epochs, batches = position_in(content["loops"])
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{path} does not say how far its training had got, so that training cannot resume from it"
        ) from error
    max_epochs, now = settings["trainer"].get("max_epochs"), settings["data"].get("batch_size")
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise RunError(f"trainer.max_epochs={max_epochs}: {path} has finished {epochs} epochs; ask for that or more")
    was = (content[RECORD_KEY]["config"].get("data") or {}).get("batch_size")
    if batches is not None and was is not None and was != now:
        raise RunError(
            f"data.batch_size={now}: {path} lies after {batches} batches of {was} images in epoch {epochs + 1}, whose "
            f"other batches have that size too. Resume with data.batch_size={was} to the end of the epoch "
            f"(trainer.max_epochs={epochs + 1}), then with {now}"
        )


def changes_of_the_loss(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the settings that make validation losses incomparable, from two records of checkpoints.

    Most schedules are left out: they change training only, and validation uses their end.
    """
    then, today = _meaning(before), _meaning(now)
    return [name for name in today if then[name] != today[name]]


def _meaning(record: Mapping[str, Any]) -> dict[str, Any]:
    config, data = record.get("config", {}), record.get("data") or {}
    perceptual = dict(config.get("perceptual") or {})
    perceptual.pop("weights_path", None)  # the folder does not matter
    return {
        **{name: config.get(name) for name in AS_A_WHOLE},
        "perceptual": perceptual,
        **{f"{group}.{key}": (config.get(group) or {}).get(key) for group, key in IN_PART.items()},
        "validation images": (data.get("content") or {}).get("val"),
        "annotation": data.get("annotation") if config.get("recognizer") else None,
    }


def moved(state: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A ModelCheckpoint's state after its folder was moved or copied to `folder`.

    Files elsewhere are left out, because ModelCheckpoint deletes files that are no longer among the best.
    """

    def here(path: str) -> str:
        inside = PurePath(path)
        if not inside.is_relative_to(state["dirpath"]):
            return ""
        inside = inside.relative_to(state["dirpath"])
        return "" if ".." in inside.parts else str(Path(folder, inside))

    scores = {here(path): score for path, score in state["best_k_models"].items() if here(path)}
    return {**state, "dirpath": folder, "best_k_models": scores, **{name: here(state[name]) for name in PATHS}}
