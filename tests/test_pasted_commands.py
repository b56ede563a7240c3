"""Commands that the program prints work where they are pasted: under `uv run`, activated, or by the scripts' path."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

from vae_lightning.system.names import not_allowed
from vae_lightning.system.terminal import command

SCRIPTS = Path(sys.prefix) / "bin"
ASK = "from vae_lightning.system.terminal import command as c; print(c('vae sample last'), c('python train.py x=1'))"


@pytest.fixture(autouse=True)
def _shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in the repository with nothing activated."""
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != str(SCRIPTS)]
    monkeypatch.setenv("PATH", os.pathsep.join(others))
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.chdir(ROOT)


def answer(*arguments: str, path: str = "") -> str:
    environment = {**os.environ, "PATH": f"{path}{os.environ['PATH']}", "UV_NO_SYNC": "1"}
    environment |= {"UV_PROJECT_ENVIRONMENT": sys.prefix}
    return subprocess.run([*arguments, ASK], capture_output=True, text=True, check=True, env=environment).stdout.strip()


@pytest.mark.process
def test_activated() -> None:
    activated = f"{SCRIPTS}{os.pathsep}"
    assert answer(sys.executable, "-c", path=activated) == "vae sample last python train.py x=1"


@pytest.mark.process
@pytest.mark.skipif(shutil.which("uv") is None, reason="no uv here")
def test_uv_run() -> None:
    prefixed = "uv run vae sample last uv run python train.py x=1"
    assert answer("uv", "run", "python", "-c") == prefixed
    activated = ["uv", "run", "bash", "-c", f'PATH={SCRIPTS}:$PATH; exec python -c "$0"']
    assert answer(*activated) == "vae sample last python train.py x=1"
    assert answer("uv", "run", "uv", "run", "python", "-c") == prefixed


@pytest.mark.process
def test_scripts_that_are_not_on_the_path() -> None:
    path = f"{SCRIPTS}/"
    assert answer(sys.executable, "-c") == f"{path}vae sample last {path}python train.py x=1"


def test_away_from_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
    assert command("python train.py -m beta=1,4") == "vae train -m beta=1,4"
    assert command("tensorboard --logdir outputs") == "tensorboard --logdir outputs"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert command("vae sample last").startswith("uv run --project ")


def test_not_allowed() -> None:
    assert not_allowed("basis", "identty", ("identity", "pca")) == (
        "basis=identty (did you mean identity?): allowed are identity, pca"
    )
    assert not_allowed("width", 7, (64, 128)) == "width=7: allowed are 64, 128"
