"""The learning rate over a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch.callbacks.timer
import pytest
import torch
from lightning.pytorch.callbacks import Timer

from vae_lightning.losses import Objective, SquaredError
from vae_lightning.models import ConvVAE
from vae_lightning.runs.layout import RunError
from vae_lightning.training.lr_schedule import Constant, WarmupDecay
from vae_lightning.training.vae_module import VAEModule


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


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every step."""
    seen: list[float] = []
    step = VAEModule.training_step

    def spy(self: VAEModule, batch: Any, batch_idx: int) -> torch.Tensor:
        seen.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VAEModule, "training_step", spy)
    return seen


@pytest.fixture
def clock(rates: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which each training step takes a second, and nothing else takes any time."""
    monkeypatch.setattr(lightning.pytorch.callbacks.timer, "time", Mock(monotonic=lambda: 1e6 + len(rates)))


def decay(steps: range, num_steps: int) -> Any:
    return pytest.approx([0.01 * WarmupDecay(warmup=0.5).factor((step + 0.5) / num_steps) for step in steps])


QUICK = ["optimizer.lr=0.01", "test=false", "callbacks=[checkpoint]", "logger=[csv]"]
DECAY = ["lr_schedule=decay", "lr_schedule.warmup=0.5"]


@pytest.mark.slow
def test_the_optimizer_follows_also_after_an_interruption(
    run_training: Callable[..., Path], rates: list[float]
) -> None:
    """60 images give 6 batches of 8 an epoch: 18 steps, of which the first 9 warm up; then a run of 24."""
    run_training("run", *QUICK, *DECAY, "trainer.max_epochs=3")
    assert rates == decay(range(18), 18)
    rates.clear()
    run_training("run", *QUICK, *DECAY, "trainer.max_epochs=4", "ckpt_path=last")
    assert rates == decay(range(18, 24), 24)


TIMED = ["trainer.max_epochs=-1", "+trainer.max_time=00:00:00:12"]


def by_time(seconds: range) -> Any:
    schedule = WarmupDecay(warmup=0.5)
    return pytest.approx([0.01 * schedule.factor(second / 12) for second in seconds], abs=1e-9)


@pytest.mark.usefixtures("clock")
def test_a_run_with_a_time_limit_ends_its_decay_then(run_training: Callable[..., Path], rates: list[float]) -> None:
    run_training("run", *QUICK, *DECAY, *TIMED)
    assert rates == by_time(range(12))


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("longer", [[], ["trainer.max_epochs=100"], ["trainer.max_epochs=null"]])
def test_a_resumed_run_goes_on_with_the_time_that_it_has_left(
    longer: list[str], run_training: Callable[..., Path], rates: list[float]
) -> None:
    run_training("run", *QUICK, *DECAY, "trainer.max_epochs=1", TIMED[1])
    assert rates == decay(range(6), 6)  # the end of its epochs comes first
    run_training("run", *QUICK, *DECAY, *TIMED, *longer, "ckpt_path=last")
    assert rates[6:] == by_time(range(6, 12))


def test_all_processes_go_by_one_clock() -> None:
    module = VAEModule(
        ConvVAE(image_size=32, latent_dim=2), Objective(SquaredError()), torch.optim.Adam, lr_schedule=WarmupDecay()
    )
    timer = Timer(duration={"seconds": 10})
    timer.load_state_dict({"time_elapsed": {"train": 2.0}})
    module._trainer = trainer = Mock(callbacks=[timer])
    trainer.strategy.broadcast = lambda of_time: {0.2: 0.75}[of_time]  # what the first process says
    module._num_steps = 100
    assert module._part_done(step=3) == 0.75
    assert module._part_done(step=80) == 0.805


@pytest.mark.slow
def test_a_schedule_may_come_and_go(run_training: Callable[..., Path], rates: list[float]) -> None:
    """Whatever there was before: the rate is that of the step reached."""
    run_training("run", *QUICK, "trainer.max_epochs=1")
    run_training("run", *QUICK, *DECAY, "trainer.max_epochs=2", "ckpt_path=last")
    run_training("run", *QUICK, "trainer.max_epochs=3", "ckpt_path=last")
    assert rates[:6] == rates[12:] == [0.01] * 6
    assert rates[6:12] == decay(range(6, 12), 12)
    rates.clear()
    run_training("run", *DECAY, *QUICK, "optimizer.lr=0.02", "trainer.max_epochs=4", "ckpt_path=last")
    assert [rate / 2 for rate in rates] == decay(range(18, 24), 24)


@pytest.mark.parametrize("start", ["last", pytest.param("a file", marks=pytest.mark.slow)])
def test_settings_of_the_optimizer_take_effect_where_a_run_goes_on(
    start: str, run_training: Callable[..., Path]
) -> None:
    first = run_training("run", *QUICK, "trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    before = torch.load(first)["optimizer_states"][0]
    changed = ["optimizer.lr=0.5", "optimizer.weight_decay=0.25", "+optimizer.betas=[0.5,0.75]", "+optimizer.eps=0.125"]
    name, checkpoint = ("run", "last") if start == "last" else ("another", first)
    run_dir = run_training(name, *QUICK, *changed, "trainer.max_epochs=2", f"ckpt_path={checkpoint}")
    after = torch.load(run_dir / "checkpoints" / "last.ckpt")["optimizer_states"][0]
    (group,) = after["param_groups"]
    assert {name: group[name] for name in ("lr", "weight_decay", "betas", "eps")} == {
        "lr": 0.5,
        "weight_decay": 0.25,
        "betas": (0.5, 0.75),
        "eps": 0.125,
    }
    assert [state["step"] for state in after["state"].values()] == [
        2 * state["step"] for state in before["state"].values()
    ]


@pytest.mark.slow
def test_what_the_optimizer_has_no_memory_for_is_refused(run_training: Callable[..., Path]) -> None:
    run_training("run", *QUICK, "trainer.max_epochs=1")
    with pytest.raises(RunError, match=r"optimizer\.amsgrad=true: the checkpoint does not hold"):
        run_training("run", *QUICK, "+optimizer.amsgrad=true", "trainer.max_epochs=2", "ckpt_path=last")


def test_a_run_without_end_has_no_decay(run_training: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_epochs=-1 never does"):
        run_training("run", "lr_schedule=decay", "trainer.max_epochs=-1")
