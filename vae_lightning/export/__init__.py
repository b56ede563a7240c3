"""Exports a run as a folder for others: weights, settings, a card, and on request ONNX files and a browser page."""

from vae_lightning.export.folder import Exported, export_run

__all__ = ["Exported", "export_run"]
