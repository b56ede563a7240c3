"""How near reconstructions and samples come to real images as sets: FID, KID, precision and recall of features."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity import metric_fid, metric_kid, metric_prc
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from vae_lightning.data.sources.source import SPLITS, Split
from vae_lightning.evaluation.feature_networks import (
    INCEPTION,
    INCEPTION_LAYER,
    Pixels,
    Weights,
    WeightsMissing,
    examine_weights,
    extract_features,
    load_inception,
    weights_digest,
)
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.evaluation.metrics.reconstructions import UNIT_RANGE, decode_checked
from vae_lightning.evaluation.metrics.samplers import fitted_priors
from vae_lightning.models.pixels import to_uint8
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Value
from vae_lightning.system.names import not_allowed

FEWEST_IMAGES = 16
KID_SUBSETS = 100
NEIGHBOURS = 3
DISTANCES_AT_ONCE = 2_000  # rows of the matrix of distances between features

Features = Float[Tensor, "images features"]  # float64 on the CPU


@dataclass(frozen=True)
class Fidelity(Metric):
    """Compares features of FID's Inception; the reference of reconstructions are the split's own images."""

    title: ClassVar[str] = "Fidelity"
    place: ClassVar[int] = 1000  # last: without a GPU it takes longer than all the others

    samples: int = 10_000  # of each prior
    priors: tuple[str, ...] = ("normal", "gaussian", "gmm", "flow")
    reference: Split | None = None  # what samples are compared with; None = the split that is evaluated
    weights: str | None = None  # folder or file of Inception's; None = torch.hub's cache alone
    kid_subset_size: int = 1000

    def __post_init__(self) -> None:
        if self.samples < FEWEST_IMAGES:
            raise EvaluationError(
                f"samples={self.samples}: at least {FEWEST_IMAGES}; published figures use 10,000 and more"
            )
        if self.kid_subset_size < 2:
            raise EvaluationError(f"kid_subset_size={self.kid_subset_size}: at least 2, and 1000 are usual")
        if self.reference not in (*SPLITS, None):
            raise EvaluationError(not_allowed("reference", self.reference, SPLITS))

    def settings(self) -> dict[str, Any]:
        """The weights count by their hash, not by their path."""
        settings = asdict(self) | {"weights_sha256": weights_digest(INCEPTION, self.weights)}
        del settings["weights"]
        return settings

    def measure(self, subject: Subject) -> Result:
        reference = self.reference or subject.split
        self._check(subject, reference)
        try:
            weights = examine_weights(INCEPTION, self.weights)
        except WeightsMissing as error:
            names = ["fid_reconstructions", *(name for prior in self.priors for name in names_of(prior))]
            return Result([Value.missing(name, str(error)) for name in names], {"weights": "missing"})
        network = load_inception(weights.file, subject.device)
        samplers, problems = fitted_priors(subject, self.priors)
        real = features_of_split(network, subject, reference)
        values = [_reconstructions(network, subject, real if reference == subject.split else None, weights)]
        for name in self.priors:
            if name in problems:
                values += [Value.missing(each, problems[name]) for each in names_of(name)]
                continue
            # every prior gets the same random numbers
            generator = torch.Generator().manual_seed(subject.seed_of("fidelity samples"))
            latents = samplers[name].sample(self.samples, generator)
            made = features_of_latents(network, subject, latents, f"Features of samples, {name}")
            found = compare_features(
                real, made, kid_subset_size=self.kid_subset_size, seed=subject.seed_of("kid subsets")
            )
            values += self._values(name, found, reference, len(real), weights.warning())
        return Result(values, self._protocol(subject, reference, len(real), weights), _verdicts(values, list(samplers)))

    def _check(self, subject: Subject, reference: Split) -> None:
        count = len(subject.rows(reference))
        if count < FEWEST_IMAGES:
            raise EvaluationError(
                f"the {reference} split has {count} images, and fidelity needs {FEWEST_IMAGES} at least: "
                "compare with another split (reference=train), or evaluate on more images"
            )

    def _subset_size(self, num_real: int) -> int:
        return min(self.kid_subset_size, self.samples, num_real)

    def _values(
        self, prior: str, found: dict[str, float], reference: Split, num_real: int, warning: str
    ) -> list[Value]:
        counts = f"{self.samples:,} samples against {num_real:,} {reference} images"
        subset = self._subset_size(num_real)
        fewer = f" (asked for {self.kid_subset_size:,}, there are no more)" if subset < self.kid_subset_size else ""
        spread = f"{KID_SUBSETS} subsets of {subset:,}{fewer}, standard deviation {found['kid_std']:.1g}"
        neighbours = f"{counts}; {NEIGHBOURS} neighbours; compare only with equal counts{warning}"
        fid, kid, precision, recall = names_of(prior)
        return [
            Value(fid, found["fid"], f"{counts}{_bias(min(self.samples, num_real))}{warning}", None, "lower"),
            Value(kid, found["kid"], f"{counts}; {spread}{warning}", None, "lower"),
            Value(precision, found["precision"], f"samples that lie among real images; {neighbours}", None, "higher"),
            Value(recall, found["recall"], f"real images that lie among samples; {neighbours}", None, "higher"),
        ]

    def _protocol(self, subject: Subject, reference: Split, num_real: int, weights: Weights) -> dict[str, Any]:
        record = subject.data.record()
        return {
            "weights": weights.protocol(),
            "features": f"Inception of FID, layer {INCEPTION_LAYER}, by torch-fidelity",
            "images": f"uint8, gray as three equal channels, {subject.model.image_size} pixels a side, resized to 299 "
            "with torch-fidelity's TensorFlow-compatible bilinear filter",
            **{name: record[name] for name in ("crop", "image_size", "color")},
            "reference": reference,
            "reference_images": num_real,
            "samples": self.samples,
            **({} if subject.model.is_flat else {"fitted_priors": f"fitted to the latents{subject.which_latents}"}),
            "reconstructions": len(subject.rows(subject.split)),
            "kid_subsets": KID_SUBSETS,
            "kid_subset_size": self._subset_size(num_real),
            "kid_subset_size_asked_for": self.kid_subset_size,
            "precision_recall_neighbours": NEIGHBOURS,
        }


def names_of(prior: str) -> list[str]:
    return [f"{measure}_{prior}" for measure in ("fid", "kid", "precision", "recall")]


def features_of_split(network: FeatureExtractorInceptionV3, subject: Subject, split: Split) -> Features:
    rows = subject.rows(split)
    return extract_features(
        network, subject, len(rows), lambda part: subject.pixels(split, rows[part]), f"Features of {split} images"
    )


def features_of_latents(
    network: FeatureExtractorInceptionV3, subject: Subject, latents: Float[Tensor, "samples latent"], description: str
) -> Features:
    """Features of the decoded images, rounded to 256 levels as picture files are."""

    def decode(part: slice) -> Pixels:
        return to_uint8(decode_checked(subject, latents[part]), UNIT_RANGE)

    return extract_features(network, subject, len(latents), decode, description)


def compare_features(
    reference: Features, features: Float[Tensor, "made features"], *, kid_subset_size: int, seed: int
) -> dict[str, float]:
    """`fid`, `kid` and its `kid_std` over subsets, `precision` and `recall`.

    Source: Bińkowski et al. 2018 (KID, section 4, arXiv:1801.01401); Kynkäänniemi et al. 2019 (precision and recall,
    section 2, arXiv:1904.06991).
    """
    kid = metric_kid.kid_features_to_metric(
        features,
        reference,
        kid_subsets=KID_SUBSETS,
        kid_subset_size=min(kid_subset_size, len(reference), len(features)),
        rng_seed=seed,
        verbose=False,
    )
    neighbours = metric_prc.prc_features_to_metric(  # made first, real second
        features,
        reference,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=DISTANCES_AT_ONCE,
        save_cpu_ram=True,
        verbose=False,
    )
    return {
        "fid": frechet_distance(reference, features),
        "kid": kid[metric_kid.KEY_METRIC_KID_MEAN],
        "kid_std": kid[metric_kid.KEY_METRIC_KID_STD],
        "precision": neighbours[metric_prc.KEY_METRIC_PRECISION],
        "recall": neighbours[metric_prc.KEY_METRIC_RECALL],
    }


def frechet_distance(reference: Features, features: Float[Tensor, "made features"]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of means and covariances.

    Source: Heusel et al. 2017, section 2 (equation 6), arXiv:1706.08500.
    """
    count, dims = len(reference) + len(features), reference.shape[1]
    if count < dims:
        # A rotation changes nothing, and neither do directions in which no image goes. Without those the 2,048
        # features need no eigenvalues of 2,048 x 2,048, whose many zeros come out as roots of rounding errors.
        basis = torch.from_numpy(np.linalg.qr(torch.cat([reference, features]).numpy().T)[0])
        reference, features = reference @ basis, features @ basis
    statistics = (metric_fid.fid_features_to_statistics(each) for each in (reference, features))
    return float(metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID])


def _reconstructions(
    network: FeatureExtractorInceptionV3, subject: Subject, originals: Features | None, weights: Weights
) -> Value:
    """FID of the split's reconstructions against their originals, whose features `originals` may be known."""
    count = len(subject.rows(subject.split))
    if count < FEWEST_IMAGES:
        few = f"the {subject.split} split has {count} images, and {FEWEST_IMAGES} are needed: evaluate on more"
        return Value.missing("fid_reconstructions", few)
    if originals is None:
        originals = features_of_split(network, subject, subject.split)
    made = features_of_latents(network, subject, subject.posterior().mean, "Features of reconstructions")
    counts = f"{count:,} decoded posterior means against their {subject.split} originals"
    note = f"{counts}{_bias(count)}{weights.warning()}"
    return Value("fid_reconstructions", frechet_distance(originals, made), note, None, "lower")


def _bias(fewest: int) -> str:
    """FID falls with the number of images that it is estimated from.

    Source: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    if fewest > int(INCEPTION_LAYER):
        return "; compare only with equal counts"
    return f"; {fewest:,} images leave 2,048 features rank-deficient: biased upwards, compare only with equal counts"


def _verdicts(values: list[Value], samplers: list[str]) -> list[str]:
    measured = {value.name: value.value for value in values if value.value is not None}
    fids = {prior: measured[f"fid_{prior}"] for prior in samplers}
    if len(fids) < 2:
        return []
    best = min(fids, key=fids.__getitem__)
    others = ", ".join(f"{prior} {fid:.1f}" for prior, fid in fids.items() if prior != best)
    return [f"By FID the samples of the {best} prior come nearest to real images: {fids[best]:.1f} ({others})."]
