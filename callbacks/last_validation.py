"""A run that ends within an epoch ends with numbers of its last weights."""

from typing import Any

import lightning as L


class LastValidation(L.Callback):
    """Validates after step `trainer.max_steps` too, where `trainer.check_val_every_n_epoch` asks for this epoch.

    Lightning does so at the epoch's last batch only: the steps since would count neither for best.ckpt nor for a
    search, and a run of less than an epoch would have no number at all.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # before this kind of end it validates
