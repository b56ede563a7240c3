"""Warns of posterior collapse, and says what can be done."""

import logging

import lightning as L

from callbacks.base import is_validation_of_training
from vae_lightning.losses import Constant
from vae_lightning.training.vae_module import VAEModule

log = logging.getLogger("vae_lightning")


class PosteriorCollapse(L.Callback):
    """Warns after a validation in which the posterior equals the prior for every image, and says when it recovers.

    Source: Bowman et al. 2016, section 3.1, arXiv:1511.06349; active units as in Burda et al. 2016.

    Args:
        kl_nats: the posterior has collapsed where KL is below this and no unit is active.
        after_steps: optimizer steps before the first warning. New weights start near the prior: the default network
            has a KL of 0.6 nats after 15 steps, 2.8 after 20 and 22 after 100.
    """

    fits = VAEModule
    needs_prior = True

    def __init__(self, kl_nats: float = 1.0, after_steps: int = 100) -> None:
        if kl_nats <= 0:
            raise ValueError(f"callbacks.posterior_collapse.kl_nats={kl_nats}: must be above 0")
        if after_steps < 0:
            raise ValueError(f"callbacks.posterior_collapse.after_steps={after_steps}: must be 0 or more")
        self.kl_nats = kl_nats
        self.after_steps = after_steps
        self.has_collapsed = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validation_of_training(trainer) or trainer.global_step < self.after_steps:
            return
        assert isinstance(pl_module, VAEModule)
        metrics = trainer.callback_metrics
        kl_nats, active_units = float(metrics["val/kl_nats"]), int(metrics["val/active_units"])
        had_collapsed, self.has_collapsed = self.has_collapsed, kl_nats < self.kl_nats and active_units == 0
        if not trainer.is_global_zero or had_collapsed == self.has_collapsed:
            return
        found = f"epoch {trainer.current_epoch + 1}: KL {kl_nats:.3g} nats, {active_units} active units"
        if self.has_collapsed:
            log.warning(f"Posterior collapse, {found}: every image has the same latents. {_what_to_try(pl_module)}")
        else:
            log.info(f"The posterior has recovered, {found}.")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.has_collapsed and trainer.is_global_zero:
            assert isinstance(pl_module, VAEModule)
            log.warning(f"Training ends with a collapsed posterior. {_what_to_try(pl_module)}")


def _what_to_try(module: VAEModule) -> str:
    """The remedies that this run does not use yet."""
    objective = module.objective
    remedies = [f"a smaller beta (now {objective.beta:g})"]
    if isinstance(objective.beta_schedule, Constant):
        remedies.append("beta_schedule=warmup or cyclical")
    if not objective.kl.has_allowance and not objective.has_capacity:
        free = (
            "kl=free_bits" if module.model.is_flat else "kl=per_level with kl.free_nats=[…], a number for each level,"
        )
        remedies.append(f"{free} or beta_schedule=capacity")
    if (
        objective.reconstruction.sigma(module.model.pixel_range) is None
        and not objective.reconstruction.has_probability
    ):
        remedies.append("reconstruction=gaussian_shared, which weighs the pixels by their error")
    return f"Things to try: {'; '.join(remedies)}; a smaller optimizer.lr."
