"""Lightning callbacks and a logger: pictures, curves, speed, numbers."""

from callbacks.announcement import describe, say_where_to_look
from callbacks.batch_size_finder import BatchSizeFinder
from callbacks.checkpoint_files import WholeCheckpoints
from callbacks.console import ProgressBar, quieten_event_writer, quieten_lightning
from callbacks.continuation import Continuation
from callbacks.dashboard import event_folders, log_hyperparameters, tensorboard_command
from callbacks.ema import EMA
from callbacks.evaluation import Evaluation
from callbacks.events import Events
from callbacks.image_grid import ImageGrid
from callbacks.interpolation import InterpolationGrid
from callbacks.kl_per_latent import KLPerLatent
from callbacks.last_validation import LastValidation
from callbacks.loss_curves import LossCurves
from callbacks.metrics_csv import MetricsCsv
from callbacks.non_finite_loss import NonFiniteLoss, NonFiniteLossError
from callbacks.posterior_collapse import PosteriorCollapse
from callbacks.profile import Profile
from callbacks.projector import Projector
from callbacks.recognition_scores import RecognitionScores
from callbacks.reconstruction import ReconstructionGrid
from callbacks.selection import select_callbacks
from callbacks.slurm import queue_again, under_submitit
from callbacks.stop_after_batch import LastCheckpoint, StopAfterBatch
from callbacks.temperature import TemperatureGrid
from callbacks.throughput import Throughput, times_of_fit
from callbacks.traversal import TraversalGrid

__all__ = [
    "EMA",
    "BatchSizeFinder",
    "Continuation",
    "Evaluation",
    "Events",
    "ImageGrid",
    "InterpolationGrid",
    "KLPerLatent",
    "LastCheckpoint",
    "LastValidation",
    "LossCurves",
    "MetricsCsv",
    "NonFiniteLoss",
    "NonFiniteLossError",
    "PosteriorCollapse",
    "Profile",
    "ProgressBar",
    "Projector",
    "RecognitionScores",
    "ReconstructionGrid",
    "StopAfterBatch",
    "TemperatureGrid",
    "Throughput",
    "TraversalGrid",
    "WholeCheckpoints",
    "describe",
    "event_folders",
    "log_hyperparameters",
    "queue_again",
    "quieten_event_writer",
    "quieten_lightning",
    "say_where_to_look",
    "select_callbacks",
    "tensorboard_command",
    "times_of_fit",
    "under_submitit",
]
