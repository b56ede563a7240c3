"""A run -> a folder that can be shipped: weights, what builds the model, a card, and ONNX files for other runtimes."""

from vae_lightning.export.folder import Exported, export_run

__all__ = ["Exported", "ValueError", "export_run"]
