"""How far the training in a checkpoint had got, told from Lightning's counters."""

from collections.abc import Mapping
from typing import Any, NamedTuple


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
