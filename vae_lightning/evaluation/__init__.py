"""How good a run is: metrics, and the card that holds them."""

from pathlib import Path

from vae_lightning.system.found import files_in

METRIC_NAMES = files_in(Path(__file__).parent / "metrics")  # --help need not import what measures them
