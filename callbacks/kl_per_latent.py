"""Which latents carry information: the KL of each, largest first."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.base import EveryNEpochs, is_validation_of_training
from callbacks.dashboard import save_picture
from vae_lightning.pictures.charts import draw_kl_per_latent
from vae_lightning.runs.layout import IMAGES
from vae_lightning.training.vae_module import VAEModule


class KLPerLatent(EveryNEpochs):
    """A histogram in TensorBoard after each validation, and a picture `images/kl_per_latent/epoch=0005.png`.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often the picture is drawn, also after the last epoch.
    """

    name = "kl_per_latent"
    fits = VAEModule
    needs_prior = True

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        super().__init__(every_n_epochs)
        self.folder = Path(run_dir) / IMAGES / self.name

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        if not is_validation_of_training(trainer) or not trainer.is_global_zero:
            return
        kl_nats_per_latent = pl_module.kl_nats_per_latent.cpu().numpy()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_histogram("val/kl_nats_per_latent", kl_nats_per_latent, trainer.global_step)
        if self.is_due(trainer):
            epoch = trainer.current_epoch + 1
            picture = draw_kl_per_latent(kl_nats_per_latent, f"epoch {epoch}")
            save_picture(trainer, self.folder / f"epoch={epoch:04d}.png", "latents/kl_per_latent", picture)
