"""Chosen metrics of `vae evaluate` while training runs."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L

from callbacks.base import EveryNEpochs, datamodule_of
from callbacks.dashboard import save_picture
from vae_lightning.models.levels import chosen_levels
from vae_lightning.runs.layout import IMAGES
from vae_lightning.scores.result import Result
from vae_lightning.training.vae_module import VAEModule


class Evaluation(EveryNEpochs):
    """Numbers go to all loggers as `evaluation/<name>`, pictures to `images/evaluation/<name>/epoch=0005.png`.

    Measured on the validation split in float32. With several processes the first measures for all.

    Args:
        run_dir: the run folder.
        metrics: names as in `vae evaluate --metrics`.
        every_n_epochs: how often to measure, also after the last epoch.
        samples: drawn from each prior for FID, KID, precision and recall.
        importance_samples: latents per image for the importance-weighted bound.
        weights: folder or file of feature networks' weights; None looks in PyTorch's cache.
        levels: the coarsest levels of a hierarchical model, for priors, probes and scores of disentanglement; None
            takes as many as have at most 1,024 latents.
    """

    name = "evaluation"
    fits = VAEModule

    def __init__(
        self,
        run_dir: str,
        metrics: Sequence[str] = ("latents", "probes"),
        every_n_epochs: int = 5,
        samples: int = 1_000,
        importance_samples: int = 16,
        weights: str | None = None,
        levels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        if not metrics:
            raise ValueError("callbacks.evaluation.metrics=[]: name at least one, or leave the callback out")
        # here: scikit-learn and torch-fidelity take a second to import, and most runs do without
        from vae_lightning.evaluation.request import Request

        self.folder = Path(run_dir) / IMAGES / "evaluation"
        try:
            self.request = Request(
                split="val",
                metrics=tuple(metrics),
                levels=tuple(levels or ()),
                samples=samples,
                importance_samples=importance_samples,
                weights=weights,
            )
        except ValueError as error:
            raise ValueError(f"callbacks.evaluation.{error}") from error

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, VAEModule)
        try:
            chosen_levels(pl_module.model.latent_levels, self.request.levels)
        except ValueError as error:
            raise ValueError(f"callbacks.evaluation.{error}") from error

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.is_due(trainer):
            return
        assert isinstance(pl_module, VAEModule)
        # the first process talks to no other while it measures: those wait in `broadcast` already
        values = self._measure(trainer, pl_module) if trainer.is_global_zero else {}
        pl_module.log_now(trainer.strategy.broadcast(values))

    def _measure(self, trainer: L.Trainer, module: VAEModule) -> dict[str, float]:
        from vae_lightning.evaluation.evaluate import measure
        from vae_lightning.runs.subject import Subject

        subject = Subject(
            module.model,
            datamodule_of(trainer),
            module.objective.reconstruction,
            split="val",
            device=module.device,
            seed=self.request.seed,
            levels=self.request.levels,
        )
        found = [measure(metric, subject) for metric in self.request.build()]
        for measured in found:
            self._show(trainer, measured)
        values = [value for measured in found for value in measured.values]
        return {f"evaluation/{value.name}": value.value for value in values if value.value is not None}

    def _show(self, trainer: L.Trainer, measured: Result) -> None:
        for stem, picture in measured.pictures.items():
            file = self.folder / stem / f"epoch={trainer.current_epoch + 1:04d}.png"
            save_picture(trainer, file, f"evaluation/{stem}", picture)
