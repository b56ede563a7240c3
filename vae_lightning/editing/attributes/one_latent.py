"""The single latent that correlates most with an attribute."""

import numpy as np
import torch

from vae_lightning.editing.attributes.amplification import subject_correlations
from vae_lightning.editing.attributes.edit import AttributeEdit, Latents
from vae_lightning.runs.subject import MOST_FITTED, Subject
from vae_lightning.system.names import not_allowed


class OneLatent(AttributeEdit):
    """z_j + strength, with the sign that adds the attribute; 1 is one standard deviation of the training latents."""

    def __init__(self, subject: Subject, attribute: str) -> None:
        found, names = subject_correlations(subject, MOST_FITTED), subject.data.attribute_names
        if attribute not in names:
            raise ValueError(not_allowed("attribute", attribute, names))
        correlation = found[names.index(attribute)]
        best = int(np.abs(correlation).argmax())
        self.shift = torch.zeros(subject.model.latent_dim)
        spread = float(subject.codes("train", MOST_FITTED)[:, best].std(correction=0))
        self.shift[best] = float(np.sign(correlation[best])) * spread

    def __call__(self, latents: Latents, strength: float) -> Latents:
        return latents + strength * self.shift
