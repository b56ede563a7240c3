"""Total loss, reconstruction and KL over training, and rate against distortion, as pictures."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

import lightning as L
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from callbacks.base import EveryNEpochs
from callbacks.dashboard import order_charts, save_picture
from vae_lightning.pictures.charts import COLORS, figure_pixels
from vae_lightning.pictures.grids import write_picture
from vae_lightning.runs.layout import LOSS_CURVES_PNG, METRICS_CSV, RATE_DISTORTION_PNG
from vae_lightning.runs.metrics_csv import GrowingMetrics, Row, read_metrics
from vae_lightning.training.run_module import RunModule

PANELS = {"loss": "loss", "reconstruction_nats": "reconstruction", "kl_nats": "KL"}


class LossCurves(EveryNEpochs):
    """Draws `loss_curves.png` from `metrics.csv` when training ends, also when it ends by Ctrl-C or an error.

    A model with a KL gets `rate_distortion.png` too. TensorBoard shows it before all other pictures, and orders its
    custom scalars by rate and distortion.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often rate against distortion is drawn before training ends.
    """

    name = "loss_curves"
    also_last = False  # training ends then anyway

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        self.run_dir = Path(run_dir)
        self._metrics = GrowingMetrics(self.run_dir / METRICS_CSV)
        self._means: dict[str, EpochMeans] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, RunModule)
        if trainer.is_global_zero:
            order_charts(trainer.loggers, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_due(trainer) and trainer.is_global_zero and trainer.current_epoch + 1 != trainer.max_epochs:
            self._draw_rate_distortion(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._draw(trainer)

    def _draw(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        rows = read_metrics(self.run_dir / METRICS_CSV, lambda column: column.rpartition("/")[2] in PANELS)
        if any("train/loss" in row or "val/loss" in row for row in rows):
            write_picture(self.run_dir / LOSS_CURVES_PNG, draw_loss_curves(rows))
        self._draw_rate_distortion(trainer)

    def _draw_rate_distortion(self, trainer: L.Trainer) -> None:
        is_another_file, rows = self._metrics.read()
        if is_another_file:
            self._means = {split: EpochMeans(split) for split in ("train", "val")}
        for means in self._means.values():
            means.add(rows[:-1])
        curves = {split: means.with_rows(rows[-1:]) for split, means in self._means.items()}
        if len(curves["val"]):
            path = self.run_dir / RATE_DISTORTION_PNG
            save_picture(trainer, path, "curves/rate_distortion", draw_rate_distortion(curves))


class EpochMeans:
    """Rate and distortion of each epoch: of validation, or means over the steps of training.

    Args:
        split: train or val.
    """

    def __init__(self, split: str) -> None:
        self._split = split
        self._names = (f"{split}/kl_nats", f"{split}/reconstruction_nats")
        self._sums: dict[float, Float[np.ndarray, 3]] = {}  # by epoch: number of steps, and sums over them
        self._last_step = 0.0

    def add(self, rows: Iterable[Row]) -> None:
        """Adds the next rows of `metrics.csv`."""
        for row in rows:
            if not all(name in row for name in self._names):
                continue
            point = np.array([row[name] for name in self._names])
            # steps of the window, the last of which may be short
            num_steps = row["step"] - self._last_step if self._split == "train" else 1.0
            self._last_step = row["step"]
            if np.isfinite(point).all():
                earlier = self._sums.get(row["epoch"], np.zeros(3))
                self._sums[row["epoch"]] = earlier + num_steps * np.array([1.0, *point])

    def with_rows(self, rows: Iterable[Row]) -> Float[np.ndarray, "epochs 3"]:
        """Epoch, KL and reconstruction, nats per image, as if `rows` had been added as well."""
        more = copy.copy(self)
        more._sums = dict(self._sums)
        more.add(rows)
        return np.array([(epoch, *(sums[1:] / sums[0])) for epoch, sums in more._sums.items()]).reshape(-1, 3)


def draw_rate_distortion(curves: Mapping[str, Float[np.ndarray, "_epochs 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """One curve per split, the last epoch filled; the first third of the epochs may lie outside."""
    figure = Figure(figsize=(7, 5.5), dpi=100, layout="constrained", facecolor="white")
    axis = figure.subplots()
    for color, (split, points) in zip(COLORS, curves.items(), strict=False):
        if len(points):
            axis.plot(*points.T[1:], "o-", color=color, label=split, markersize=5, markerfacecolor="white", linewidth=1)
            axis.plot(*points[-1, 1:], "o", color=color, markersize=9)
    # the first epochs are so much worse that they would flatten all the rest
    shown = {split: points[min(-(-len(points) // 3), len(points) - 1) :] for split, points in curves.items()}
    validated = shown["val"]
    for position in sorted({0, len(validated) // 2, len(validated) - 1}):
        epoch, *place = validated[position]
        axis.annotate(f"epoch {epoch:.0f}", place, xytext=(7, 5), textcoords="offset points")
    visible = np.concatenate([*shown.values()])[:, 1:]
    low, high = visible.min(0), visible.max(0)
    margins = 0.08 * (high - low) + 1e-3 * np.abs(high) + 1e-6
    axis.set(xlim=(low[0] - margins[0], high[0] + margins[0]), ylim=(low[1] - margins[1], high[1] + margins[1]))
    axis.axline(
        tuple(validated[-1, 1:]), slope=-1, color="gray", linestyle=":", zorder=0, label="same ELBO as the last epoch"
    )
    title = "Rate against distortion, epoch by epoch"
    axis.set(title=title, xlabel="rate: KL, nats per image", ylabel="distortion: reconstruction, nats per image")
    axis.grid(alpha=0.3)
    axis.legend(loc="best")
    return figure_pixels(figure)


def draw_loss_curves(rows: list[dict[str, float]]) -> UInt8[np.ndarray, "h w 3"]:
    """Training means as lines, validation as dots, over optimizer steps; nats per image."""
    figure = Figure(figsize=(13, 4), dpi=100, layout="constrained", facecolor="white")
    # a plain autoencoder has no KL to draw
    panels = {
        name: title for name, title in PANELS.items() if any(name in key for row in rows for key in row)
    } or PANELS
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, title) in zip(axes, panels.items(), strict=True):
        for split, style in (("train", "-"), ("val", "o--")):
            points = [(row["step"], row[f"{split}/{name}"]) for row in rows if f"{split}/{name}" in row]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=split, markersize=4)
        visible = [row[f"{split}/{name}"] for row in rows for split in ("train", "val") if f"{split}/{name}" in row]
        # the first steps are so much worse that they would flatten all the rest
        finite = np.asarray([value for value in visible if np.isfinite(value)])
        if len(finite) > 10:
            low, high = finite.min(), np.percentile(finite, 97)
            axis.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-6)
        axis.set(title=title, xlabel="step", ylabel="nats per image")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    return figure_pixels(figure)
