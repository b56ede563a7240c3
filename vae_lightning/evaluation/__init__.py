"""Evaluation of a run: the metrics, and the card with their results."""

from pathlib import Path

from vae_lightning.system.found import files_in

METRIC_NAMES = files_in(Path(__file__).parent / "metrics")  # by file name, so that --help imports no metric
