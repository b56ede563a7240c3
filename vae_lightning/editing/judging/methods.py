"""Every way to add or remove one attribute, as a function of latents and a strength."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lightning.editing.attributes.amplification import subject_correlations
from vae_lightning.editing.attributes.directions import subject_directions
from vae_lightning.editing.attributes.guidance import GuidanceSettings, guide
from vae_lightning.latents.directions import METHODS, DirectionFile
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.opened import MOST_FITTED, Subject

Latents = Float[Tensor, "images latent"]
Method = Callable[[Latents, float], Latents]
FEW_IMAGES = 10  # of each class, as in S2


def methods_for(
    subject: Subject,
    file: DirectionFile,
    attribute: str,
    wanted: bool,
    orthogonal_to: Sequence[str] = (),
    classifier: Recognizer | None = None,
) -> dict[str, Method]:
    """By name. Strength 1 is one standard deviation of the training latents along a direction; for one latent that
    of its prior, as S1's α; for guidance, where it ends.

    Raises:
        ValueError, ValueError: no such attribute, or one that no direction can be fitted to.
    """
    directions = subject_directions(subject, file)
    few = subject_directions(subject, file, FEW_IMAGES, subject.seed_of("few images"))
    sign = 1.0 if wanted else -1.0
    ways = {
        f"means of {FEW_IMAGES} images": few.direction(attribute),
        "means": directions.direction(attribute),
        "probe": directions.direction(attribute, "probe"),
    }
    if orthogonal_to:
        for method in METHODS:
            held = directions.direction(attribute, method, orthogonal_to)
            ways[f"{method}, orthogonal to {', '.join(orthogonal_to)}"] = held
    methods: dict[str, Method] = {"one latent": straight(sign * best_latent(subject, attribute))}
    methods |= {name: straight(way.shift(sign, "std")) for name, way in ways.items()}
    if classifier is not None:
        for holds in (False, True):
            name = "guidance, others held" if holds else "guidance"
            methods[name] = Guidance(subject, classifier, {attribute: wanted}, holds)
    return methods


def best_latent(subject: Subject, attribute: str) -> Float[Tensor, " latent"]:
    """1 for the latent that goes with the attribute most, with the sign that adds it; 0 for the others."""
    found = subject_correlations(subject, MOST_FITTED)[subject.data.attribute_names.index(attribute)]
    best = int(np.abs(found).argmax())
    shift = torch.zeros(len(found))
    shift[best] = float(np.sign(found[best]))
    return shift


def straight(shift: Float[Tensor, " latent"]) -> Method:
    return lambda latents, strength: latents + strength * shift


class Guidance:
    """z + strength (z* - z), where z* is the end of guidance: it is followed once for all strengths.

    Args:
        subject: whose latents are moved.
        classifier: that guides.
        targets: attribute -> whether faces shall have it.
        hold_others: as in `GuidanceSettings`.
    """

    def __init__(
        self, subject: Subject, classifier: Recognizer, targets: Mapping[str, bool], hold_others: bool
    ) -> None:
        self.subject, self.classifier, self.targets = subject, classifier, targets
        self.settings = GuidanceSettings(hold_others=hold_others)
        self._followed: tuple[Latents, Latents] | None = None  # from where to where

    def __call__(self, latents: Latents, strength: float) -> Latents:
        if self._followed is None or not latents.equal(self._followed[0]):
            subject = self.subject
            guided = guide(subject.model, self.classifier, latents, self.targets, self.settings, subject.track)
            self._followed = latents.clone(), guided.latents
        return torch.lerp(latents, self._followed[1], strength)
