"""What is asked of an evaluation, checked before anything is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vae_lightning.data.sources.source import SPLITS, Split
from vae_lightning.evaluation.measured import EvaluationError, Metric
from vae_lightning.evaluation.metrics.factors import AttributeDisentanglement, Disentanglement
from vae_lightning.evaluation.metrics.fidelity import FEWEST_IMAGES, Fidelity
from vae_lightning.evaluation.metrics.importance_sampling import ImportanceWeighted
from vae_lightning.evaluation.metrics.latents import LatentSpace
from vae_lightning.evaluation.metrics.likelihood import Likelihood
from vae_lightning.evaluation.metrics.probes import Probes
from vae_lightning.evaluation.metrics.reconstructions import Reconstructions
from vae_lightning.evaluation.metrics.samplers import Samplers
from vae_lightning.evaluation.metrics.showcase import Showcase
from vae_lightning.system.names import did_you_mean

# In the order of the card. A new metric needs a class and a line here.
METRICS: dict[str, Callable[["Request"], Metric]] = {
    Likelihood.name: lambda request: Likelihood(),
    ImportanceWeighted.name: lambda request: ImportanceWeighted(request.importance_samples),
    Reconstructions.name: lambda request: Reconstructions(request.weights),
    LatentSpace.name: lambda request: LatentSpace(),
    Disentanglement.name: lambda request: Disentanglement(),
    AttributeDisentanglement.name: lambda request: AttributeDisentanglement(),
    Probes.name: lambda request: Probes(),
    Samplers.name: lambda request: Samplers(),
    Showcase.name: lambda request: Showcase(),
    Fidelity.name: lambda request: Fidelity(
        num_samples=request.samples, reference=cast(Split | None, request.reference), weights=request.weights
    ),
}


@dataclass(frozen=True)
class Request:
    """The arguments of `vae evaluate`, and of the callback.

    Args:
        split: which images are evaluated; the training split fits what has to be fitted.
        metrics: names out of METRICS; empty takes all.
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
                raise EvaluationError(f"{name}={value}: allowed are {', '.join(SPLITS)}")
        for metric in self.metrics:
            if metric not in METRICS:
                raise EvaluationError(
                    f"metrics={metric}{did_you_mean(metric, METRICS)}: allowed are {', '.join(METRICS)}"
                )
        if self.weights is not None and not Path(self.weights).expanduser().exists():
            raise EvaluationError(f"weights={self.weights}: there is no such file or folder")
        if self.samples < FEWEST_IMAGES:
            raise EvaluationError(
                f"samples={self.samples}: at least {FEWEST_IMAGES}; published figures use 10,000 and more"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise EvaluationError(f"batch_size={self.batch_size}: at least 1 image at once")
        if self.seed < 0:
            raise EvaluationError(f"seed={self.seed}: 0 or more")
        self.build()  # refuses what single metrics cannot do

    def build(self) -> list[Metric]:
        """The metrics, in the order of the card."""
        return [make(self) for name, make in METRICS.items() if not self.metrics or name in self.metrics]
