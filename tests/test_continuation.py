"""A run that was stopped, killed or ended by `max_steps` goes on where it was: no batch twice, none left out."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

BARE = ["test=false", "callbacks=[checkpoint]", "logger=[csv]"]
WARMUP = ["beta_schedule=warmup", "beta_schedule.duration=3", "data.horizontal_flip=true"]
STEPS = "trainer.max_epochs=-1 trainer.max_steps="
Train = Callable[..., Path]


class KilledError(Exception):
    """Stands for a kill -9: nothing is written after it."""


@pytest.fixture
def train_until(run_training: Train, monkeypatch: pytest.MonkeyPatch) -> Train:
    """`train_until(step, signum, …)` trains; before that step the signal comes, or for None the end."""

    def train(step: int, signum: int | None, *arguments: str) -> None:
        training_step = VAEModule.training_step

        def interrupted(self: VAEModule, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.trainer.fit_loop.epoch_loop.total_batch_idx + 1 == step:
                if signum is None:
                    raise KilledError
                signal.raise_signal(signum)
            return training_step(self, batch, batch_idx)

        with monkeypatch.context() as patched:
            patched.setattr(VAEModule, "training_step", interrupted)
            with pytest.raises(KilledError if signum is None else SystemExit):
                run_training(*arguments)

    return train


def same_as(value: Any, other: Any) -> bool:
    """Bit by bit."""
    if isinstance(value, torch.Tensor):
        return torch.equal(value, other)
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same_as(value[name], other[name]) for name in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same_as, value, other))
    return bool(value == other)


def differing_parts(whole: Path, parts: Path, name: str = "last") -> list[str]:
    """What two runs do not have in common of a checkpoint: weights, their mean, optimizer, schedule, counters."""
    one, other = (torch.load(run / "checkpoints" / f"{name}.ckpt") for run in (whole, parts))
    names = ["epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops"]
    names += ["current_model_state"] if "current_model_state" in one else []
    return [name for name in names if not same_as(one[name], other[name])]


def rows_of(run: Path) -> list[dict[str, float]]:
    rows = read_metrics(run / "metrics.csv")
    return [{name: row[name] for name in row if name != "train/images_per_second"} for row in rows]


def epochs_of(run: Path) -> int:
    return int(json.loads((run / "metrics.json").read_text())["epochs"])


@pytest.mark.parametrize(
    ("settings", "step", "signum"),
    [  # an epoch has 6 batches
        ("trainer.max_epochs=3 trainer.max_steps=100", 8, None),
        pytest.param("trainer.max_epochs=3 trainer.max_steps=100", 6, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("trainer.max_epochs=3 trainer.max_steps=100", 9, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("trainer.max_epochs=3 trainer.max_steps=18", 12, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(f"{STEPS}14", 8, None, marks=pytest.mark.slow),
        pytest.param(f"{STEPS}14 +trainer.val_check_interval=0.5", 8, None, marks=pytest.mark.slow),
        pytest.param(f"{STEPS}14 +trainer.val_check_interval=0.5", 5, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(f"{STEPS}16 trainer.check_val_every_n_epoch=2", 14, None, marks=pytest.mark.slow),
        pytest.param(
            f"{STEPS}16 trainer.check_val_every_n_epoch=null +trainer.val_check_interval=4",
            8,
            None,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"{STEPS}5 trainer.accumulate_grad_batches=4 +callbacks=ema", 6, signal.SIGTERM, marks=pytest.mark.slow
        ),
        pytest.param(f"{STEPS}14 trainer.limit_val_batches=0 lr_schedule=decay", 8, None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_a_number_of_steps_ends_as_undisturbed(
    settings: str, step: int, signum: int | None, run_training: Train, train_until: Train
) -> None:
    command = [*BARE, *WARMUP, *settings.split()]
    whole = run_training("whole", *command)
    train_until(step, signum, "parts", *command)
    parts = run_training("parts", *command, "ckpt_path=last")
    assert differing_parts(whole, parts) == []
    assert rows_of(whole) == rows_of(parts)
    assert epochs_of(whole) == epochs_of(parts)
    if (whole / "checkpoints" / "best.ckpt").is_file():
        assert differing_parts(whole, parts, "best") == []


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [6, 8])
def test_a_run_killed_after_its_last_step_counts_all_its_epochs(num_steps: int, run_training: Train) -> None:
    command = [*BARE, *f"{STEPS}{num_steps}".split()]
    epochs = epochs_of(run_training("run", *command))
    assert epochs == epochs_of(run_training("run", *command, "ckpt_path=last")) == -(-num_steps // 6)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (f"{STEPS}2", f"{STEPS}9"),
        pytest.param(f"{STEPS}8", "trainer.max_epochs=3", marks=pytest.mark.slow),
        pytest.param("trainer.max_steps=8 trainer.max_epochs=2", "trainer.max_epochs=2", marks=pytest.mark.slow),
        pytest.param(f"{STEPS}6", f"{STEPS}14", marks=pytest.mark.slow),
        pytest.param(f"{STEPS}2", f"{STEPS}6 trainer.accumulate_grad_batches=2", marks=pytest.mark.slow),
    ],
)
def test_a_run_made_longer_is_the_longer_run(first: str, then: str, run_training: Train) -> None:
    accumulated = then.split()[2:]
    whole = run_training("whole", *BARE, *WARMUP, *then.split())
    run_training("parts", *BARE, *WARMUP, *first.split(), *accumulated)
    parts = run_training("parts", *BARE, *WARMUP, *then.split(), "ckpt_path=last")
    assert set(differing_parts(whole, parts)) <= {"loops"}  # which count that validation
    at_the_end_of_the_first = int(re.search(r"max_steps=(\d+)", first)[1])  # type: ignore[index]
    for one, other in zip(rows_of(whole), [row for row in rows_of(parts) if len(row) > 2], strict=True):
        missing = {name: other[name] for name in other if name not in one}
        assert not missing or one["step"] == at_the_end_of_the_first
        assert one == {name: other[name] for name in one}


@pytest.mark.slow
def test_a_run_that_ends_within_an_epoch_is_validated_there(run_training: Train) -> None:
    run = run_training("run", *BARE, *f"{STEPS}2".split())
    (validated,) = (row for row in rows_of(run) if "val/loss" in row)
    assert validated["step"] == 2
    assert torch.load(run / "checkpoints" / "best.ckpt")["global_step"] == 2
    assert json.loads((run / "metrics.json").read_text())["val/loss"] == pytest.approx(validated["val/loss"], rel=1e-6)


@pytest.mark.slow
def test_the_rest_of_an_epoch_is_not_cut_into_other_batches(run_training: Train, train_until: Train) -> None:
    train_until(3, signal.SIGTERM, "run", *BARE, "trainer.max_epochs=1")
    with pytest.raises(RunError, match=r"batch_size=16: .*3 batches of 8 images in epoch 1.*batch_size=8.*epochs=1\)"):
        run_training("run", *BARE, "trainer.max_epochs=2", "data.batch_size=16", "ckpt_path=last")
    run_training("run", *BARE, "trainer.max_epochs=1", "ckpt_path=last")
    run = run_training("run", *BARE, "trainer.max_epochs=2", "data.batch_size=16", "ckpt_path=last")
    assert torch.load(run / "checkpoints" / "last.ckpt")["global_step"] == 6 + 3


@pytest.mark.slow
def test_a_run_is_not_made_shorter(run_training: Train) -> None:
    run_training("run", *BARE, "trainer.max_epochs=2", "trainer.limit_train_batches=1")
    with pytest.raises(RunError, match=r"max_epochs=1: .*finished 2 epochs"):
        run_training("run", *BARE, "trainer.max_epochs=1", "trainer.limit_train_batches=1", "ckpt_path=last")
