"""Attribute classifiers and factor regressors: they guide edits and score them."""

from vae_lightning.recognition.network import NUM_ATTRIBUTES, TARGETS, Recognizer, ResNet18Recognizer

__all__ = ["NUM_ATTRIBUTES", "TARGETS", "Recognizer", "ResNet18Recognizer"]
