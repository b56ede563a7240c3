"""Which of the chosen callbacks fit what is trained, and the order in which Lightning calls them."""

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L

from vae_lightning.training.run_module import RunModule
from vae_lightning.training.vae_module import VAEModule

log = logging.getLogger("vae_lightning")


def select_callbacks(
    chosen: Mapping[str, L.Callback], module: RunModule, trainer_settings: Mapping[str, Any]
) -> list[L.Callback]:
    """The callbacks that the module can have, in the order in which they have to be called.

    A callback's class may say, each of them as an attribute or method that it may leave out:
    `fits`, the class of module that it works with (any); `needs_prior`, whether it means nothing for a plain
    autoencoder (False); `check_model(model)` and `check_trainer(settings)`, which raise ValueError for an autoencoder
    or settings of the trainer that do not suit it; `is_called_last`, whether other callbacks have to come before it
    (False).

    Raises:
        ValueError: a callback was asked for that does not fit this module or trainer.
    """
    unfit = [name for name, callback in chosen.items() if not isinstance(module, getattr(callback, "fits", RunModule))]
    if unfit:
        trained = "a VAE" if isinstance(module, VAEModule) else "an attribute classifier or factor regressor"
        raise ValueError(f"callbacks=[{','.join(unfit)}]: not for {trained}; leave them out")
    callbacks = dict(chosen)
    if isinstance(module, VAEModule):
        if not module.model.has_prior:
            needless = [name for name, callback in chosen.items() if getattr(callback, "needs_prior", False)]
            callbacks = {name: callback for name, callback in chosen.items() if name not in needless}
            if needless:
                log.info(f"posterior=deterministic: left out {', '.join(needless)}, which need a prior")
        for callback in callbacks.values():
            if hasattr(callback, "check_model"):
                callback.check_model(module.model)
    for callback in callbacks.values():
        if hasattr(callback, "check_trainer"):
            callback.check_trainer(trainer_settings)
    return sorted(callbacks.values(), key=lambda callback: getattr(callback, "is_called_last", False))
