"""How well log-odds predict attributes: accuracy, balanced accuracy and AUC, as numbers and as a bar chart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure

from vae_lightning.pictures.charts import COLORS, figure_pixels
from vae_lightning.scores.resampling import area_under_curve, balanced_accuracy, percentile_interval
from vae_lightning.scores.result import Row


@dataclass(frozen=True)
class AttributeScores:
    """Scores on a set of images. Weightings are those of resampling.py; the first counts each image once.

    A score is nan where a weighting leaves one class without images.
    """

    is_right: Bool[np.ndarray, "images attributes"]
    balanced_accuracy: Float[np.ndarray, "weightings attributes"]
    auc: Float[np.ndarray, "weightings attributes"]
    shares: Float[np.ndarray, " attributes"]  # of positive images

    def table(self, names: Sequence[str]) -> list[Row]:
        """A row per attribute, highest AUC first; without an interval where there is one weighting only."""
        rows: list[Row] = []
        for column, name in enumerate(names):
            share, resampled = float(self.shares[column]), self.auc[1:, column]
            has_interval = not np.isnan(resampled).all()
            low, high = percentile_interval(resampled) if has_interval else (None, None)
            rows.append(
                {
                    "attribute": name,
                    "share": share,
                    "accuracy": float(self.is_right[:, column].mean()),
                    "majority": max(share, 1 - share),
                    "balanced accuracy": float(self.balanced_accuracy[0, column]),
                    "auc": float(self.auc[0, column]),
                    "auc low": low,
                    "auc high": high,
                }
            )
        return sorted(rows, key=lambda row: -float(row["auc"] or 0.0))


def score_attributes(
    log_odds: Float[np.ndarray, "images attributes"],
    labels: Bool[np.ndarray, "images attributes"],
    weights: Float[np.ndarray, "weightings images"],
) -> AttributeScores:
    """An attribute is predicted where its log-odds are above 0."""
    predicted = log_odds > 0
    columns = range(labels.shape[1])
    return AttributeScores(
        predicted == labels,
        np.stack([balanced_accuracy(predicted[:, [c]], labels[:, c], weights)[:, 0] for c in columns], axis=1),
        np.stack([area_under_curve(log_odds[:, c], labels[:, c], weights) for c in columns], axis=1),
        labels.mean(0, dtype=np.float64),
    )


def has_both_classes(attributes: Bool[np.ndarray, "images attributes"]) -> Bool[np.ndarray, " attributes"]:
    return np.logical_and(attributes.any(0), ~attributes.all(0))


def draw_bars(rows: Sequence[Row]) -> UInt8[np.ndarray, "height width 3"]:
    """AUC of each attribute with its interval, in the order of the rows, from chance to 1."""
    auc, low, high = (np.array([row[column] for row in rows], np.float64) for column in ("auc", "auc low", "auc high"))
    figure = Figure(figsize=(7, 1.2 + 0.2 * len(rows)), dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    places = np.arange(len(rows))
    axis.barh(places, auc - 0.5, left=0.5, color=COLORS[0], height=0.7)
    axis.hlines(places, low, high, color="black", linewidth=1)
    axis.set_yticks(places, [str(row["attribute"]) for row in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(min(0.45, float(low.min())), 1.0)
    axis.set_xlabel("AUC; 0.5 is chance; lines are 95 % intervals", fontsize=9)
    axis.grid(alpha=0.3, axis="x")
    return figure_pixels(figure)
