"""Which latents carry information: the KL of each, largest first."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.dashboard import show_picture
from vae_lightning.pictures.charts import draw_kl_per_latent
from vae_lightning.pictures.grids import write_picture
from vae_lightning.runs.layout import IMAGES
from vae_lightning.training.vae_module import VAEModule


class KLPerLatent(L.Callback):
    """After each validation a histogram in TensorBoard; now and then `images/kl_per_latent/epoch=0005.png`.

    Args:
        run_dir: the run folder.
        every_n_epochs: how often to draw the picture, there and in TensorBoard; the last epoch is always drawn.
    """

    needs_prior = True

    def __init__(self, run_dir: str, every_n_epochs: int = 5) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.kl_per_latent.every_n_epochs={every_n_epochs}: must be at least 1")
        self.folder = Path(run_dir) / IMAGES / "kl_per_latent"
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        is_fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not is_fitting or not trainer.is_global_zero:
            return
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        kl_nats_per_latent = pl_module.kl_nats_per_latent.cpu().numpy()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_histogram("val/kl_nats_per_latent", kl_nats_per_latent, step)
        if epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs:
            picture = draw_kl_per_latent(kl_nats_per_latent, f"epoch {epoch}")
            png = write_picture(self.folder / f"epoch={epoch:04d}.png", picture)
            show_picture(trainer.loggers, "latents/kl_per_latent", png, picture.shape[:2], step)
