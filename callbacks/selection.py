"""Which of the chosen callbacks fit a model, and in which order they are called."""

import logging
from collections.abc import Mapping

import lightning as L

from callbacks.ema import EMA
from callbacks.image_grid import ImageGrid
from vae_lightning.models import Autoencoder

logger = logging.getLogger("vae_lightning")


def select_callbacks(chosen: Mapping[str, L.Callback], model: Autoencoder) -> list[L.Callback]:
    """Those that the model can have, in the order in which they have to be called.

    Raises:
        ValueError: one was asked for what this model does not have.
    """
    callbacks = dict(chosen)
    if not model.has_prior:
        without = [name for name, callback in chosen.items() if getattr(callback, "needs_prior", False)]
        if without:
            logger.info(
                f"posterior=deterministic: left out {', '.join(without)}, which a model without prior cannot have"
            )
        callbacks = {name: callback for name, callback in chosen.items() if name not in without}
    for callback in callbacks.values():
        if isinstance(callback, ImageGrid):
            callback.check_model(model)
    # the mean of the weights is exchanged back in the hook in which pictures are drawn: after them
    return sorted(callbacks.values(), key=lambda callback: isinstance(callback, EMA))
