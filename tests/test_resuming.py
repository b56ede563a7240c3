"""What a command does in the folder of an earlier run; a resumed run ends bit by bit as an undisturbed one."""

import json
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_LADDER, TINY_RUN, WHOLE_RUN
from omegaconf import OmegaConf
from test_sweep import composed
from written_sweeps import write_status

from vae_lightning.launch import train as launch
from vae_lightning.launch.kept_settings import resolved
from vae_lightning.runs.identity import identity_of
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.status import MOST_CRASHES
from vae_lightning.training.vae_module import VAEModule

WARMUP = ["beta_schedule=warmup", "beta_schedule.duration=3", "data.horizontal_flip=true"]
STEPS = "trainer.max_epochs=-1 trainer.max_steps="
Train = Callable[..., Path]


# ---- what a command does in a folder that is there

Start = Callable[..., dict[str, Any]]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The checkpoint of each training that would have begun."""
    started: list[str | None] = []

    def begin(config: Any) -> dict[str, float]:
        started.append(config.ckpt_path)
        return {"val/loss": 1.0}

    monkeypatch.setattr(launch, "train", begin)
    return started


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, starts: list[str | None]) -> Start:
    """Starts the run of identity "i" in a folder; gives its metrics."""
    monkeypatch.setattr(launch, "identity_of", lambda config: "i")

    def start(run_dir: Path, ckpt_path: str | None = None) -> dict[str, Any]:
        config = OmegaConf.create({"run_dir": str(run_dir), "ckpt_path": ckpt_path})
        return launch.train_unless_done(config, in_sweep=False)

    return start


def test_a_new_run_begins_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, start: Start, starts: list[str | None]
) -> None:
    start(tmp_path / "night")
    assert starts == [None]
    assert not caplog.records


@pytest.mark.parametrize("ckpt_path", [None, "elsewhere.ckpt"])
@pytest.mark.parametrize(("state", "ended"), [("running", "was interrupted"), ("failed", "failed")])
def test_what_was_stopped_is_resumed_or_begins_again_until_it_is_done(
    state: str,
    ended: str,
    ckpt_path: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    start: Start,
    starts: list[str | None],
) -> None:
    """Also a run that started from a named checkpoint is resumed from its own."""
    caplog.set_level(logging.INFO)
    run = tmp_path / "night"
    run.mkdir()
    write_status(run, state, identity="i")
    start(run, ckpt_path)
    assert f"night {ended} before its first checkpoint: it starts again from the beginning" in caplog.text
    write_status(run, state, identity="i")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    start(run, ckpt_path)
    assert f"night {ended}: it is resumed from its last checkpoint" in caplog.text
    assert starts == [ckpt_path, "last"]
    (run / "metrics.json").write_text('{"val/loss": 3.0}')
    assert start(run, ckpt_path) == {"val/loss": 3.0}
    assert "night is done already" in caplog.text
    assert starts == [ckpt_path, "last"]


def test_a_person_may_start_a_run_again_as_often_as_it_is_killed(
    tmp_path: Path, start: Start, starts: list[str | None]
) -> None:
    """In a container all its processes have one number; what Ray starts again by itself is counted."""
    write_status(tmp_path, "running", identity="i", session=str(os.getpid()), attempt=MOST_CRASHES, saved_at=None)
    start(tmp_path)
    assert starts == [None]


@pytest.mark.parametrize("state", ["done", "running"])
@pytest.mark.parametrize("other", ["beta=7", "ckpt_path=another.ckpt", "beta=7 ckpt_path=another.ckpt"])
def test_another_run_in_the_folder_is_not_overwritten(
    other: str, state: str, tmp_path: Path, starts: list[str | None]
) -> None:
    own, asked = (
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        for config in (composed(f"run_dir={tmp_path}", *words.split()) for words in ("ckpt_path=elsewhere.ckpt", other))
    )
    write_status(tmp_path, state, identity=identity_of(own))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(resolved(own)))
    differs = "beta is 1.0 there and 7.0 here" if "beta" in other else "does not start from ckpt_path=another.ckpt"
    with pytest.raises(
        RunError, match=rf"other settings: .*{differs}.*another hydra\.run\.dir.*own settings"
    ) as caught:
        launch.train_unless_done(asked, in_sweep=False)
    assert "delete" not in str(caught.value)
    assert not starts


@pytest.mark.parametrize("name", ["last", "{folder}/checkpoints/best.ckpt"])
def test_a_run_is_resumed_from_its_own_checkpoints_with_other_settings(
    name: str, tmp_path: Path, start: Start, starts: list[str | None]
) -> None:
    write_status(tmp_path, "done", identity="another")
    start(tmp_path, name.format(folder=tmp_path))
    assert starts == [name.format(folder=tmp_path)]


# ---- it ends as undisturbed


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
    for state in (one, other):
        state["gradients"] = state["callbacks"].get("GradientOutliers")
    names.append("gradients")
    return [name for name in names if not same_as(one[name], other[name])]


def rows_of(run: Path) -> list[dict[str, float]]:
    rows = read_metrics(run / "metrics.csv")
    return [{name: row[name] for name in row if name != "train/images_per_second"} for row in rows]


EXACT = (  # decay asks for the batches before it is known where they begin
    "beta_schedule.unit=step +callbacks=[ema,throughput] lr_schedule=decay trainer.log_every_n_steps=4 "
    "trainer.max_epochs=3 reconstruction=gaussian_shared"
)


LADDER = (  # with so small a spread that some steps may be skipped
    f"{' '.join(TINY_LADDER)} kl.free_nats=[3,1] optimizer=adamax beta_schedule.unit=step lr_schedule=decay "
    "+callbacks=[ema,gradient_outliers] callbacks.gradient_outliers.spreads=0.3 "
    "callbacks.gradient_outliers.warmup_steps=3 trainer.gradient_clip_val=100 trainer.max_epochs=3"
)


def epochs_of(run: Path) -> int:
    return int(json.loads((run / "metrics.json").read_text())["epochs"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "step", "signum"),
    [  # an epoch has 6 batches
        (EXACT, 9, signal.SIGINT),
        (LADDER, 9, signal.SIGTERM),
        ("trainer.max_epochs=3 trainer.max_steps=100", 9, signal.SIGTERM),
        (f"{STEPS}14", 8, None),
        (f"{STEPS}14 +trainer.val_check_interval=0.5", 5, signal.SIGTERM),
        (f"{STEPS}5 trainer.accumulate_grad_batches=4 +callbacks=ema", 6, signal.SIGTERM),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in [
                (EXACT, 5, signal.SIGINT),
                (EXACT, 6, signal.SIGINT),
                (f"{EXACT} data.residence=device", 9, signal.SIGINT),
                (EXACT, 9, signal.SIGTERM),
                (LADDER, 6, signal.SIGINT),
                ("trainer.max_epochs=3 trainer.max_steps=100", 8, None),
                ("trainer.max_epochs=3 trainer.max_steps=100", 6, signal.SIGTERM),
                ("trainer.max_epochs=3 trainer.max_steps=18", 12, signal.SIGINT),
                (f"{STEPS}14 +trainer.val_check_interval=0.5", 8, None),
                (f"{STEPS}16 trainer.check_val_every_n_epoch=2", 14, None),
                (f"{STEPS}16 trainer.check_val_every_n_epoch=null +trainer.val_check_interval=4", 8, None),
                (f"{STEPS}14 trainer.limit_val_batches=0 lr_schedule=decay", 8, None),
            ]
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_a_run_stopped_at_any_step_ends_as_undisturbed(
    settings: str, step: int, signum: int | None, run_training: Train, train_until: Train
) -> None:
    command = [*WARMUP, *settings.split()]
    whole = run_training("whole", *command)
    train_until(step, signum, "parts", *command)
    parts = run_training("parts", *command, "ckpt_path=last")
    assert differing_parts(whole, parts) == []
    assert rows_of(whole) == rows_of(parts)
    assert epochs_of(whole) == epochs_of(parts)
    if (whole / "checkpoints" / "best.ckpt").is_file():
        assert differing_parts(whole, parts, "best") == []
    states = [torch.load(run / "checkpoints" / "last.ckpt")["callbacks"].get("Throughput") for run in (whole, parts)]
    if settings.startswith(EXACT):
        assert states[0]["images_seen"] == states[1]["images_seen"]  # of both parts
        assert json.loads((parts / "metrics.json").read_text())["seconds"] > states[1]["seconds_spent"]


@pytest.mark.parametrize(
    ("settings", "fixed"),
    [
        (f"{' '.join(WARMUP)} model.norm=batch", TINY_RUN),
        pytest.param(f"{' '.join(WARMUP)} model.norm=batch", WHOLE_RUN, marks=pytest.mark.slow),
        pytest.param(
            "beta_schedule=cyclical beta_schedule.unit=step beta_schedule.duration=20 optimizer=adamw",
            TINY_RUN,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "beta_schedule=capacity beta=10 beta_schedule.duration=3 reconstruction=gaussian_shared",
            TINY_RUN,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_run(settings: str, fixed: list[str], run_training: Train) -> None:
    whole = run_training("whole", "trainer.max_epochs=2", *settings.split(), fixed=fixed)
    run_training("parts", "trainer.max_epochs=1", *settings.split(), fixed=fixed)
    torch.manual_seed(12345)  # nothing may depend on the global generator
    parts = run_training("parts", "trainer.max_epochs=2", "ckpt_path=last", *settings.split(), fixed=fixed)
    assert "state_dict" not in differing_parts(whole, parts)
    for one, other in zip(rows_of(whole), rows_of(parts), strict=True):
        # the interrupted run tested its best epoch at the end of its first half
        names = {name for name in one if not name.startswith("test/")}
        assert {name: one[name] for name in names} == {name: other[name] for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [6, 8])
def test_a_run_killed_after_its_last_step_counts_all_its_epochs(num_steps: int, run_training: Train) -> None:
    command = f"{STEPS}{num_steps}".split()
    epochs = epochs_of(run_training("run", *command))
    assert epochs == epochs_of(run_training("run", *command, "ckpt_path=last")) == -(-num_steps // 6)


@pytest.mark.slow
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
    whole = run_training("whole", *WARMUP, *then.split())
    run_training("parts", *WARMUP, *first.split(), *accumulated)
    parts = run_training("parts", *WARMUP, *then.split(), "ckpt_path=last")
    assert set(differing_parts(whole, parts)) <= {"loops"}  # which count that validation
    at_the_end_of_the_first = int(re.search(r"max_steps=(\d+)", first)[1])  # type: ignore[index]
    for one, other in zip(rows_of(whole), [row for row in rows_of(parts) if len(row) > 2], strict=True):
        missing = {name: other[name] for name in other if name not in one}
        assert not missing or one["step"] == at_the_end_of_the_first
        assert one == {name: other[name] for name in one}


@pytest.mark.slow
def test_a_run_that_ends_within_an_epoch_is_validated_there(run_training: Train) -> None:
    run = run_training("run", *f"{STEPS}2".split())
    (validated,) = (row for row in rows_of(run) if "val/loss" in row)
    assert validated["step"] == 2
    assert torch.load(run / "checkpoints" / "best.ckpt")["global_step"] == 2
    assert json.loads((run / "metrics.json").read_text())["val/loss"] == pytest.approx(validated["val/loss"], rel=1e-6)


@pytest.mark.slow
def test_the_rest_of_an_epoch_is_not_cut_into_other_batches(run_training: Train, train_until: Train) -> None:
    train_until(3, signal.SIGTERM, "run", "trainer.max_epochs=1")
    with pytest.raises(RunError, match=r"batch_size=16: .*3 batches of 8 images in epoch 1.*batch_size=8.*epochs=1\)"):
        run_training("run", "trainer.max_epochs=2", "data.batch_size=16", "ckpt_path=last")
    run_training("run", "trainer.max_epochs=1", "ckpt_path=last")
    run = run_training("run", "trainer.max_epochs=2", "data.batch_size=16", "ckpt_path=last")
    assert torch.load(run / "checkpoints" / "last.ckpt")["global_step"] == 6 + 3


@pytest.mark.slow
def test_a_run_is_not_made_shorter(run_training: Train) -> None:
    run_training("run", "trainer.max_epochs=2", "trainer.limit_train_batches=1")
    with pytest.raises(RunError, match=r"max_epochs=1: .*finished 2 epochs"):
        run_training("run", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "ckpt_path=last")
