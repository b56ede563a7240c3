"""The arguments of an evaluation, checked before anything is read."""

from dataclasses import dataclass, fields
from pathlib import Path

from vae_lightning.data.sources.source import SPLITS
from vae_lightning.evaluation import METRIC_NAMES
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.system.found import classes_in
from vae_lightning.system.names import not_allowed


@dataclass(frozen=True)
class Request:
    """The arguments of `vae evaluate`, and of the callback.

    Args:
        split: which images are evaluated; the training split fits what has to be fitted.
        metrics: out of METRIC_NAMES; empty takes all.
        levels: the coarsest levels of a hierarchical model, which priors, probes and scores of disentanglement take;
            empty takes as many as have at most 1,024 latents. `Subject` checks them.
        samples: drawn from each prior for FID, KID, precision and recall.
        importance_samples: latents per image for the importance-weighted bound.
        reference: split that samples are compared with; None = the evaluated one.
        weights: folder or file of feature networks' weights; None looks in PyTorch's cache.
        device: "auto" takes the accelerator where there is one.
        seed: of all noise, resampling and fitting.
        batch_size: images at once; None fits the image size.

    Raises:
        EvaluationError: an argument is not allowed.
    """

    split: str = "test"
    metrics: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    samples: int = 10_000
    importance_samples: int = 64
    reference: str | None = None
    weights: str | None = None
    device: str = "auto"
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("split", self.split), ("reference", self.reference)):
            if value not in (*SPLITS, *([None] if name == "reference" else [])):
                raise EvaluationError(not_allowed(name, value, SPLITS))
        for metric in self.metrics:
            if metric not in METRIC_NAMES:
                raise EvaluationError(not_allowed("metrics", metric, METRIC_NAMES))
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            raise EvaluationError(f"weights={self.weights}: there is no such file or folder")
        if self.batch_size is not None and self.batch_size < 1:
            raise EvaluationError(f"batch_size={self.batch_size}: at least 1 image at once")
        if self.seed < 0:
            raise EvaluationError(f"seed={self.seed}: 0 or more")
        self.build()  # the metrics refuse what they cannot do

    def build(self) -> list[Metric]:
        """The metrics, in the order of the card."""
        names = self.metrics or METRIC_NAMES
        metrics = classes_in("vae_lightning.evaluation.metrics", names, Metric)
        return [self._construct(metric) for metric in sorted(metrics, key=lambda metric: metric.place)]

    def _construct(self, metric: type[Metric]) -> Metric:
        settings = {field.name for field in fields(metric)} & {field.name for field in fields(self)}  # type: ignore[arg-type]
        return metric(**{name: getattr(self, name) for name in settings})
