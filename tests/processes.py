"""Starting train.py and vae as processes of their own."""

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from vae_lightning.cli.app import app
from vae_lightning.launch.train import start

ROOT = Path(__file__).parents[1]
IMPORTED_LATE = (  # by a training or a verb; a fork that finds them here need not
    *("callbacks", "vae_lightning.launch.job", "vae_lightning.launch.sweep", "vae_lightning.report"),
    *("vae_lightning.training.vae_module", "vae_lightning.training.resuming", "vae_lightning.runs.load"),
)
LONGEST = 300  # seconds
SMALL = ["data.image_size=32", "data.batch_size=8", "model.latent_dim=6", "trainer.accelerator=cpu"]


def run(*arguments: str, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, **environment}
    )
    assert finished.returncode == expect, finished.stderr[-3000:]
    return finished


def train(*arguments: str, cwd: Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(ROOT / "train.py"), *arguments, cwd=cwd, expect=expect, **environment)


def fork_train(*words: str, cwd: Path, expect: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`train` in a fork of this process, which has imported all that train.py does: as isolated, without ten seconds.

    What depends on how the interpreter starts, or on signals, needs `train`.
    """
    return _fork([str(ROOT / "train.py"), *words], lambda: start([*words]), cwd, expect, environment)


def fork_vae(*words: str, cwd: Path, expect: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`vae` in a fork of this process."""
    return _fork(["vae", *words], app, cwd, expect, environment)


def _fork(
    arguments: Sequence[str], run_program: Callable[[], int], cwd: Path, expect: int | None, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):  # that a library has threads
            child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            _become(arguments, run_program, cwd, environment)
        status, deadline = None, time.monotonic() + LONGEST
        while status is None:
            finished_child, found = os.waitpid(child, os.WNOHANG)
            status = found if finished_child else None
            if status is None and time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)  # it has inherited a lock that some thread held
            time.sleep(0.01)
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    finished = subprocess.CompletedProcess([*arguments], os.waitstatus_to_exitcode(status), *said)
    assert expect in (None, finished.returncode), finished.stderr[-3000:]
    return finished


def _become(
    arguments: Sequence[str], run_program: Callable[[], int], cwd: Path, environment: dict[str, str]
) -> NoReturn:
    code: object = 1
    try:
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(cwd)
        os.environ.update(environment)
        sys.argv = [*arguments]
        code = run_program()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 (nothing of it may reach the tests of the parent)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


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
