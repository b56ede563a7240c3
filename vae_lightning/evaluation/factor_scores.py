"""All scores of disentanglement of one set of coded images, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from vae_lightning.scores.codes import CodedImages
from vae_lightning.scores.disentanglement import (
    GROUP,
    Votes,
    factorvae_chance,
    factorvae_score,
    gaps,
    mig,
    modularity,
    separability,
)
from vae_lightning.scores.information import (
    Information,
    adjust_for_chance,
    discretise,
    equal_widths,
    measure_information,
    shuffled_information,
)
from vae_lightning.scores.predictors import Importances, completeness, disentanglement, fit_forest, informativeness
from vae_lightning.scores.resampling import bootstrap_interval, image_weights, jackknife_interval, spread_interval
from vae_lightning.scores.result import Row, Value

FEW_RESAMPLES = 30  # of the people, at most, where only their spread is wanted
AS_PUBLISHED = "as disentanglement_lib computes it, for comparison with published numbers"
SCORES = (
    "mig",
    "mig_literature",
    "sap",
    "dci_disentanglement",
    "dci_completeness",
    "dci_informativeness",
    "factorvae_score",
    "factorvae_score_literature",
    "modularity",
    "modularity_literature",
)


@dataclass(frozen=True)
class FactorScores:
    """Scores of codes with two or more latents that vary, against two or more factors that vary in both sets."""

    fitting: CodedImages
    scoring: CodedImages
    whole: CodedImages  # the scoring images with all latents, of which the literature's code leaves out none
    bins: int
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
    def literature_information(self) -> Information:
        """From bins of equal width, of all latents, without any correction."""
        code_bins, factor_bins = equal_widths(self.whole.codes, self.bins), equal_widths(self.whole.factors, self.bins)
        return measure_information(code_bins, factor_bins, self.weights[: 1 + FEW_RESAMPLES], is_corrected=False)

    @cached_property
    def separability(self) -> Float[np.ndarray, "weightings factors latents"]:
        return separability(self.fitting, self.scoring, self.weights)

    @cached_property
    def importances(self) -> Importances:
        return fit_forest(self.fitting, self.scoring, self.seed)

    @cached_property
    def informativeness(self) -> Float[np.ndarray, "weightings factors"]:
        return informativeness(self.importances.predicted, self.scoring, self.weights)

    def values(self) -> list[Value]:
        num_people = len(np.unique(self.scoring.people))
        images = f"posterior means of {len(self.scoring.codes):,} images of {num_people:,} people"
        spread = f"interval: {self.resamples} bootstrap resamples of the people"
        labels = "balanced accuracy of one threshold, at most 0.5" if self.scoring.is_binary else "R^2 of one latent"
        return [
            _value("mig", mig(self.information), f"{images}; {self.bins} bins, adjusted for chance; {spread}"),
            self._literature("mig", mig(self.literature_information)),
            _value("sap", gaps(self.separability).mean(1), f"{images}; {labels}; {spread}"),
            *self._dci(images, spread),
            *self._factorvae(images),
            self._modularity(images),
            self._literature("modularity", modularity(self.literature_information.mutual_nats)),
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

    def _literature(self, name: str, scores: Float[np.ndarray, " weightings"]) -> Value:
        note = (
            f"{AS_PUBLISHED}: {self.bins} bins of equal width, all {self.whole.codes.shape[1]} latents, no correction; "
            f"interval: {len(scores) - 1} bootstrap resamples of the people"
        )
        return _value(f"{name}_literature", scores, note)

    def _dci(self, images: str, spread: str) -> list[Value]:
        importance = self.importances.importance
        trees = max(1, len(importance) - 1)
        fitted = f"forests of {trees} trees fitted to {len(self.fitting.codes):,} training images"
        is_of_many = len(importance) > 2
        jackknife = "interval: jackknife over trees, each of other people" if is_of_many else "no interval: few people"
        measure = "2 AUC - 1" if self.scoring.is_binary else "R^2"
        informative = self.informativeness.mean(1)
        return [
            _jackknifed("dci_disentanglement", disentanglement(importance), f"{fitted}; {jackknife}"),
            _jackknifed("dci_completeness", completeness(importance).mean(1), f"{fitted}; {jackknife}"),
            _value("dci_informativeness", informative, f"{measure}, 0 is chance; {fitted}; {images}; {spread}"),
        ]

    def _factorvae(self, images: str) -> list[Value]:
        """The score adjusted for chance, and as it is published."""
        drawn = f"{images}; {self.votes:,} fresh votes of {GROUP} images each; interval: bootstrap over votes"
        published = factorvae_score(self.whole, self.votes, self.seed, 0.0)
        assert published is not None, "latents that vary are among them"
        literature = _voted(
            "factorvae_score_literature", published, 0.0, f"{AS_PUBLISHED}: all latents that vary; {drawn}", self.seed
        )
        found = factorvae_score(self.scoring, self.votes, self.seed, self.least_variance)
        if found is None:
            reason = f"no latent's variance is above {self.least_variance:g}"
            return [Value.missing("factorvae_score", reason), literature]
        chance = factorvae_chance(self.scoring, self.votes, self.seed, self.least_variance)
        note = (
            f"0 is chance (accuracy {chance:.3f} with shuffled factors, {found.accuracy:.3f} with the true ones); "
            f"votes for {found.num_latents} latents; {drawn}"
        )
        return [_voted("factorvae_score", found, chance, note, self.seed), literature]

    def _modularity(self, images: str) -> Value:
        few = self.weights[: 1 + FEW_RESAMPLES]
        counted = measure_information(self.code_bins, self.factor_bins, few, is_corrected=False).mutual_nats
        shuffled = shuffled_information(
            self.code_bins, self.factor_bins, self.scoring.people, self.seed, is_corrected=False
        )
        scores, chance = modularity(counted), float(modularity(shuffled).mean())
        note = (
            f"0 is chance ({chance:.3f} with shuffled factors, {scores[0]:.3f} with the true ones); {counted.shape[2]} "
            f"latents; {images}; {self.bins} bins; interval: {len(few) - 1} bootstrap resamples of the people"
        )
        return _value("modularity", np.maximum(0.0, (scores - chance) / (1 - chance)), note)


def _value(name: str, scores: Float[np.ndarray, " weightings"], note: str) -> Value:
    """The first score, with the spread of the others."""
    estimate = float(scores[0])
    interval = spread_interval(estimate, scores[1:], 0.0, 1.0) if len(scores) > 2 else None
    return Value(name, estimate, note, interval, "higher")


def _jackknifed(name: str, scores: Float[np.ndarray, " forests"], note: str) -> Value:
    """The first score; the others are those without one tree each."""
    estimate = float(scores[0])
    interval = jackknife_interval(estimate, scores[1:], 0.0, 1.0) if len(scores) > 2 else None
    return Value(name, estimate, note, interval, "higher")


def _voted(name: str, votes: Votes, chance: float, note: str, seed: int) -> Value:
    """(accuracy - chance) / (1 - chance), not below 0."""
    adjusted = (votes.is_right.astype(np.float64) - chance) / (1 - chance)
    low, high = bootstrap_interval(adjusted, seed)
    return Value(name, max(0.0, float(adjusted.mean())), note, (max(0.0, low), max(0.0, high)), "higher")
