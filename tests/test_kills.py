"""A run that is killed is resumed by the same command, and ends as if nothing had happened: tests/kill_trials.py."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import WHOLE_RUN
from kill_comparison import differences, half_files, leftovers
from kill_trials import PHASES, Trials
from lightning.pytorch.loggers import TensorBoardLogger
from processes import ROOT, SMALL, train, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import LastCheckpoint, MetricsCsv, Throughput, WholeCheckpoints
from callbacks.dashboard import begin_session
from vae_lightning.data import FaceDataModule
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.system import interruption
from vae_lightning.system.interruption import HELD_KEY_SECONDS, stop_by_exception
from vae_lightning.system.whole_files import write_json
from vae_lightning.training.vae_module import VAEModule

# ---- what is written


def test_what_a_killed_process_has_left_of_a_file_goes_when_it_is_written_again(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = socket.gethostname()
    left = tmp_path / f".a.json.{here}.{dead.pid}"
    alive, of_another_machine = tmp_path / f".a.json.{here}.{os.getppid()}", tmp_path / f".a.json.{here}9.{dead.pid}"
    kept = [alive, of_another_machine, tmp_path / ".a.json.old", tmp_path / f".b.json.{here}.{dead.pid}"]
    for path in (left, *kept):
        path.touch()
    write_json(tmp_path / "a.json", {})
    assert not left.exists()
    assert all(path.exists() for path in kept)


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))  # Lightning would go through there, and copy
    monkeypatch.setattr("tempfile.tempdir", None)
    WholeCheckpoints().save_checkpoint({"weights": torch.zeros(1000)}, path)

    def break_off(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"weights": torch.ones(1000)}, path)
    assert torch.load(path, weights_only=True)["weights"].sum() == 0
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_table_of_metrics_has_each_step_once(tmp_path: Path) -> None:
    first = MetricsCsv(str(tmp_path))
    for step in (2, 4, 6):
        first.log_metrics({"train/loss": float(step), "epoch": 0.0}, step)
    first.log_metrics({"val/loss": 9.0, "epoch": 0.0}, 6)
    tested = MetricsCsv(str(tmp_path))  # killed in its test: no step is trained again
    tested.log_metrics({"test/loss": 8.0, "epoch": 1.0}, 6)
    assert read_metrics(tested.path)[-1] == {"epoch": 0, "step": 6, "train/loss": 6, "val/loss": 9, "test/loss": 8}
    resumed = MetricsCsv(str(tmp_path))
    resumed.keep_up_to(3)
    resumed.log_metrics({"train/loss": 40.0, "epoch": 0.0}, 4)
    rows = read_metrics(resumed.path)
    assert [(row["step"], row["train/loss"]) for row in rows] == [(2, 2), (4, 40)]
    assert "2.0" not in (tmp_path / "metrics.csv").read_text().split("\n")[1].split(",")[1]
    resumed.keep_up_to(0)
    assert read_metrics(resumed.path) == []


def test_tensorboard_shows_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (start, steps) in enumerate(((0, (2, 4, 6)), (3, (4, 6, 8)))):
        # files are read in the order of the seconds in their names
        monkeypatch.setattr(time, "time", lambda second=1.7e9 + number: second)
        logger = TensorBoardLogger(str(tmp_path), name="", version="")
        begin_session(logger, start)
        for step in steps:
            logger.log_metrics({"val/loss": 10.0 * number + step}, step)
        logger.experiment.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("val/loss")]
    assert shown == [(2, 2.0), (4, 14.0), (6, 16.0), (8, 18.0)]


@pytest.mark.slow
def test_what_is_drawn_after_a_kill_in_the_test_shows_the_mean_of_the_weights(
    run_training: Callable[..., Path],
) -> None:
    settings = ["trainer.max_epochs=1", "+callbacks=[ema,projector]", "callbacks.ema.decay=0.9"]
    settings += ["callbacks.projector.num_faces=6"]
    projected = run_training("run", *settings, fixed=WHOLE_RUN) / "projector" / "step=000006.tsv"
    before = projected.read_bytes()
    projected.unlink()
    run_training("run", *settings, "ckpt_path=last", fixed=WHOLE_RUN)  # no step is left to be trained
    assert projected.read_bytes() == before


# ---- signals


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in interruption.SIGNALS}
    hook = sys.unraisablehook
    monkeypatch.setattr(interruption, "_last_signal_at", -HELD_KEY_SECONDS)
    stop_by_exception()
    yield
    sys.unraisablehook = hook
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_a_held_key_does_not_disturb_what_tidies_up(signals: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    for _ in range(20):
        signal.raise_signal(signal.SIGINT)


def test_sigterm_ends_with_the_code_that_shells_give_it(signals: None) -> None:
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


def test_a_signal_that_python_swallows_comes_again(signals: None) -> None:
    class Dropped:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)  # as if it came just then

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        Dropped()
        time.sleep(5)


MOMENTS: dict[str, tuple[type, str]] = {
    "the data are opened": (FaceDataModule, "prepare_data"),
    "the trainer is set up": (VAEModule, "on_fit_start"),
    "weights are tried before training": (VAEModule, "on_validation_epoch_end"),
    "training begins": (VAEModule, "on_train_start"),
    "a step": (VAEModule, "training_step"),
    "the last checkpoint is written": (LastCheckpoint, "on_train_epoch_end"),
    "training ends": (Throughput, "on_train_end"),
    "the trainer is torn down": (L.Trainer, "_teardown"),
    "the fit ends": (VAEModule, "on_fit_end"),
    "the test begins": (L.Trainer, "test"),
    "the test": (VAEModule, "test_step"),
    "the test ends": (VAEModule, "on_test_epoch_end"),
}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "moment",
    [pytest.param(each, marks=[] if each == "the trainer is torn down" else pytest.mark.slow) for each in MOMENTS],
)
def test_a_signal_stops_a_run_at_any_moment(
    moment: str,
    signum: signal.Signals,
    signals: None,
    run_training: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name = MOMENTS[moment]
    original, sent = getattr(owner, name), []

    def interrupted(*arguments: Any, **others: Any) -> Any:
        if not sent:
            sent.append(signum)
            signal.raise_signal(signum)
        return original(*arguments, **others)

    monkeypatch.setattr(owner, name, interrupted)
    settings = ["callbacks=[checkpoint,throughput]", "test=true", "trainer.max_epochs=1"]
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        run_training("run", *settings)
    assert sent
    assert isinstance(ended.value, KeyboardInterrupt) or ended.value.code == 128 + signum
    assert '"state": "interrupted"' in (tmp_path / "run" / "status.json").read_text()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file():
        assert (run_training("run", *settings, "ckpt_path=last") / "metrics.json").is_file()


# ---- the comparison itself


def test_the_comparison_sees_what_is_lost(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "a", tmp_path / "b"
    for folder in (whole, resumed):
        (folder / "tmp").mkdir(parents=True)
        torch.save({"w": torch.zeros(3), "seconds": float(len(str(folder)))}, folder / "last.ckpt")
        (folder / "metrics.csv").write_text("step,val/loss\n2,3.0\n")
        (folder / "metrics.json").write_text(json.dumps({"val/loss": 3.0, "seconds": time.time()}))
    assert differences(whole, resumed) == half_files(resumed) == leftovers(resumed) == []
    torch.save({"w": torch.tensor([0, 0, 1e-7])}, resumed / "last.ckpt")
    (resumed / "metrics.csv").write_text("step,val/loss\n2,3.0\n2,3.0\n")
    (resumed / "tmp" / "tmpx").touch()
    assert [line.split(":")[0] for line in differences(whole, resumed)] == ["last.ckpt", "metrics.csv"]
    assert leftovers(resumed) == ["tmp/tmpx is left over"]
    (resumed / "metrics.json").write_text('{"val/l')
    assert half_files(resumed)[0].startswith("metrics.json is no whole file")


# ---- whole processes


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("kills"), seed=1)


@pytest.mark.nightly
@pytest.mark.process
@pytest.mark.parametrize("phase", ["a checkpoint is written", "building the cache", "jobs of a sweep"])
def test_kills_lose_nothing(phase: str, trials: Trials) -> None:
    assert phase in PHASES
    trial = trials.run(phase, 0)
    assert trial.lost == []
    assert trial.kills


@pytest.mark.nightly
@pytest.mark.process
def test_the_same_command_goes_on_with_several_processes_too(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    command = [*SMALL, "trainer=ddp", "trainer.devices=2", "trainer.max_epochs=1", "hydra.run.dir=two"]
    command += [f"data.root='{tiny_celeba(60)}'", "callbacks=[checkpoint]", "test=false", "data.batch_size=4"]
    train(*command, cwd=tmp_path)
    again = train(*command, cwd=tmp_path)
    assert "two is done already" in again.stderr
    status = json.loads((tmp_path / "two" / "status.json").read_text())
    (tmp_path / "two" / "status.json").write_text(json.dumps({**status, "state": "running"}))
    assert "two was interrupted: it is resumed from its last checkpoint" in train(*command, cwd=tmp_path).stderr


@pytest.mark.process
@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    ours, its = pty.openpty()
    command = [*SMALL, f"data.root='{tiny_celeba(60)}'", "hydra.run.dir=run", "trainer.max_epochs=100000"]
    command += ["callbacks=[checkpoint]"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command],
        cwd=tmp_path,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    os.set_blocking(ours, False)
    shown = b""

    def read() -> bytes:
        try:
            return os.read(ours, 2**16)
        except (BlockingIOError, OSError):
            return b""

    def has_started() -> bool:
        nonlocal shown
        shown += read()
        return (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()

    wait_for(has_started)
    os.killpg(process.pid, signal.SIGINT)

    def has_ended() -> bool:
        nonlocal shown
        shown += read()
        return process.poll() is not None

    wait_for(has_ended)
    shown += read()
    os.close(ours)
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert b"\x1b[?25l" in shown, "a progress bar hides the cursor"
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
