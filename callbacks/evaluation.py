"""Chosen metrics of `vae evaluate` while training goes on."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.dashboard import show_picture
from vae_lightning.data import FaceDataModule
from vae_lightning.evaluation.measured import Measured
from vae_lightning.pictures.grids import write_picture
from vae_lightning.runs.layout import IMAGES
from vae_lightning.training.vae_module import VAEModule


class Evaluation(L.Callback):
    """Numbers go to all loggers as `evaluation/<name>`, pictures to `images/evaluation/<name>/epoch=0005.png`.

    On the validation split, in float32. Several processes: the first measures, the others wait for its numbers.

    Args:
        run_dir: the run folder.
        metrics: names as in `vae evaluate --metrics`.
        every_n_epochs: how often; the last epoch is always measured.
        samples: drawn from each prior for FID, KID, precision and recall.
        importance_samples: latents per image for the importance-weighted bound.
        weights: folder or file of feature networks' weights; None looks in PyTorch's cache.
    """

    def __init__(
        self,
        run_dir: str,
        metrics: Sequence[str] = ("latents", "probes"),
        every_n_epochs: int = 5,
        samples: int = 1_000,
        importance_samples: int = 16,
        weights: str | None = None,
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.evaluation.every_n_epochs={every_n_epochs}: must be at least 1")
        if not metrics:
            raise ValueError("callbacks.evaluation.metrics=[]: name at least one, or leave the callback out")
        # here: scikit-learn and torch-fidelity take a second to import, and most runs do without
        from vae_lightning.evaluation.request import Request

        self.folder = Path(run_dir) / IMAGES / "evaluation"
        self.every_n_epochs = every_n_epochs
        try:
            self.request = Request(
                split="val",
                metrics=tuple(metrics),
                samples=samples,
                importance_samples=importance_samples,
                weights=weights,
            )
        except ValueError as error:
            raise ValueError(f"callbacks.evaluation.{error}") from error

    # The epoch's end, not validation's: a mean of the weights (callbacks=[…,ema]) is exchanged back in between.
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs and epoch != trainer.max_epochs:
            return
        assert isinstance(pl_module, VAEModule)
        values: dict[str, float] = {}
        if trainer.is_global_zero:  # without any talk between processes: the others may be at another place by now
            values = self._measure(trainer, pl_module, epoch)
        values = trainer.strategy.broadcast(values)
        pl_module.log_now(values)

    def _measure(self, trainer: L.Trainer, module: VAEModule, epoch: int) -> dict[str, float]:
        from vae_lightning.evaluation.evaluate import measure
        from vae_lightning.runs.opened import Subject

        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, FaceDataModule)
        subject = Subject(
            module.model,
            datamodule,
            module.objective.reconstruction,
            split="val",
            device=module.device,
            seed=self.request.seed,
        )
        found = [measure(metric, subject) for metric in self.request.build()]
        for measured in found:
            self._show(trainer, measured, epoch)
        return {
            f"evaluation/{value.name}": value.value
            for measured in found
            for value in measured.values
            if value.value is not None
        }

    def _show(self, trainer: L.Trainer, measured: Measured, epoch: int) -> None:
        for stem, picture in measured.pictures.items():
            png = write_picture(self.folder / stem / f"epoch={epoch:04d}.png", picture)
            show_picture(trainer.loggers, f"evaluation/{stem}", png, picture.shape[:2], trainer.global_step)
