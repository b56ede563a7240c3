"""The learning rate over a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_lightning.lr_schedule import Constant, WarmupDecay
from vae_lightning.module import VAEModule


def test_known_values() -> None:
    assert [Constant().factor(progress) for progress in (0, 0.5, 1)] == [1, 1, 1]
    linear = WarmupDecay(warmup=0.2)
    assert [linear.factor(progress) for progress in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    cosine = WarmupDecay(warmup=0, shape="cosine")
    assert [cosine.factor(progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.853553, 0.5, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"warmup": 1.0}, r"lr_schedule\.warmup=1\.0"), ({"shape": "sine"}, r"allowed are linear, cosine")],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WarmupDecay(**arguments)


def test_the_optimizer_follows_also_after_an_interruption(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 images give 6 batches of 8 an epoch: 18 steps, of which the first 9 warm up."""
    rates: list[float] = []
    step = VAEModule.training_step

    def spy(self: VAEModule, batch: Any, batch_idx: int) -> torch.Tensor:
        rates.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VAEModule, "training_step", spy)
    settings = ["lr_schedule=decay", "lr_schedule.warmup=0.5", "optimizer.lr=0.01", "test=false"]
    run_training("run", *settings, "trainer.max_epochs=3")
    expected = [0.01 * WarmupDecay(warmup=0.5).factor((number + 0.5) / 18) for number in range(18)]
    assert rates == pytest.approx(expected)
    rates.clear()
    run_training("run", *settings, "trainer.max_epochs=4", "ckpt_path=last")
    assert rates[1:] == pytest.approx([0.01 * WarmupDecay(warmup=0.5).factor((n + 0.5) / 24) for n in range(19, 24)])


def test_a_run_without_end_has_no_decay(run_training: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_epochs=-1 never does"):
        run_training("run", "lr_schedule=decay", "trainer.max_epochs=-1")
