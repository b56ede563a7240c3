"""Predictions of an attribute classifier or factor regressor for a whole split, beside the true values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vae_lightning.pictures.charts import COLORS, figure_pixels
from vae_lightning.scores.attribute_scores import has_both_classes, score_attributes
from vae_lightning.scores.resampling import image_weights, r_squared
from vae_lightning.scores.result import Row


@dataclass(frozen=True)
class ReadSplit:
    """Log-odds and labels 0 or 1, or predicted and true factors in standard deviations."""

    outputs: Float[np.ndarray, "images outputs"]
    targets: Float[np.ndarray, "images outputs"]
    rows: Int64[np.ndarray, " images"]

    def attribute_nats(self) -> Float[np.ndarray, " images"]:
        """Cross-entropy summed over attributes."""
        wrong_way = np.logaddexp(0, -self.outputs), np.logaddexp(0, self.outputs)
        return (self.targets * wrong_way[0] + (1 - self.targets) * wrong_way[1]).sum(1)

    def factor_nats(self) -> Float[np.ndarray, " images"]:
        """Half the squared error summed over factors."""
        return ((self.outputs - self.targets) ** 2).sum(1) / 2


class Readings(Metric):
    """Outputs, targets and rows of all images of a split, over any number of batches and processes."""

    full_state_update = False
    outputs: list[Tensor] | Tensor
    targets: list[Tensor] | Tensor
    rows: list[Tensor] | Tensor

    def __init__(self, **metric_arguments: Any) -> None:
        super().__init__(**metric_arguments)
        for name in ("outputs", "targets", "rows"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        outputs: Float[Tensor, "batch outputs"],
        targets: Float[Tensor, "batch outputs"],
        rows: Int64[Tensor, " batch"],
    ) -> None:
        for kept, values in ((self.outputs, outputs), (self.targets, targets), (self.rows, rows)):
            assert isinstance(kept, list)
            kept.append(values)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, targets and rows, in the order of the split, on the host."""
        outputs, targets, rows = (dim_zero_cat(each).cpu() for each in (self.outputs, self.targets, self.rows))
        order = rows.argsort()
        return outputs[order], targets[order], rows[order]


def attribute_means(read: ReadSplit) -> dict[str, float]:
    """Means over attributes; balanced accuracy and AUC over those with both classes, nan where none has both."""
    known = read.targets > 0.5
    both = has_both_classes(known)
    balanced = auc = float("nan")
    if both.any():
        scores = score_attributes(read.outputs[:, both], known[:, both], np.ones((1, len(known))))
        balanced, auc = float(scores.balanced_accuracy[0].mean()), float(scores.auc[0].mean())
    accuracy = float(((read.outputs > 0) == known).mean())
    return {"accuracy": accuracy, "balanced_accuracy": balanced, "auc": auc}


def attribute_table(
    read: ReadSplit, names: Sequence[str], people: Int64[np.ndarray, " images"], resamples: int = 200
) -> list[Row]:
    """A row per attribute with both classes, highest AUC first; intervals from resampled people."""
    known = read.targets > 0.5
    columns = np.flatnonzero(has_both_classes(known))
    if not len(columns):
        return []
    weights = image_weights(people, resamples, seed=0)
    scores = score_attributes(read.outputs[:, columns], known[:, columns], weights)
    return scores.table([names[column] for column in columns.tolist()])


def factor_table(read: ReadSplit, names: Sequence[str]) -> list[Row]:
    """A row per factor, best first: R^2, and the root of the mean squared error in standard deviations."""
    errors = np.sqrt(((read.outputs - read.targets) ** 2).mean(0))
    rows: list[Row] = [
        {"factor": name, "r_squared": share, "rmse": float(error)}
        for name, share, error in zip(names, factor_r_squared(read), errors, strict=True)
    ]
    return sorted(rows, key=lambda row: -float(row["r_squared"] or 0.0))


def factor_r_squared(read: ReadSplit) -> list[float]:
    ones = np.ones((1, len(read.rows)))
    return [float(r_squared(*pair, ones)[0]) for pair in zip(read.outputs.T, read.targets.T, strict=True)]


def draw_r_squared(rows: Sequence[Row]) -> UInt8[np.ndarray, "height width 3"]:
    """R^2 of each factor, in the order of the rows; below 0 is drawn as 0."""
    shares = [max(0.0, float(row["r_squared"] or 0.0)) for row in rows]
    figure = Figure(figsize=(7, 1.2 + 0.2 * len(rows)), dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    places = np.arange(len(rows))
    axis.barh(places, shares, color=COLORS[0], height=0.7)
    axis.set_yticks(places, [str(row["factor"]) for row in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.set_xlabel("R²: 1 is perfect, 0 is as good as the mean", fontsize=9)
    axis.grid(alpha=0.3, axis="x")
    return figure_pixels(figure)
