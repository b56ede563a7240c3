"""How far the training in a checkpoint had got, told from Lightning's counters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vae_lightning.checkpoint_keys import RECORD_KEY
from vae_lightning.checkpoints import read_checkpoint
from vae_lightning.run_folders import RunError


class Position(NamedTuple):
    """`epochs` whole ones, and `batches` of the one under way, None at an epoch's end."""

    epochs: int
    batches: int | None


def position_in(loops: Mapping[str, Any]) -> Position:
    """Lightning counts an epoch as processed too where `max_steps` or a time limit ended it half-way."""
    epoch = loops["fit_loop"]["epoch_progress"]["current"]
    batch = loops["fit_loop"]["epoch_loop.batch_progress"]
    was_cut = epoch["processed"] > epoch["completed"] and not batch["is_last_batch"]
    epochs = epoch["processed"] - was_cut
    return Position(epochs, batch["current"]["completed"] if epoch["ready"] > epochs else None)


def check_position(path: Path, settings: Mapping[str, Any]) -> None:
    """Whether training with these settings can go on from a checkpoint as if it had never stopped.

    Raises:
        RunError: more epochs are behind it than are asked for, it stands within an epoch of batches of another size,
            or it does not say where it stands.
    """
    content = read_checkpoint(path)
    try:
        epochs, batches = position_in(content["loops"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} does not say how far its training had got: it can be read, not gone on from") from error
    max_epochs, now = settings["trainer"].get("max_epochs"), settings["data"].get("batch_size")
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise RunError(f"trainer.max_epochs={max_epochs}: {path} has {epochs} epochs behind it, ask for that or more")
    was = (content[RECORD_KEY]["config"].get("data") or {}).get("batch_size")
    if batches is not None and was is not None and was != now:
        raise RunError(
            f"data.batch_size={now}: {path} stands after {batches} batches of {was} images in epoch {epochs + 1}, "
            f"whose rest cannot be cut into others. Go on with data.batch_size={was} to the end of the epoch "
            f"(trainer.max_epochs={epochs + 1}), then with {now}"
        )
