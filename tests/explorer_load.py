"""Fifty people at once on a page of `vae explore`, and its memory over thousands of requests.

A program, and what tests use of it: python tests/explorer_load.py [RUN] [--clients 50] [--requests 10000]
"""

import argparse
import asyncio
import io
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from explored_runs import pictures_in, write_explored_run
from httpx import AsyncClient, Response
from PIL import Image
from processes import wait_for

from vae_lightning.runs.load import load_run
from vae_lightning.runs.run import Run

SECONDS = 120  # for an answer, on a machine that does other things too
REPORTED = (500, 1000, 2000, 5000, 10000)  # requests after which the memory is measured
VISITORS = 8  # at once, while memory is measured
OCTETS = {"Content-Type": "application/octet-stream"}


@contextmanager
def explored(
    run: Path, folder: Path, *options: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a page, and its process; what it prints is in `explored.txt` of the folder."""
    command = [str(Path(sys.executable).with_name("vae")), "explore", str(run), "--no-browser", "--port", "0"]
    log = folder / "explored.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--device", "cpu", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder), **environment},
        )
        try:
            wait_for(lambda: b"Ctrl-C" in log.read_bytes() or process.poll() is not None, 300)
            found = re.search(r"http://\S+/", log.read_text())
            assert found, log.read_text()
            yield found[0], process
        finally:
            process.kill()
            process.wait()


@dataclass
class Visitor:
    """Who asks as the page does, and again when the server is busy."""

    client: AsyncClient
    functions: dict[str, int]  # name -> number
    session: str = field(default_factory=lambda: secrets.token_hex(5))
    refusals: int = 0

    async def ask(self, method: str, path: str, **content: Any) -> Response:
        while True:
            answer = await self.client.request(method, path, **content)
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text[:300]
                return answer
            self.refusals += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]))

    async def event(self, name: str, *values: Any) -> list[np.ndarray]:
        """The pictures of its answer."""
        event = {"data": values, "fn_index": self.functions[name], "session_hash": self.session}
        answer = await self.ask("POST", "gradio_api/run/predict", json=event)
        return pictures_in("".join(part for part in answer.json()["data"] if isinstance(part, str)))

    async def photograph(self, encoded: bytes) -> str:
        """Its value in the controls."""
        answer = await self.ask("POST", "photograph", content=encoded, headers=OCTETS)
        return f"{answer.json()['token']} me.png"

    async def edit(self, photograph: str = "", *, seed: int = 0, shift: float = 0, whole: bool = False) -> np.ndarray:
        """A photograph or else a sample, with the first latent shifted."""
        face = ["Photograph" if photograph else "Sample", 1, photograph, seed, 1]
        sliders = [0] * 6 + [shift] + [0] * 7
        pictures = await self.event(
            "all_shown" if whole else "edit_shown", 0, *face, [], "means", [], "keep", 0, *sliders
        )
        return pictures[-1]


async def functions_of(client: AsyncClient) -> dict[str, int]:
    config = (await client.get("config")).json()
    return {each["api_name"]: each["id"] for each in config["dependencies"]}


def portrait(number: int) -> bytes:
    """Unlike that of any other number."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).resize((300, 400), Image.Resampling.BICUBIC).save(encoded, format="png")
    return encoded.getvalue()


async def at_once(address: str, run: Run, num_clients: int, rounds: int) -> dict[str, Any]:
    """Each client sends its own photographs and moves its own sliders; one more looks how long an answer takes."""
    expected = [[Expected(run, 1000 * who + number) for number in range(rounds)] for who in range(num_clients)]
    async with AsyncClient(base_url=address, timeout=SECONDS, limits=no_limits()) as client:
        functions = await functions_of(client)
        watcher = Visitor(client, functions)
        alone = [await seconds_of(watcher) for _ in range(20)]
        done = asyncio.Event()
        watching = asyncio.create_task(watch(watcher, done))
        visitors = [Visitor(client, functions) for _ in range(num_clients)]
        wrong = await asyncio.gather(*map(look_around, visitors, expected))
        done.set()
        return {
            "alone": alone,
            "among others": await watching,
            "wrong": sum(wrong),
            "refusals": sum(each.refusals for each in visitors),
        }


class Expected:
    """What a client sends, and what has to come back; another for each number."""

    def __init__(self, run: Run, number: int) -> None:
        self.seed, self.photograph = number, portrait(number)
        self.reconstruction = np.asarray(run.reconstruct(Image.open(io.BytesIO(self.photograph)), as_pil=True)[0])
        self.sample = np.asarray(run.sample(1, 1, number, as_pil=True)[0])


async def look_around(visitor: Visitor, expected: Sequence[Expected]) -> int:
    """How many pictures were not its own."""
    wrong = 0
    for each in expected:
        token = await visitor.photograph(each.photograph)
        wrong += not np.array_equal(await visitor.edit(token, whole=True), each.reconstruction)
        for step in range(1, 6):
            await visitor.edit(token, shift=step / 10)
        wrong += not np.array_equal(await visitor.edit(token), each.reconstruction)
        wrong += not np.array_equal(await visitor.edit(seed=each.seed), each.sample)
    return wrong


async def watch(visitor: Visitor, done: asyncio.Event) -> list[float]:
    seen: list[float] = []
    while not done.is_set():
        seen.append(await seconds_of(visitor))
        await asyncio.sleep(0.05)
    return seen


async def seconds_of(visitor: Visitor) -> float:
    start = time.perf_counter()
    await visitor.edit(seed=len(visitor.session), shift=0.5)
    return time.perf_counter() - start


async def memory(address: str, pid: int, num_requests: int) -> list[tuple[int, float]]:
    """(requests, MB) while visitors come and go."""
    measured: list[tuple[int, float]] = []
    async with AsyncClient(base_url=address, timeout=SECONDS, limits=no_limits()) as client:
        functions, made = await functions_of(client), 0
        for mark in (*(mark for mark in REPORTED if mark < num_requests), num_requests):
            while made < mark:
                visits = await asyncio.gather(*(visit(client, functions, made + who) for who in range(VISITORS)))
                made += sum(visits)
            measured.append((made, resident_megabytes(pid)))
    return measured


async def visit(client: AsyncClient, functions: dict[str, int], number: int) -> int:
    """A page is opened, everything on it used, and closed; how many requests that took."""
    visitor = Visitor(client, functions)
    async with client.stream("GET", f"gradio_api/heartbeat/{visitor.session}"):
        await visitor.ask("GET", "")
        await visitor.ask("GET", "theme.css")
        token = await visitor.photograph(portrait(number))
        await visitor.edit(token, whole=True)
        for step in range(10):
            await visitor.edit(token if step % 2 else "", seed=number, shift=step / 10)
        await visitor.event("samples_shown", 0, 16, 1, number, "normal")
        photograph, sample = ["Photograph", 1, token, 0, 1], ["Sample", 1, "", number, 1]
        await visitor.event("between_shown", 0, 30, "spherical", *photograph, *sample)
        await visitor.event("edit_shown", 0, *sample, [], "means", [], "keep", 0, *[10**30] * 14)  # refused in words
    return 18


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def no_limits() -> Any:
    from httpx import Limits

    return Limits(max_connections=None, keepalive_expiry=1)  # the server closes what was idle for 5 s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=REPORTED[-1])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or write_explored_run(folder / "run", folder / "none", folder / "data")
        with explored(run, folder) as (address, process):
            report = asyncio.run(at_once(address, load_run(run), arguments.clients, arguments.rounds))
            for who in ("alone", "among others"):
                say(f"a slider, {who}: {distribution(report[who])}")
            say(f"{arguments.clients} clients: {report['wrong']} wrong pictures, {report['refusals']} told to wait")
            for made, megabytes in asyncio.run(memory(address, process.pid, arguments.requests)):
                say(f"{made:6d} requests: {megabytes:.0f} MB")
        say((folder / "explored.txt").read_text()[-2000:])


def distribution(seconds: list[float]) -> str:
    milliseconds = [1000 * each for each in seconds]
    worst = f"p95 {quantiles(milliseconds, n=20, method='inclusive')[-1]:.0f} ms, longest {max(milliseconds):.0f} ms"
    return f"median {median(milliseconds):.0f} ms, {worst}, of {len(milliseconds)}"


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
