"""Starting train.py and vae as processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ["data.image_size=32", "data.batch_size=8", "model.latent_dim=6", "trainer.accelerator=cpu"]


def run(*arguments: str, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert finished.returncode == expect, finished.stderr[-3000:]
    return finished


def train(*arguments: str, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(ROOT / "train.py"), *arguments, cwd=cwd, expect=expect, **environment)


def start_training(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def vae(*arguments: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    return run(str(Path(sys.executable).with_name("vae")), *arguments, cwd=cwd, expect=expect)


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
