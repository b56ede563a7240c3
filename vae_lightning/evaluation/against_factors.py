"""The base of both metrics of disentanglement: against the factors of rendered faces, and against attributes."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int64

from vae_lightning.data.sources.source import Split
from vae_lightning.evaluation.factor_scores import SCORES, FactorScores
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.models.distributions import ACTIVE_VARIANCE
from vae_lightning.pictures.heat_map import draw_heat_map
from vae_lightning.runs.subject import MOST_FITTED
from vae_lightning.scores.codes import CodedImages, active_latents, chosen
from vae_lightning.scores.disentanglement import LEAST_VARIANCE
from vae_lightning.scores.result import Result, Value

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject

FEWEST_IMAGES = 100  # fewer are too few for 20 bins
FEWEST_OTHERS = 20  # images that must differ from a factor's most common value
PEOPLE_PER_JOINT_BIN = 2.5  # with fewer, mutual information by chance is no longer small

Known = tuple[tuple[str, ...], Float[np.ndarray, "rows factors"] | Bool[np.ndarray, "rows factors"]]


@dataclass(frozen=True)
class AgainstFactors(Metric):
    """Scores of the posterior means against known factors or attributes of the images.

    Forests and thresholds are fitted to training images, scores are of the chosen split's. Factors that hardly
    vary in one of the two are left out, and so are latents that hardly vary over the chosen split.

    Args:
        bins: of continuous values, for mutual information.
        votes: of FactorVAE's score; twice as many more are drawn to learn from.
        resamples: of the bootstrap.
    """

    bins: int = 20
    votes: int = 5_000
    resamples: int = 100

    is_faster_in_one_thread: ClassVar[bool] = True
    prefix: ClassVar[str]
    unknown: ClassVar[str]  # the reason where the data have nothing to measure against
    remark: ClassVar[str]

    def __post_init__(self) -> None:
        for setting, least in (("bins", 2), ("votes", 1), ("resamples", 2)):
            if getattr(self, setting) < least:
                raise EvaluationError(f"{setting}={getattr(self, setting)}: at least {least}")

    @abstractmethod
    def known(self, subject: "Subject", split: Split, at_most: int | None) -> Known | None:
        """Names and values of the factors of `subject.rows(split, at_most)`."""

    def measure(self, subject: "Subject") -> Result:
        fitted, scored = self.known(subject, "train", MOST_FITTED), self.known(subject, subject.split, None)
        if fitted is None or scored is None:
            return self._missing(self.unknown)
        codes = subject.codes("train", MOST_FITTED).numpy()
        fitting = CodedImages(codes, fitted[1], subject.people("train", MOST_FITTED))
        scoring = CodedImages(subject.codes().numpy(), scored[1], subject.people(subject.split))
        factors = np.flatnonzero(varying(fitting.factors) & varying(scoring.factors))
        has_prior = subject.model.has_prior
        latents = active_latents(scoring.codes, ACTIVE_VARIANCE if has_prior else 0.0)
        protocol = self._protocol(subject, fitting, scoring) | {
            "latents_used": len(latents),
            "latents_dropped": scoring.codes.shape[1] - len(latents),
            "least_variance_of_a_latent": ACTIVE_VARIANCE if has_prior else 0.0,
            "factors_used": [scored[0][column] for column in factors],
            "factors_dropped": [name for column, name in enumerate(scored[0]) if column not in factors],
        }
        problem = _problem(fitting, scoring, len(factors), len(latents))
        if problem:
            return replace(self._missing(problem), protocol=protocol)
        scores = FactorScores(
            chosen(fitting, factors, latents),
            chosen(scoring, factors, latents),
            chosen(scoring, factors, np.arange(scoring.codes.shape[1])),
            bins=self.bins,
            votes=self.votes,
            least_variance=LEAST_VARIANCE if has_prior else 0.0,
            resamples=self.resamples,
            seed=subject.seed_of(self.name),
        )
        return self._measured(scores, latents, protocol)

    def _measured(self, scores: FactorScores, latents: Int64[np.ndarray, " kept"], protocol: dict[str, Any]) -> Result:
        names = protocol["factors_used"]
        values = [replace(value, name=self.prefix + value.name) for value in scores.values()]
        remarks = [self.remark]
        num_people = len(np.unique(scores.scoring.people))
        if num_people < PEOPLE_PER_JOINT_BIN * self.bins**2 and not scores.scoring.is_binary:
            remarks.append(
                f"{num_people:,} people are few for {self.bins} bins: the mutual information that chance gives is "
                "subtracted on average, but its scatter remains. --split train has more."
            )
        picture = draw_heat_map(
            scores.information.shares[0],
            names,
            latents,
            "Mutual information / entropy, adjusted for chance",
        )
        return Result(
            values,
            protocol,
            remarks,
            {f"{self.prefix}factors": scores.table(names, latents.tolist())},
            {f"{self.name}_information": picture},
        )

    def _protocol(self, subject: "Subject", fitting: CodedImages, scoring: CodedImages) -> dict[str, Any]:
        return {
            "codes": f"posterior means{subject.which_latents}",
            "split": subject.split,
            "images": len(scoring.codes),
            "fitted_to": f"{len(fitting.codes)} training images",
            "dropped_if": f"fewer than {FEWEST_OTHERS} images differ from the most common value",
            "settings": self.settings(),
        }

    def _missing(self, reason: str) -> Result:
        return Result([Value.missing(self.prefix + score, reason) for score in SCORES])


def varying(
    factors: Float[np.ndarray, "images factors"] | Bool[np.ndarray, "images factors"],
) -> Bool[np.ndarray, " factors"]:
    """Which factors differ from their most common value in FEWEST_OTHERS images or more."""
    most_common = [np.unique(column, return_counts=True)[1].max(initial=0) for column in factors.T]
    return len(factors) - np.array(most_common, np.int64) >= FEWEST_OTHERS


def _problem(fitting: CodedImages, scoring: CodedImages, num_factors: int, num_latents: int) -> str:
    """The reason why no score is possible; empty where scores are possible."""
    counts = (len(fitting.codes), len(scoring.codes))
    if min(counts) < FEWEST_IMAGES:
        return f"{counts[0]} fitted and {counts[1]} scored images; at least {FEWEST_IMAGES} of each are needed"
    if not (np.isfinite(fitting.codes).all() and np.isfinite(scoring.codes).all()):
        return "the latents are not finite numbers (nan or inf)"
    if num_factors < 2:
        return f"{num_factors} factors vary in both splits; at least 2 are needed"
    if num_latents < 2:
        return f"{num_latents} latents vary over the images; at least 2 are needed"
    return ""
