"""Lightning callbacks and a logger: pictures, curves, speed, numbers."""

from callbacks.base import EveryNEpochs
from callbacks.batch_size_finder import BatchSizeFinder
from callbacks.console import (
    EpochLines,
    ProgressBar,
    describe,
    quieten_event_writer,
    quieten_lightning,
    say_where_to_look,
    shown_progress,
)
from callbacks.continuation import Continuation, LastValidation, WholeCheckpoints
from callbacks.dashboard import event_folders, log_hyperparameters, tensorboard_command
from callbacks.ema import EMA
from callbacks.evaluation import Evaluation
from callbacks.gradient_outliers import GradientOutliers
from callbacks.image_grids import (
    ImageGrid,
    InterpolationGrid,
    LevelsGrid,
    ReconstructionGrid,
    TemperatureGrid,
    TraversalGrid,
)
from callbacks.kl_per_latent import KLPerLatent
from callbacks.loggers import Events, MetricsCsv
from callbacks.loss_curves import LossCurves
from callbacks.non_finite_loss import NonFiniteLoss, NonFiniteLossError
from callbacks.posterior_collapse import PosteriorCollapse
from callbacks.profile import Profile
from callbacks.projector import Projector
from callbacks.recognition_scores import RecognitionScores
from callbacks.selection import select_callbacks
from callbacks.stopping import LastCheckpoint, StopAfterBatch, requeue, under_submitit
from callbacks.throughput import Throughput, times_of_fit
from callbacks.training_metric import TrainingMetric

__all__ = [
    "EMA",
    "BatchSizeFinder",
    "Continuation",
    "EpochLines",
    "Evaluation",
    "Events",
    "EveryNEpochs",
    "GradientOutliers",
    "ImageGrid",
    "InterpolationGrid",
    "KLPerLatent",
    "LastCheckpoint",
    "LastValidation",
    "LevelsGrid",
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
    "TrainingMetric",
    "TraversalGrid",
    "WholeCheckpoints",
    "describe",
    "event_folders",
    "log_hyperparameters",
    "quieten_event_writer",
    "quieten_lightning",
    "requeue",
    "say_where_to_look",
    "select_callbacks",
    "shown_progress",
    "tensorboard_command",
    "times_of_fit",
    "under_submitit",
]
