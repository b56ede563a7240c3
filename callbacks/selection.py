"""Which of the chosen callbacks fit a model, and in which order they are called."""

import logging
from collections.abc import Mapping

import lightning as L

from callbacks.ema import EMA
from callbacks.evaluation import Evaluation
from callbacks.image_grids import ImageGrid
from callbacks.kl_per_latent import KLPerLatent
from callbacks.posterior_collapse import PosteriorCollapse
from callbacks.projector import Projector
from callbacks.recognition_scores import RecognitionScores
from vae_lightning.training.run_module import RunModule
from vae_lightning.training.vae_module import VAEModule

logger = logging.getLogger("vae_lightning")

FOR_VAES = (Evaluation, ImageGrid, KLPerLatent, PosteriorCollapse, Projector)
NOT_FOR_VAES = (RecognitionScores,)


def select_callbacks(chosen: Mapping[str, L.Callback], module: RunModule) -> list[L.Callback]:
    """Those that the module can have, in the order in which they have to be called.

    Raises:
        ValueError: one was asked for what this module does not have.
    """
    callbacks = dict(chosen)
    is_vae = isinstance(module, VAEModule)
    unfit = [name for name, each in chosen.items() if isinstance(each, NOT_FOR_VAES if is_vae else FOR_VAES)]
    if unfit:
        what = "a VAE" if is_vae else "a network that reads faces"
        raise ValueError(f"callbacks=[{','.join(unfit)}]: not for {what}; leave them out")
    if isinstance(module, VAEModule) and not module.model.has_prior:
        without = [name for name, callback in chosen.items() if getattr(callback, "needs_prior", False)]
        if without:
            logger.info(
                f"posterior=deterministic: left out {', '.join(without)}, which a model without prior cannot have"
            )
        callbacks = {name: callback for name, callback in chosen.items() if name not in without}
    for callback in callbacks.values():
        if isinstance(callback, ImageGrid) and isinstance(module, VAEModule):
            callback.check_model(module.model)
    # the mean of the weights is exchanged back in the hook in which pictures are drawn: after them
    return sorted(callbacks.values(), key=lambda callback: isinstance(callback, EMA))
