"""All scores of disentanglement of one set of coded images, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.disentanglement import GROUP, factorvae_score, gaps, mig, modularity, separability
from vae_lightning.scores.information import (
    Information,
    adjust_for_chance,
    discretise,
    measure_information,
    shuffled_information,
)
from vae_lightning.scores.predictors import (
    Importances,
    Predictor,
    completeness,
    disentanglement,
    fit_predictors,
    informativeness,
)
from vae_lightning.scores.resampling import bootstrap_interval, image_weights, spread_interval
from vae_lightning.scores.result import Row, Value

ABOVE_CHANCE = 2.0  # a latent is informative with twice the information that any latent has on shuffled factors
MOST_REFITS = 30  # of the predictors of DCI, for the spread of their scores
SCORES = (
    "mig",
    "sap",
    "dci_disentanglement",
    "dci_completeness",
    "dci_informativeness",
    "factorvae_score",
    "modularity",
)


@dataclass(frozen=True)
class FactorScores:
    """Scores of codes with two or more latents that vary, against two or more factors that vary in both sets."""

    fitting: CodedImages
    scoring: CodedImages
    bins: int
    predictor: Predictor
    votes: int
    least_variance: float  # of a latent that FactorVAE's score may vote for
    resamples: int
    seed: int

    @cached_property
    def weights(self) -> Float[np.ndarray, "weightings images"]:
        return image_weights(self.scoring.people, self.resamples, self.seed)

    @cached_property
    def code_bins(self) -> Int64[np.ndarray, "images latents"]:
        return discretise(self.scoring.codes, self.bins)

    @cached_property
    def factor_bins(self) -> Int64[np.ndarray, "images factors"]:
        return discretise(self.scoring.factors, self.bins)

    @cached_property
    def shuffled(self) -> Float[np.ndarray, "shuffles factors latents"]:
        return shuffled_information(self.code_bins, self.factor_bins, self.scoring.people, self.seed)

    @cached_property
    def information(self) -> Information:
        counted = measure_information(self.code_bins, self.factor_bins, self.weights)
        return adjust_for_chance(counted, self.shuffled.mean(0))

    @cached_property
    def separability(self) -> Float[np.ndarray, "weightings factors latents"]:
        return separability(self.fitting, self.scoring, self.weights)

    @cached_property
    def importances(self) -> Importances:
        refits = image_weights(self.fitting.people, min(self.resamples, MOST_REFITS), self.seed)
        return fit_predictors(self.predictor, self.fitting, self.scoring, refits, self.seed)

    @cached_property
    def informativeness(self) -> Float[np.ndarray, "weightings factors"]:
        return informativeness(self.importances.predicted, self.scoring, self.fitting, self.weights)

    def values(self) -> list[Value]:
        num_people = len(np.unique(self.scoring.people))
        images = f"posterior means of {len(self.scoring.codes):,} images of {num_people:,} people"
        spread = f"interval: {self.resamples} bootstrap resamples of the people"
        labels = "balanced accuracy of one threshold, at most 0.5" if self.scoring.is_binary else "R^2 of one latent"
        return [
            _value("mig", mig(self.information), f"{images}; {self.bins} bins, adjusted for chance; {spread}"),
            _value("sap", gaps(self.separability).mean(1), f"{images}; {labels}; {spread}"),
            *self._dci(images, spread),
            self._factorvae(images),
            self._modularity(images, spread),
        ]

    def table(self, names: Sequence[str], latents: Sequence[int]) -> list[Row]:
        """One row per factor; shares are I / H."""
        shares, sap = self.information.shares[0], gaps(self.separability)[0]
        complete = completeness(self.importances.importance)[0]
        rows: list[Row] = []
        for row, name in enumerate(names):
            best, second = np.argsort(-shares[row], kind="stable")[:2]
            rows.append(
                {
                    "factor": name,
                    "entropy_nats": float(self.information.entropy_nats[0, row]),
                    "latent": int(latents[best]),
                    "share": float(shares[row, best]),
                    "second_latent": int(latents[second]),
                    "second_share": float(shares[row, second]),
                    "gap": float(shares[row, best] - shares[row, second]),
                    "sap": float(sap[row]),
                    "completeness": float(complete[row]),
                    "informativeness": float(self.informativeness[0, row]),
                }
            )
        return rows

    def _dci(self, images: str, spread: str) -> list[Value]:
        importance = self.importances.importance
        fitted = f"{self.predictor} fitted to {len(self.fitting.codes):,} training images"
        refits = f"interval: {len(importance) - 1} refits to bootstrap resamples of them, penalties kept"
        note = f"{fitted}; {refits if len(importance) > 1 else 'no interval: a refit takes too long'}"
        measure = "2 AUC - 1" if self.scoring.is_binary else "R^2"
        informative = self.informativeness.mean(1)
        return [
            _value("dci_disentanglement", disentanglement(importance), note),
            _value("dci_completeness", completeness(importance).mean(1), note),
            _value("dci_informativeness", informative, f"{measure}, 0 is chance; {fitted}; {images}; {spread}"),
        ]

    def _factorvae(self, images: str) -> Value:
        found = factorvae_score(self.scoring, self.votes, self.seed, self.least_variance)
        if found is None:
            return Value.missing("factorvae_score", f"no latent's variance is above {self.least_variance:g}")
        right = found.is_right.astype(np.float64)
        note = (
            f"chance {found.chance:.3f}; {images}; {self.votes:,} fresh votes of {GROUP} images each for one of "
            f"{found.num_latents} latents; interval: bootstrap over votes"
        )
        return Value("factorvae_score", float(right.mean()), note, bootstrap_interval(right, self.seed), "higher")

    def _modularity(self, images: str, spread: str) -> Value:
        least = ABOVE_CHANCE * float((self.shuffled - self.shuffled.mean(0)).max())
        scores = modularity(self.information, least)
        if scores is None:
            return Value.missing(
                "modularity", f"no latent has twice the information that any has on shuffled factors ({least:.3f} nats)"
            )
        telling = int((self.information.mutual_nats[0].max(0) > least).sum())
        note = f"{telling} latents with {least:.3f} nats above chance, twice the most with shuffled factors; "
        return _value("modularity", scores, f"{note}{images}; {spread}")


def _value(name: str, scores: Float[np.ndarray, " weightings"], note: str) -> Value:
    """The first score, with the spread of the others."""
    estimate = float(scores[0])
    interval = spread_interval(estimate, scores[1:], 0.0, 1.0) if len(scores) > 2 else None
    return Value(name, estimate, note, interval, "higher")
