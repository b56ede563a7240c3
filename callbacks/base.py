"""What callbacks share: the data of a trainer, and acting after the validation of every n-th epoch."""

from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from vae_lightning.data import FaceDataModule


def datamodule_of(trainer: L.Trainer) -> FaceDataModule:
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, FaceDataModule)
    return datamodule


def is_validation_of_training(trainer: L.Trainer) -> bool:
    """False in Lightning's sanity check before training, and outside of `fit`."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


class EveryNEpochs(L.Callback):
    """A subclass asks `is_due` in the hook that suits it.

    `on_validation_epoch_end` still has the weights of validation (with callbacks=[…,ema] their mean), and comes before
    this epoch's numbers are logged. `on_validation_end` comes after both.

    Args:
        every_n_epochs: how often to act; None: only where the class asks for the first or the last epoch.
    """

    name: ClassVar[str]  # as in conf/callbacks/
    also_first: ClassVar[bool] = False
    also_last: ClassVar[bool] = True

    def __init__(self, every_n_epochs: int | None) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"callbacks.{self.name}.every_n_epochs={every_n_epochs}: must be at least 1")
        self.every_n_epochs = every_n_epochs

    def is_due(self, trainer: L.Trainer) -> bool:
        """Whether a validation of training is under way, and its epoch is one after which the callback acts."""
        if not is_validation_of_training(trainer):
            return False
        epoch = trainer.current_epoch + 1
        is_an_end = (self.also_first and epoch == 1) or (self.also_last and epoch == trainer.max_epochs)
        return is_an_end or (self.every_n_epochs is not None and epoch % self.every_n_epochs == 0)
