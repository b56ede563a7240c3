"""Moves latents along the gradient of an attribute classifier until it predicts the wanted attributes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from vae_lightning.models import Autoencoder
from vae_lightning.models.pixels import to_unit_range
from vae_lightning.recognition import Recognizer
from vae_lightning.system.names import not_allowed
from vae_lightning.system.progress import Track, untracked

PIXELS_AT_ONCE = 2**18  # gradients of 64 images at 64x64 take about 2 GB


@dataclass(frozen=True)
class GuidanceSettings:
    """How far and how fast latents move.

    Raises:
        ValueError: a number is not allowed.
    """

    num_steps: int = 200
    lr: float = 0.01  # learning rate of Adam: about the most that a latent moves in one step
    distance_weight: float = 0.1  # nats for a squared distance of 1 from where the latents began
    hold_others: bool = False  # the attributes that were not named shall keep their probabilities
    num_shown: int = 6  # steps in the picture

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps={self.num_steps}: at least 1 step")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr={self.lr}: expected more than 0")
        if not (self.distance_weight >= 0 and math.isfinite(self.distance_weight)):
            raise ValueError(f"distance_weight={self.distance_weight}: expected 0 or more")
        if not 1 <= self.num_shown <= self.num_steps:
            raise ValueError(f"num_shown={self.num_shown}: expected 1 to num_steps={self.num_steps}")

    @property
    def shown_steps(self) -> list[int]:
        """Evenly spaced, the last one among them; step 0 is the reconstruction."""
        return [int(step) for step in np.linspace(0, self.num_steps, self.num_shown + 1).round()[1:]]


@dataclass(frozen=True)
class Guided:
    """The path of the latents, on the host; `steps` includes the start, so there is one more than was asked for."""

    latents: Float[Tensor, "faces latent"]
    path: Float[Tensor, "shown faces latent"]  # at `GuidanceSettings.shown_steps`
    losses: Float[Tensor, "steps faces"]
    classification_nats: Float[Tensor, "steps faces"]
    squared_distance: Float[Tensor, "steps faces"]
    others_nats: Float[Tensor, "steps faces"]  # part of the loss only with `hold_others`
    log_odds_before: Float[Tensor, "faces targets"]
    log_odds_after: Float[Tensor, "faces targets"]


class _Objective:
    """What is minimised, for each face on its own."""

    def __init__(
        self,
        model: Autoencoder,
        classifier: Recognizer,
        start: Float[Tensor, "faces latent"],
        wanted: Mapping[int, bool],
        settings: GuidanceSettings,
    ) -> None:
        self.model, self.classifier, self.start, self.settings = model, classifier, start, settings
        self.targets = list(wanted)
        with torch.no_grad():
            self.log_odds_before = self.read(start)
        self.others = [output for output in range(self.log_odds_before.shape[1]) if output not in wanted]
        asked = torch.tensor([float(value) for value in wanted.values()], device=start.device)
        self.asked = asked.expand(len(start), -1)

    def read(self, latents: Float[Tensor, "faces latent"]) -> Float[Tensor, "faces outputs"]:
        images = to_unit_range(self.model.decode(latents), self.model.pixel_range)
        return cast(Tensor, self.classifier(images.expand(-1, 3, -1, -1)))  # classifiers read gray images as RGB

    def __call__(
        self, latents: Float[Tensor, "faces latent"]
    ) -> tuple[Float[Tensor, "4 faces"], Float[Tensor, "faces targets"]]:
        """Loss, cross-entropy of the targets, squared distance, change of the others; and the targets' log-odds."""
        log_odds = self.read(latents)
        found = log_odds[:, self.targets]
        classification_nats = binary_cross_entropy_with_logits(found, self.asked, reduction="none").sum(1)
        squared_distance = (latents - self.start).square().sum(1)
        others_nats = self._divergence(log_odds[:, self.others])
        loss = classification_nats + self.settings.distance_weight * squared_distance
        if self.settings.hold_others:
            loss = loss + others_nats
        return torch.stack([loss, classification_nats, squared_distance, others_nats]), found

    def _divergence(self, log_odds: Float[Tensor, "faces others"]) -> Float[Tensor, " faces"]:
        """KL from the probabilities at the start to those now, mean over the attributes; 0 where there are none."""
        if not self.others:
            return torch.zeros(len(log_odds), device=log_odds.device)
        before = self.log_odds_before[:, self.others]
        probabilities = before.sigmoid()
        now = binary_cross_entropy_with_logits(log_odds, probabilities, reduction="none")
        return (now - binary_cross_entropy_with_logits(before, probabilities, reduction="none")).mean(1)


def guide(
    model: Autoencoder,
    classifier: Recognizer,
    latents: Float[Tensor, "faces latent"],
    targets: Mapping[str, bool],
    settings: GuidanceSettings,
    track: Track = untracked,
    num_moved: int | None = None,
) -> Guided:
    """Minimises, for each face, cross-entropy of the targets + distance_weight * |z - z0|^2 by Adam.

    The first `num_moved` latents are moved, those of a hierarchical model's coarse levels; None: all.

    The cross-entropy is in nats, summed over the targets. With `hold_others` the divergence of all other attributes'
    probabilities from those at z0 is added, averaged over them. A face's result does not depend on the others in the
    batch. Works in any gradient mode. Nothing of the networks is changed; both are in eval mode, and the classifier
    reads log-odds of its `names` from RGB images in [0, 1].

    Raises:
        ValueError: no targets, an attribute that the classifier does not know, or a network in training mode.
    """
    wanted = _target_outputs(classifier, targets, settings)
    for network in (model, classifier):
        if any(module.training for module in network.modules()):
            raise ValueError(f"{type(network).__name__} is in training mode, which would change it: call eval() first")
    device = next(model.parameters()).device
    at_once = max(1, PIXELS_AT_ONCE // model.image_size**2)
    parts = []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for part in latents.split(at_once):
            start = part.clone().detach().to(device, torch.float32)  # a clone: tensors of inference mode have no graph
            objective = _Objective(model, classifier, start, wanted, settings)
            parts.append(_descend(objective, settings, track, num_moved))
    return _join(parts)


def _target_outputs(classifier: Recognizer, targets: Mapping[str, bool], settings: GuidanceSettings) -> dict[int, bool]:
    """Position of the classifier's output -> whether faces shall have it."""
    names = classifier.names
    if classifier.target != "attributes":
        raise ValueError(
            f"this network predicts {classifier.target} ({', '.join(names[:3])}, …): guidance needs an attribute "
            "classifier"
        )
    if not targets:
        raise ValueError(f"no target: name one attribute at least, of {', '.join(names)}")
    for name in targets:
        if name not in names:
            raise ValueError(not_allowed("attribute", name, names))
    if settings.hold_others and len(targets) == len(names):
        raise ValueError(
            "hold_others: every attribute of the classifier is a target, so no other attribute is left to hold"
        )
    return {names.index(name): value for name, value in targets.items()}


def _descend(objective: _Objective, settings: GuidanceSettings, track: Track, num_moved: int | None) -> Guided:
    coarse = objective.start[:, :num_moved].clone().requires_grad_(True)
    finer = objective.start[:, coarse.shape[1] :]
    optimizer = torch.optim.Adam([coarse], lr=settings.lr)
    history, path, shown = [], [], set(settings.shown_steps)
    description = f"Guiding {len(coarse)} faces"
    for step in track(range(1, settings.num_steps + 1), description, settings.num_steps):
        terms, _ = objective(torch.cat([coarse, finer], dim=1))
        history.append(terms.detach())
        # the sum: no face's gradient depends on another; only this tensor's, so that no weight gets one
        (coarse.grad,) = torch.autograd.grad(terms[0].sum(), coarse)
        optimizer.step()
        if step in shown:
            path.append(torch.cat([coarse.detach(), finer], dim=1))
    moved = torch.cat([coarse.detach(), finer], dim=1)
    with torch.no_grad():
        terms, log_odds_after = objective(moved)
    losses, classification_nats, squared_distance, others_nats = torch.stack([*history, terms], dim=1).cpu()
    return Guided(
        latents=moved.cpu(),
        path=torch.stack(path).cpu(),
        losses=losses,
        classification_nats=classification_nats,
        squared_distance=squared_distance,
        others_nats=others_nats,
        log_odds_before=objective.log_odds_before[:, objective.targets].cpu(),
        log_odds_after=log_odds_after.cpu(),
    )


def _join(parts: Sequence[Guided]) -> Guided:
    faces_first = ("latents", "log_odds_before", "log_odds_after")
    names = Guided.__dataclass_fields__
    return Guided(
        **{name: torch.cat([getattr(part, name) for part in parts], 0 if name in faces_first else 1) for name in names}
    )
