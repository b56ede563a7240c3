"""Nobody is asked anything: each look-up of a name and each connection to elsewhere fails here, and is written down."""

import os
import sys
from pathlib import Path

import processes
import pytest
from conftest import write_celeba

from vae_lightning.launch.sweep import engines

# Python runs this file at the start of each process that has its folder on PYTHONPATH, workers included
WATCHER = """
import os, sys

LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
HERE = ("127.", "::1", "localhost", "0.0.0.0", "None")


def watch(event, arguments):
    if event in LOOK_UPS:
        host = arguments[0]
    elif event in CONNECTIONS and isinstance(arguments[1], tuple):  # of Unix sockets it is a path
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if not host.startswith(HERE) and host not in ("", os.uname().nodename):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {host} {' '.join(sys.orig_argv)[:200]}\\n")
        raise OSError(101, "Network is unreachable")


sys.addaudithook(watch)
"""
VERBS = """
import sys
from vae_lightning.cli.app import app
for line in sys.argv[1:]:
    try:
        app(line.split("|"))
    except SystemExit as ended:
        assert ended.code == 0, line
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that is watched."""
    (tmp_path / "watcher").mkdir()
    (tmp_path / "watcher" / "sitecustomize.py").write_text(WATCHER)
    (tmp_path / "asked.txt").touch()
    paths = [str(tmp_path / "watcher"), str(processes.ROOT)]
    return {"PYTHONPATH": os.pathsep.join(paths), "ASKED": str(tmp_path / "asked.txt"), "OMP_NUM_THREADS": "1"}


def asked(environment: dict[str, str]) -> str:
    return Path(environment["ASKED"]).read_text()


@pytest.mark.process
@pytest.mark.slow
def test_the_watcher_sees_who_asks(tmp_path: Path, watched: dict[str, str]) -> None:
    program = "import urllib.request as web\ntry:\n    web.urlopen('http://example.invalid')\nexcept OSError:\n    pass"
    processes.run(sys.executable, "-c", program, cwd=tmp_path, **watched)
    assert "socket.getaddrinfo example.invalid" in asked(watched)


@pytest.mark.nightly
@pytest.mark.process
def test_training_and_every_verb_ask_nobody(tmp_path: Path, watched: dict[str, str]) -> None:
    root = write_celeba(tmp_path / "celeba", 200)
    settings = ["data=celeba", f"data.root={root}", "data.data_dir=data", "trainer.max_epochs=1"]
    processes.train(*processes.SMALL, *settings, "hydra.run.dir=run", cwd=tmp_path, **watched)
    lines = [
        f"prepare|{root}",
        *(f"{verb}|run|--device|cpu" for verb in ("sample", "reconstruct", "traverse", "interpolate")),
        "evaluate|run|--device|cpu|--importance-samples|2",
        "edit|directions|run|--device|cpu",
        "edit|attribute|run|Attribute_01|--unit|std|--device|cpu",
        "export|run|exported",
        "sample|exported|--device|cpu",
    ]
    processes.run(sys.executable, "-c", VERBS, *lines, cwd=tmp_path, **watched)
    assert not asked(watched)
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "evaluation" / "card.json").is_file()


@pytest.mark.nightly
@pytest.mark.process
def test_rendering_and_a_sweep_ask_nobody(tmp_path: Path, watched: dict[str, str]) -> None:
    settings = ["data=faces", "data.faces_count=60", "data.data_dir=data", "trainer.max_epochs=1", "sweep=betas"]
    processes.train("-m", "beta=1,4", *processes.SMALL, *settings, cwd=tmp_path, **watched)
    assert (tmp_path / "multirun" / "betas" / "report.html").is_file()
    assert not asked(watched)


@pytest.mark.extra
@pytest.mark.parametrize(("before", "after"), [(None, "0"), ("1", "1")])
def test_a_ray_that_starts_here_reports_to_nobody_unless_told_to(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", before or "")  # is taken back after the test
    if before is None:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    seen = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: seen.append(os.environ["RAY_USAGE_STATS_ENABLED"]))
    monkeypatch.setattr(ray, "nodes", list)
    engines.start_ray({})
    assert seen == [after]
