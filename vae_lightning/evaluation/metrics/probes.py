"""How well attributes can be predicted linearly from the latents: one linear probe per attribute."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.runs.subject import MOST_FITTED
from vae_lightning.scores.attribute_scores import AttributeScores, draw_bars, has_both_classes, score_attributes
from vae_lightning.scores.codes import CodedImages, chosen
from vae_lightning.scores.resampling import bootstrap_interval, image_weights, percentile_interval
from vae_lightning.scores.result import Result, Value

if TYPE_CHECKING:
    from vae_lightning.runs.subject import Subject

MOST_STEPS = 1_000  # of L-BFGS; some 20 are usual
VALUES = ("probe_mean_accuracy", "probe_mean_balanced_accuracy", "probe_mean_auc")


@dataclass(frozen=True)
class ProbeScores:
    """Scores of the probes on the scoring images."""

    scores: AttributeScores
    not_converged: tuple[int, ...]  # attributes

    def values(self, seed: int, note: str) -> list[Value]:
        right = self.scores.is_right.mean(1, dtype=np.float64)
        majority = np.maximum(self.scores.shares, 1 - self.scores.shares).mean()
        accuracy, balanced, auc = VALUES
        return [
            Value(
                accuracy,
                float(right.mean()),
                f"always the more frequent class: {majority:.4f}; {note}",
                bootstrap_interval(right, seed),
                "higher",
            ),
            _mean_value(balanced, self.scores.balanced_accuracy, f"chance 0.5; probes are not reweighted; {note}"),
            _mean_value(auc, self.scores.auc, f"chance 0.5; {note}"),
        ]


@dataclass(frozen=True)
class Probes(Metric):
    """Logistic regression from standardised posterior means, fitted to training images, scored on the chosen split's.

    Classes are not reweighted: for a rare attribute the most likely class is nearly always "no", so that accuracy is
    near the majority's and balanced accuracy near 0.5. AUC needs no threshold.

    Args:
        resamples: of the bootstrap over scoring images.
        inverse_penalty: scikit-learn's C.
    """

    resamples: int = 200
    inverse_penalty: float = 1.0

    title: ClassVar[str] = "Linear probes of the attributes"
    place: ClassVar[int] = 70
    is_faster_in_one_thread: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.resamples < 2:
            raise EvaluationError(f"resamples={self.resamples}: at least 2")
        if not self.inverse_penalty > 0:
            raise EvaluationError(f"inverse_penalty={self.inverse_penalty}: must be above 0")

    def measure(self, subject: "Subject") -> Result:
        fitted, scored = subject.attributes("train", MOST_FITTED), subject.attributes(subject.split)
        if fitted is None or scored is None:
            return _missing("the data have no attributes; CelebA and rendered faces do: data=celeba, data=faces")
        codes = subject.codes("train", MOST_FITTED).numpy()
        fitting = CodedImages(codes, fitted, subject.people("train", MOST_FITTED))
        scoring = CodedImages(subject.codes().numpy(), scored, subject.people(subject.split))
        if not (np.isfinite(fitting.codes).all() and np.isfinite(scoring.codes).all()):
            return _missing("the latents are not finite numbers (nan or inf)")
        columns = np.flatnonzero(has_both_classes(fitted) & has_both_classes(scored))
        names = [subject.data.attribute_names[column] for column in columns]
        left_out = [name for name in subject.data.attribute_names if name not in names]
        protocol: dict[str, Any] = {
            "codes": f"posterior means{subject.which_latents}, standardised",
            "split": subject.split,
            "images": len(scored),
            "fitted_to": f"{len(fitted)} training images",
            "not_measured": left_out,
            "settings": self.settings(),
        }
        if not names:
            return _missing(
                "no attribute has positives and negatives in both the training and the chosen split", protocol
            )
        latents = np.arange(scoring.codes.shape[1])
        seed = subject.seed_of(self.name)
        scores = self.score(chosen(fitting, columns, latents), chosen(scoring, columns, latents), seed)
        note = f"mean of {len(names)} attributes; {len(scored):,} images; interval: bootstrap over images"
        table = scores.scores.table(names)
        return Result(
            scores.values(seed, note),
            protocol | {"not_converged": [names[column] for column in scores.not_converged]},
            _remarks(names, left_out, scores),
            {"attributes": table},
            {"probes": draw_bars(table)},
        )

    def score(self, fitting: CodedImages, scoring: CodedImages, seed: int) -> ProbeScores:
        """Both sets of images need binary factors, each with both classes."""
        codes, new_codes = fitting.standardised_codes(fitting), scoring.standardised_codes(fitting)
        log_odds, not_converged = [], []
        for column in range(scoring.factors.shape[1]):
            probe = LogisticRegression(C=self.inverse_penalty, max_iter=MOST_STEPS)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                probe.fit(codes, fitting.factors[:, column])
            if caught:
                not_converged.append(column)
            log_odds.append(probe.decision_function(new_codes))
        weights = image_weights(scoring.people, self.resamples, seed)
        return ProbeScores(score_attributes(np.stack(log_odds, axis=1), scoring.factors, weights), tuple(not_converged))


def _mean_value(name: str, scores: Float[np.ndarray, "weightings attributes"], note: str) -> Value:
    """The mean over attributes; a resample without one class of an attribute has no score of it and leaves it out."""
    kept = scores[~np.isnan(scores).all(1)]
    return Value(name, float(scores[0].mean()), note, percentile_interval(np.nanmean(kept[1:], axis=1)), "higher")


def _remarks(names: Sequence[str], not_measured: Sequence[str], scores: ProbeScores) -> list[str]:
    remarks = []
    if not_measured:
        total = len(names) + len(not_measured)
        remarks.append(
            f"{len(not_measured)} of {total} attributes have one class only in one of the splits: not measured."
        )
    if scores.not_converged:
        stopped = ", ".join(names[column] for column in scores.not_converged)
        remarks.append(f"Probes stopped after {MOST_STEPS:,} steps before they had converged: {stopped}.")
    return remarks


def _missing(reason: str, protocol: dict[str, Any] | None = None) -> Result:
    return Result([Value.missing(name, reason) for name in VALUES], protocol or {})
