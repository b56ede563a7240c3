"""Every way to add or remove one attribute, by name."""

from collections.abc import Mapping, Sequence

import torch

from vae_lightning.editing.attributes.directions import subject_directions
from vae_lightning.editing.attributes.edit import Latents, Method, attribute_edits
from vae_lightning.editing.attributes.guidance import GuidanceSettings, guide
from vae_lightning.latents.directions import METHODS, Direction, DirectionFile
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject

FEW_IMAGES = 10  # of each class, as in the system that experiment=linear_vae reproduces


def methods_for(
    subject: Subject,
    file: DirectionFile,
    attribute: str,
    wanted: bool,
    orthogonal_to: Sequence[str] = (),
    classifier: Recognizer | None = None,
) -> dict[str, Method]:
    """By name: those in files of `editing/attributes/`, directions, and guidance where there is a classifier.

    Strength 1 is one standard deviation of the training latents along a direction or of a single latent; for guidance,
    where it ends.

    Raises:
        ValueError: no such attribute, or no direction can be fitted to it.
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
    edits = {name.replace("_", " "): edit(subject, attribute) for name, edit in attribute_edits().items()}
    methods = {name: _signed(edit, sign) for name, edit in edits.items()}
    methods |= {name: _signed(_along(way), sign) for name, way in ways.items()}
    if classifier is not None:
        for holds in (False, True):
            name = "guidance, others held" if holds else "guidance"
            methods[name] = Guidance(subject, classifier, {attribute: wanted}, holds)
    return methods


def _signed(method: Method, sign: float) -> Method:
    return lambda latents, strength: method(latents, sign * strength)


def _along(direction: Direction) -> Method:
    shift = direction.shift(1.0, "std")
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
            guided = guide(
                subject.model,
                self.classifier,
                latents,
                self.targets,
                self.settings,
                subject.track,
                subject.num_coarse,
            )
            self._followed = latents.clone(), guided.latents
        return torch.lerp(latents, self._followed[1], strength)
