"""Lightning callbacks and a logger: pictures, curves, speed, numbers."""

from callbacks.image_grid import Grid, ImageGrid
from callbacks.interpolation import InterpolationGrid
from callbacks.kl_per_latent import KLPerLatent
from callbacks.loss_curves import LossCurves
from callbacks.metrics_csv import MetricsCsv
from callbacks.reconstruction import ReconstructionGrid
from callbacks.temperature import TemperatureGrid
from callbacks.throughput import Throughput
from callbacks.traversal import TraversalGrid

__all__ = [
    "Grid",
    "ImageGrid",
    "InterpolationGrid",
    "KLPerLatent",
    "LossCurves",
    "MetricsCsv",
    "ReconstructionGrid",
    "TemperatureGrid",
    "Throughput",
    "TraversalGrid",
]
