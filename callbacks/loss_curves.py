"""Total loss, reconstruction and KL over training, as one picture."""

from pathlib import Path

import lightning as L
import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from callbacks.metrics_csv import MetricsCsv
from vae_lightning.charts import figure_pixels
from vae_lightning.metrics_csv import read_metrics
from vae_lightning.pictures import write_picture

PANELS = {"loss": "loss", "reconstruction_nats": "reconstruction", "kl_nats": "KL"}


class LossCurves(L.Callback):
    """Writes `loss_curves.png` from `metrics.csv` when training ends, also when it ends by Ctrl-C or an error.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = Path(run_dir)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and not any(isinstance(logger, MetricsCsv) for logger in trainer.loggers):
            raise ValueError("callbacks=[loss_curves] draws metrics.csv: add csv to logger=[…], or leave it out")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._draw()

    @rank_zero_only
    def _draw(self) -> None:
        rows = read_metrics(self.run_dir / "metrics.csv")
        if any("train/loss" in row or "val/loss" in row for row in rows):
            write_picture(self.run_dir / "loss_curves.png", draw_loss_curves(rows))


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
