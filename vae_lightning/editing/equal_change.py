"""What methods pay for the same change of the target: the only place where they compare."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from jaxtyping import Float

from vae_lightning.editing.outcome import Cell
from vae_lightning.editing.scores import EditScore, interval_cells

Scores = Mapping[str, Sequence[EditScore]]  # of each method, by strength

EQUAL_CHANGE = 1.0  # standard deviations of the judge's reading
# scores of doing nothing: where every method's line starts
NOTHING = {
    "strength": 0.0,
    "success": 0.0,
    "leakage": 0.0,
    "systematic_leakage": 0.0,
    "identity_distance": 0.0,
    "normal_prior_nats": 0.0,
    "gaussian_prior_nats": 0.0,
    "sharpness": 1.0,
    "reencoding": 1.0,
}


def at_equal_change(scores: Scores) -> list[dict[str, Cell]]:
    """A row per method: its scores where the target has changed by 1 sd, the least leakage first.

    Linear between strengths, from no edit at all. Methods that do not get there have no scores and come last.
    """
    rows: list[dict[str, Cell]] = []
    for method, each in scores.items():
        changes = _curve(each, "target_change", 0.0)
        row: dict[str, Cell] = {
            "method": method,
            "reached": "yes" if changes[:, 0].max() >= EQUAL_CHANGE else "not reached",
            "largest_change": float(changes[:, 0].max()),
        }
        for name, of_nothing in NOTHING.items():
            found = value_at(changes, _curve(each, name, of_nothing), EQUAL_CHANGE)
            row[name] = float(found[0]) if np.isfinite(found[0]) else None
            if name in each[0].resampled:
                row |= interval_cells(name, found[1:] if row[name] is not None else found[:0])
        rows.append(row)
    return sorted(rows, key=lambda row: np.inf if row["leakage"] is None else cast(float, row["leakage"]))


def _curve(scores: Sequence[EditScore], name: str, of_nothing: float) -> Float[np.ndarray, "points weightings"]:
    """A score at no edit and at all strengths, of the images in the first column and of resamples in the others."""
    count = len(scores[0].resampled["target_change"])
    points = [np.full(1 + count, of_nothing)]
    for score in scores:
        value = getattr(score, name)
        estimate = np.nan if value is None else value
        points.append(np.append(estimate, score.resampled.get(name, np.full(count, estimate))))
    return np.stack(points)


def value_at(
    changes: Float[np.ndarray, "points weightings"], values: Float[np.ndarray, "points weightings"], goal: float
) -> Float[np.ndarray, " weightings"]:
    """Values where the change first gets to the goal, linear between the two points about it; nan where it never does.

    The first point has not changed.
    """
    there = changes >= goal
    reached = there.any(0)
    last = np.where(reached, there.argmax(0), 1)
    column = np.arange(changes.shape[1])
    start, end = changes[last - 1, column], changes[last, column]
    share = np.divide(goal - start, end - start, out=np.full(len(column), np.nan), where=reached)
    return values[last - 1, column] * (1 - share) + values[last, column] * share


def nearest_to_equal_change(scores: Scores) -> dict[str, EditScore]:
    return {name: min(each, key=lambda score: abs(score.target_change - EQUAL_CHANGE)) for name, each in scores.items()}
