"""The server of `vae explore` as a process: no connection to anywhere, a quick end, fifty visitors at once."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from explored_runs import write_explored_run
from test_no_network import WATCHER

pytest.importorskip("gradio.blocks")  # Gradio leaves a folder behind when it is removed
pytestmark = pytest.mark.extra

from explorer_load import (  # noqa: E402
    Visitor,
    at_once,
    explored,
    functions_of,
    memory,
    no_limits,
    portrait,
)
from httpx import AsyncClient  # noqa: E402  (Gradio brings it)

from vae_lightning.runs.load import load_run  # noqa: E402


@pytest.mark.nightly
@pytest.mark.process
@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM]])
def test_the_server_asks_nobody_and_ends_at_once_and_without_a_word(signals: list[int], tmp_path: Path) -> None:
    run = write_explored_run(tmp_path / "run", tmp_path / "none", tmp_path / "data")
    asked = tmp_path / "asked.txt"
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(WATCHER)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    paths = os.pathsep.join([str(tmp_path / "guard"), str(processes.ROOT)])
    environment = {"PYTHONPATH": paths, "ASKED": str(asked), "GRADIO_ANALYTICS_ENABLED": "True"}
    with explored(run, temporary, **environment) as (address, process):
        asyncio.run(everything_once(address, load_run(run)))
        with socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2])), 60) as page:
            page.sendall(b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert page.recv(12) == b"HTTP/1.1 200"
            for each in signals:
                process.send_signal(each)
                time.sleep(0.05)
            assert process.wait(60) in (0, -signal.SIGINT)  # the latter where the second came last
        assert not asked.exists()
        printed = (temporary / "explored.txt").read_text().strip()
        assert printed == f"run: {address} (Ctrl-C ends it)"
        assert [path.name for path in temporary.rglob("*") if path.is_file()] == ["explored.txt"]


async def everything_once(address: str, run: Any) -> None:
    async with AsyncClient(base_url=address, timeout=60, limits=no_limits()) as client:
        visitor = Visitor(client, await functions_of(client))
        await visitor.ask("GET", "")
        token = await visitor.photograph(portrait(0))
        expected = run.sample(1, 1, 7, as_pil=True)[0]
        assert np.array_equal(await visitor.edit(seed=7), np.asarray(expected))
        await visitor.edit(token, whole=True)


@pytest.mark.nightly
@pytest.mark.process
def test_fifty_at_once_get_their_own_pictures_and_memory_stays_flat(tmp_path: Path) -> None:
    run = write_explored_run(tmp_path / "run", tmp_path / "none", tmp_path / "data")
    with explored(run, tmp_path) as (address, process):
        report = asyncio.run(at_once(address, load_run(run), 50, 1))
        assert report["wrong"] == 0
        assert report["refusals"] > 0  # fifty photographs at once, of which 16 are let in
        assert len(report["among others"]) > 1
        (_, before), (_, after) = asyncio.run(memory(address, process.pid, 1000))[-2:]
        assert after - before < 60, "MB"
        assert "Traceback" not in (tmp_path / "explored.txt").read_text()
