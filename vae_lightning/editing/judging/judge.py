"""The judge of edits: an attribute classifier or factor regressor, with the scales of its predictions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_distances, paired_cosine_distances
from torch import Tensor

from vae_lightning.editing.identity.bases import (
    Embeddings,
    IdentitySpace,
    fisher_space,
    repeated_people,
    standardised_space,
)
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import area_under_curve, squared_correlation
from vae_lightning.scores.result import Row
from vae_lightning.system.names import not_allowed

MOST_READ = 1_000  # images of the split that units, reliability and distances between people are taken from
MOST_FITTED = 5_000  # training images, to find what differs between people
FEWEST_PEOPLE = 20  # with two pictures or more
SMALLEST_SPREAD = 1e-6  # of an output; below it the output is constant
POOR = {"AUC": 0.7, "squared correlation": 0.25}  # below it a prediction says little of an image

Images = Float[Tensor, "images channels height width"]
Outputs = Float[np.ndarray, "images outputs"]


@dataclass(frozen=True)
class Readings:
    """float64, on the host."""

    outputs: Outputs  # log-odds of attributes, or factors in standard deviations of the training images
    embeddings: Embeddings


class Judge:
    """Judges edits made with one subject. It must not be the network that guided them.

    Args:
        recognizer: in eval mode.
        subject: whose split gives the scales, and whose training images show what differs between people.

    Attributes:
        unit: of each output, the standard deviation of its readings of the split's originals: the same for all models
            that see the same data.
        reliability: a row per output: AUC (attributes) or R^2 (factors) of originals and of reconstructions.
        same_person_distance: mean identity distance of two pictures of one person; None where the people are not known.
        same_person_auc: how often two pictures of one person are nearer than two of different people; 0.5 is chance.

    Raises:
        ValueError: the embeddings are all the same, or all pictures show one person.
    """

    def __init__(self, recognizer: Recognizer, subject: Subject) -> None:
        self.recognizer = recognizer.to(subject.device)
        self.subject = subject
        self.target = recognizer.target
        self.names = recognizer.names
        latents, people = subject.posterior(subject.split, MOST_READ).mean, subject.people(subject.split, MOST_READ)
        parts = subject.batches(len(latents), "Judge: reconstructions")
        readings = [self.read(subject.decode(latents[part])) for part in parts]
        outputs = np.concatenate([part.outputs for part in readings])
        embeddings = np.concatenate([part.embeddings for part in readings])
        originals = read_originals(self.recognizer, subject)
        self.unit: Float[np.ndarray, " outputs"] = originals.std(0)
        self.reliability = self._reliability(originals, outputs)
        self.identity = self._fit_identity(embeddings)
        self._set_distances(embeddings, people)

    @property
    def is_constant(self) -> np.ndarray:
        """Whether an output is the same for all images, so that it measures nothing."""
        return self.unit < SMALLEST_SPREAD

    def column(self, name: str) -> int:
        """
        Raises:
            ValueError: the judge has no such output, or it never changes.
        """
        if name not in self.names:
            raise ValueError(not_allowed("target", name, self.names))
        column = self.names.index(name)
        if self.is_constant[column]:
            raise ValueError(
                f"the judge predicts the same {name} for all images, so it cannot measure an edit of it; choose another"
            )
        return column

    @torch.inference_mode()
    def read(self, images: Images) -> Readings:
        """Images in [0, 1]."""
        features = [self.recognizer.embed(batch) for batch in self._batches(images)]
        outputs = [self.recognizer.read_features(part) for part in features]
        return Readings(_on_host(outputs), _on_host(features))

    def identity_distance(self, before: Embeddings, after: Embeddings) -> Float[np.ndarray, " images"]:
        """0 = the same picture, 1 = as far as reconstructions of two different people are on average."""
        coordinates = (self.identity.coordinates(each) for each in (before, after))
        return paired_cosine_distances(*coordinates) / self._between_people

    def words_on(self, name: str) -> str:
        """How well the judge tells an output, and a warning where it hardly does."""
        row = self.reliability[self.column(name)]
        measure, parts = str(row["measure"]), ("originals", "reconstructions")
        known = [f"{row[part]:.2f} on {part}" for part in parts if row[part] is not None]
        quality = f"{measure} {', '.join(known)}" if known else f"{measure} not known: the data have no {name}"
        poor = [row[part] for part in parts if row[part] is not None and float(row[part] or 0) < POOR[measure]]
        return f"The judge predicts {name} with {quality}" + (": too poor to measure an edit of it" if poor else "")

    def summary(self) -> dict[str, Any]:
        return {
            "reads": self.target,
            "outputs": len(self.names),
            "constant_outputs_left_out": [
                name for name, constant in zip(self.names, self.is_constant, strict=True) if constant
            ],
            "identity_basis": self.identity.basis,
            "identity_distance_of_one_person": self.same_person_distance,
            "identity_auc": self.same_person_auc,
        }

    def _batches(self, images: Images) -> Iterator[Images]:
        yield from images.to(self.subject.device).split(self.subject.batch_size)

    def _reliability(self, originals: Outputs, reconstructed: Outputs) -> list[Row]:
        names, truth = self._truth()
        table: list[Row] = []
        for column, name in enumerate(self.names):
            known = truth[:, names.index(name)] if truth is not None and name in names else None
            table.append(
                {
                    "output": name,
                    "standard_deviation": float(self.unit[column]),
                    "measure": "AUC" if self.target == "attributes" else "squared correlation",
                    "originals": _agreement(originals[:, column], known),
                    "reconstructions": _agreement(reconstructed[:, column], known),
                }
            )
        return table

    def _truth(self) -> tuple[tuple[str, ...], np.ndarray | None]:
        """Names and true values of the attributes or factors of the split's images."""
        if self.target == "attributes":
            attributes = self.subject.attributes(self.subject.split, MOST_READ)
            return () if attributes is None else self.subject.data.attribute_names, attributes
        return self.subject.factors(self.subject.split, MOST_READ) or ((), None)

    def _fit_identity(self, reconstructed: Embeddings) -> IdentitySpace:
        identities = self.subject.data.identities("train")
        if identities is None:
            return standardised_space(reconstructed, "the data do not say who is on the pictures")
        rows = repeated_people(identities, MOST_FITTED, self.subject.seed_of("people of the judge"))
        people = identities[rows]
        count = len(np.unique(people))
        if count < FEWEST_PEOPLE:
            return standardised_space(reconstructed, f"only {count} people have two training pictures or more")
        return fisher_space(self._training_embeddings(rows), people)

    @torch.inference_mode()
    def _training_embeddings(self, rows: Int64[np.ndarray, " images"]) -> Embeddings:
        subject = self.subject
        parts = subject.batches(len(rows), "Judge: training people")
        inputs = (subject.model_input(subject.pixels("train", rows[part])) for part in parts)
        decoded = (subject.decode(subject.model.encode(images).mean) for images in inputs)
        return _on_host(self.recognizer.embed(images) for images in decoded)

    def _set_distances(self, embeddings: Embeddings, people: Int64[np.ndarray, " images"]) -> None:
        first, second = np.triu_indices(len(people), 1)
        distances = cosine_distances(self.identity.coordinates(embeddings))[first, second]
        same = people[first] == people[second]
        self._between_people = float(distances[~same].mean()) if (~same).any() else 0.0
        if self._between_people <= 0:
            raise ValueError(
                f"{len(people)} images of the {self.subject.split} split show one person, or have equal "
                "embeddings in the judge: distances between people need more images"
            )
        self.same_person_distance = float(distances[same].mean()) / self._between_people if same.any() else None
        self.same_person_auc = float(roc_auc_score(same, -distances)) if same.any() else None


@torch.inference_mode()
def read_originals(recognizer: Recognizer, subject: Subject) -> Outputs:
    """What a network predicts for images of the subject's split."""
    rows = subject.rows(subject.split, MOST_READ)
    parts = subject.batches(len(rows), "Judge: originals")
    pixels = (to_pixel_range(subject.pixels(subject.split, rows[part]), (0.0, 1.0)) for part in parts)
    return _on_host(recognizer(images) for images in pixels)


def attribute_aucs(classifier: Recognizer, subject: Subject, names: Iterable[str]) -> dict[str, float | None]:
    """How well a classifier tells these attributes on the originals of the split; None where they are not known."""
    truth = subject.attributes(subject.split, MOST_READ)
    known = () if truth is None else subject.data.attribute_names
    aucs: dict[str, float | None] = dict.fromkeys(names)
    if truth is not None and set(aucs) & set(known):
        outputs = read_originals(classifier, subject)
        for name in set(aucs) & set(known):
            aucs[name] = _agreement(outputs[:, classifier.names.index(name)], truth[:, known.index(name)])
    return aucs


def _on_host(batches: Iterable[Tensor]) -> Float[np.ndarray, "images numbers"]:
    return torch.cat([batch.cpu() for batch in batches]).double().numpy()


def _agreement(readings: Float[np.ndarray, " images"], truth: np.ndarray | None) -> float | None:
    """None where the truth is not known, or is the same for all images."""
    if truth is None or (truth == truth[0]).all():
        return None
    ones = np.ones((1, len(truth)))
    if truth.dtype == np.bool_:
        return float(area_under_curve(readings, truth, ones)[0])
    return float(squared_correlation(readings[:, None], truth.astype(np.float64), ones)[0, 0])
