"""Whole sweeps as processes of their own: killed, gone on with, with a job that fails, on every engine."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import ROOT, SMALL, start_training, train, wait_for

from vae_lightning.runs.status import read_status, state_of

pytestmark = pytest.mark.process

QUICK = [*SMALL, "callbacks=[checkpoint,non_finite_loss]", "logger=[csv]", "trainer.precision=32-true"]
EPOCHS = 60


@pytest.fixture
def quick(tiny_celeba: Callable[..., Path], tmp_path: Path) -> list[str]:
    return [*QUICK, f"data.root='{tiny_celeba(60)}'"]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def report_rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def kill_in_training(process: subprocess.Popen[str], run_dir: Path, victim: int | None = None) -> None:
    """SIGKILL some epochs after the first checkpoint, wherever in its epoch the job is."""
    metrics = run_dir / "metrics.csv"
    wait_for(lambda: (run_dir / "checkpoints" / "last.ckpt").exists() and metrics.read_text().count("\n") > 6)
    os.kill(victim or process.pid, signal.SIGKILL)


@pytest.mark.nightly
def test_a_killed_sweep_goes_on_and_ends_as_if_nothing_had_happened(quick: list[str], tmp_path: Path) -> None:
    """One after another in one process: beta=1 is done when beta=4 is killed; the third job fails."""
    command = ["-m", "beta=1,4", "optimizer.lr=1e-3,1e25", f"trainer.max_epochs={EPOCHS}", "sweep=s", *quick]
    sweep = tmp_path / "multirun" / "s"
    killed, failing = sweep / "beta=4,optimizer.lr=0.001", sweep / "beta=1,optimizer.lr=1e+25"
    process = start_training(*command, cwd=tmp_path)
    kill_in_training(process, killed)
    process.communicate()
    done = sweep / "beta=1,optimizer.lr=0.001"
    assert (state_of(done), state_of(failing), state_of(killed)) == ("done", "failed", "interrupted")
    untouched = (done / "metrics.json").stat().st_mtime_ns
    # 4.0 is 4, and another order of the same jobs is the same sweep
    again = train(*(word.replace("beta=1,4", "beta=4.0,1") for word in command), cwd=tmp_path, expect=1)
    assert "beta=1,optimizer.lr=0.001 is done already" in again.stderr
    assert "beta=4,optimizer.lr=0.001 was interrupted: it is resumed" in again.stderr
    assert "2 done · 0 running · 2 failed" in again.stderr
    assert "failed  beta=1,optimizer.lr=1e+25: The loss is nan" in again.stderr
    assert (done / "metrics.json").stat().st_mtime_ns == untouched
    assert sorted(row["status"] for row in report_rows(sweep)) == ["done", "done", "failed", "failed"]
    assert (sweep / "report.html").is_file()
    alone = [word.replace("beta=1,4", "beta=4").replace("1e-3,1e25", "1e-3") for word in command]
    train(*(word for word in alone if word not in ("-m", "sweep=s")), "hydra.run.dir=alone", cwd=tmp_path)
    for name, tensor in weights(tmp_path / "alone").items():
        assert torch.equal(tensor, weights(killed)[name]), name
    log = (killed / "train.log").read_text()
    assert log.count("ConvVAE (") == 2  # both attempts are in the job's own log


@pytest.mark.nightly
def test_two_sweeps_of_one_second_share_nothing_but_the_decoded_images(quick: list[str], tmp_path: Path) -> None:
    both = [start_training("-m", "beta=1", "trainer.max_epochs=1", *quick, cwd=tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    sweeps = list((tmp_path / "multirun").iterdir())
    assert len(sweeps) == 2
    assert [state_of(path.parent) for sweep in sweeps for path in sweep.glob("*/status.json")] == ["done", "done"]
    assert sum(output.count("Decoding train images") for output in outputs) == 1
    assert len(list((tmp_path / "data" / "cache").glob("*/images.npy"))) == 3


@pytest.mark.slow
def test_sigterm_is_a_stop_and_under_slurm_a_request_to_requeue(quick: list[str], tmp_path: Path) -> None:
    """submitit listens to SIGUSR2; a job that ends with 0 after SIGTERM would count as completed."""
    listener = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGUSR2, lambda *_: (print('queued again', flush=True), sys.exit(9)))\n"
        f"sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r})\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", listener, str(ROOT / "train.py"), "trainer.max_epochs=100000"]
    for executor, code in (("slurm", 9), ("", 143)):
        folder = tmp_path / f"run{code}"
        process = subprocess.Popen(
            [*command, f"hydra.run.dir={folder}", *quick],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SUBMITIT_EXECUTOR": executor},
        )
        wait_for(lambda folder=folder: (folder / "checkpoints" / "last.ckpt").exists())  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert ("queued again" in output) == (executor == "slurm")
        assert state_of(folder) == "interrupted"


@pytest.mark.nightly
@pytest.mark.extra
def test_ray_gives_each_job_its_device_and_starts_a_killed_one_again(quick: list[str], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = ["-m", "hydra/launcher=local_gpus", "beta=1,4,8", "sweep=s"]
    command += ["hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.remote.num_gpus=1"]  # of Ray's books only
    process = start_training(*command, f"trainer.max_epochs={EPOCHS}", *quick, cwd=tmp_path)
    sweep = tmp_path / "multirun" / "s"
    first = sweep / "beta=1"
    wait_for(lambda: (first / "status.json").exists())
    kill_in_training(process, first, victim=read_status(first)["process"])
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    statuses = [read_status(sweep / f"beta={beta}") for beta in (1, 4, 8)]
    assert [status["state"] for status in statuses] == ["done"] * 3
    assert {status["gpus"] for status in statuses} == {"0", "1"}
    assert "was interrupted: it is resumed" in (first / "train.log").read_text()
    assert "3 done · 0 running · 0 failed" in output
    assert len(report_rows(sweep)) == 3


@pytest.mark.extra
def test_ray_refuses_gpus_that_are_not_there(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = ["-m", "hydra/launcher=share_gpu", "beta=1,4", "hydra.launcher.ray.init.num_gpus=0"]
    refused = train(*command, cwd=tmp_path, expect=2)
    assert "num_gpus=0.25: Ray sees 0 GPUs" in refused.stderr
    assert "local_gpus" in refused.stderr
    assert not (tmp_path / "multirun").exists()


@pytest.mark.nightly
@pytest.mark.extra
def test_optuna_goes_on_where_it_was_killed(quick: list[str], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    command = ["-m", "hparams_search=rate_distortion", "hydra.sweeper.n_trials=3", "sweep=s", *quick]
    command = [word for word in command if not word.startswith("model.latent_dim")]
    sweep = tmp_path / "multirun" / "s"
    process = start_training(*command, "trainer.max_epochs=20", cwd=tmp_path)
    wait_for(lambda: len(list(sweep.glob("*/status.json"))) == 2)
    (second,) = (path for path in sweep.glob("*/") if state_of(path) == "running")
    kill_in_training(process, second)
    process.communicate()
    assert trials(sweep) == {"COMPLETE": 1, "RUNNING": 1}
    train(*command, "trainer.max_epochs=20", cwd=tmp_path)
    assert trials(sweep) == {"COMPLETE": 3}
    assert state_of(second) == "done"
    assert "was interrupted: it is resumed" in (second / "train.log").read_text()
    with sqlite3.connect(sweep / "study.db") as database:
        values = [value for (value,) in database.execute("select value from trial_values order by value")]
    metrics = [json.loads(path.read_text()) for path in sweep.glob("*/metrics.json")]
    assert len(metrics) == 3  # no trial was drawn twice
    expected = [one[f"val/{name}"] for one in metrics for name in ("kl_nats", "reconstruction_nats")]
    assert values == pytest.approx(sorted(expected))


def trials(sweep: Path) -> dict[str, Any]:
    with sqlite3.connect(sweep / "study.db") as database:
        return dict(database.execute("select state, count(*) from trials group by state").fetchall())
