"""The page of `vae explore` under attack: files, other sites, hostile values, too much at once, slow clients."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explored_runs import write_explored_sweep
from PIL import Image

pytest.importorskip("gradio.blocks")  # Gradio leaves a folder behind when it is removed
pytestmark = pytest.mark.extra

from explorer_load import portrait  # noqa: E402
from httpx import ASGITransport, AsyncClient, Response  # noqa: E402  (Gradio brings it)
from starlette.responses import PlainTextResponse  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402

from vae_lightning.explorer import gate, server  # noqa: E402
from vae_lightning.explorer.gate import AT_ONCE, EVENTS, OPEN_PAGES, PHOTOGRAPH, Gate  # noqa: E402
from vae_lightning.explorer.listening import open_socket  # noqa: E402
from vae_lightning.explorer.opening import open_workbench  # noqa: E402
from vae_lightning.explorer.photographs import MOST_BYTES  # noqa: E402
from vae_lightning.explorer.server import AnnouncedServer, build_app  # noqa: E402

HERE = "http://127.0.0.1:7860"
SECRET = "the-content-of-a-secret-file"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[Any]:
    """A page that others see. Gradio's own folder for files, which it would serve, holds a secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        (folder / "gradio" / "deep_links" / "link").mkdir(parents=True)
        (folder / "gradio" / "secret.txt").write_text(SECRET)
        (folder / "gradio" / "deep_links" / "link" / "state.json").write_text(json.dumps([SECRET]))
        bench = open_workbench(str(write_explored_sweep(folder / "sweep")), "best", "cpu", fits=True, shared=True)

        async def build() -> Any:
            return build_app(bench)

        yield asyncio.run(build())  # outside of a loop Gradio makes loops of its own, and leaves them open


def ask(app: Any, method: str, path: str, **content: Any) -> Response:
    return asyncio.run(ask_all(app, [(method, path, content)]))[0]


async def ask_all(app: Any, requests: list[tuple[str, str, dict[str, Any]]]) -> list[Response]:
    async with AsyncClient(transport=ASGITransport(app), base_url=HERE) as client:
        return [await client.request(method, path, **content) for method, path, content in requests]


def paths_of(routes: list[Any]) -> set[str]:
    """Of all routes, also those of routers in routers."""
    found = {route.path for route in routes if getattr(route, "path", "")}
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        found |= paths_of(getattr(inner, "routes", []))
    return found


def attacks(file: Path) -> list[str]:
    up = "../" * 12
    whole, below = str(file), str(file).lstrip("/")
    dots = ["../", "%2e%2e/", "%252e%252e%252f", "..%2f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..;/"]
    return [
        whole, f"/{whole}", whole.replace("/", "%2f"), f"file={whole}", f"file={up}{below}", f"file://{whole}",
        f"{whole}%00.png", f"%00{whole}", "proxy=http://127.0.0.1:9/", "http://127.0.0.1:9/", f"x/{up}{below}",
        f"secret.txt?deep_link={up}{below}", "?deep_link=link", "link/../../secret.txt", "secret.txt", "__proto__",
        "a" * 20_000, "a" * 300, "a/" * 150, "*", ".", "..", "%", *[f"{dot * 12}{below}" for dot in dots],
    ]  # fmt: skip


@pytest.mark.slow
def test_no_file_of_this_machine_comes_through_any_route(app: Any, folder: Path) -> None:
    file = folder / "gradio" / "secret.txt"
    paths = paths_of(app.app.routes)
    assert {
        "/photograph",
        "/gradio_api/file={path_or_url:path}",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
    } < paths
    event = {"data": [{"path": str(file), "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "a"}
    upload = {"files": {"files": ("../../secret.png", b"x")}}
    requests: list[tuple[str, str, dict[str, Any]]] = []
    for path in sorted(paths):
        stem = path.partition("{")[0]
        requests += [("GET", stem + attack, {}) for attack in attacks(file)]
        requests += [(method, path.replace("{", "").replace("}", ""), {"json": event}) for method in ("POST", "PUT")]
        requests += [("POST", stem, upload), ("DELETE", stem, {}), ("TRACE", stem, {}), ("OPTIONS", stem, {})]
    requests = [(method, path, content) for method, path, content in requests if "heartbeat" not in path]
    for (method, path, _), answer in zip(requests, asyncio.run(ask_all(app, requests)), strict=True):
        assert SECRET not in answer.text, (method, path)
        assert str(folder) not in answer.text, (method, path)
        assert answer.status_code < 500, (method, path)
    assert len(requests) > 2000


def test_a_page_that_others_see_says_no_path_in_any_answer(app: Any, folder: Path) -> None:
    sample = ["Sample", 1, "", 3, 0.5]
    events = {
        "edit_shown": [0, *sample, [], "means", [], "keep", 0, *[0] * 14],
        "all_shown": [0, "Photograph", 1, "guessed me.png", 0, 1, [], "means", [], "keep", 0, *[0] * 14],
        "runs_shown": [*sample, 1, 0, None, 0],
        "samples_shown": [0, 4, 1, 0, "normal"],
    }
    answers = asyncio.run(ask_all(app, [("GET", "/", {}), ("GET", "/config", {})]))
    numbers = {each["api_name"]: each["id"] for each in answers[1].json()["dependencies"]}
    for name, values in events.items():
        event = {"data": values, "fn_index": numbers[name], "session_hash": "a"}
        answers.append(ask(app, "POST", "/gradio_api/run/predict", json=event))
    for answer in answers:
        assert answer.status_code == 200
        assert str(folder) not in answer.text
        assert f"{Path.home()}/" not in answer.text
    assert "load_run" in answers[2].text
    assert "no longer in memory" in answers[3].text


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "http://127.0.0.1:7861", "null"])
def test_pages_of_other_sites_get_nothing(origin: str, app: Any) -> None:
    wanted = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", PHOTOGRAPH), ("OPTIONS", PHOTOGRAPH)):
        answer = ask(app, method, path, headers=wanted | OCTETS, content=b"a" if method == "POST" else None)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert ask(app, "POST", "/gradio_api/run/predict", json={}, headers={"Origin": origin}).status_code == 403
    own = ask(app, "GET", "/", headers={"Origin": HERE})
    assert own.status_code == 200
    assert own.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "host",
    [
        *("[", "[::1", "127.0.0.1:7860@evil.example", "", "127.0.0.1.", "\x00"),
        *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860"),
    ],
)
def test_a_host_that_is_not_this_machine_or_makes_no_sense_is_refused(host: str, app: Any) -> None:
    assert ask(app, "GET", "/", headers={"Host": host}).status_code == 421


def test_this_machines_own_names_are_answered_and_with_host_any_other(app: Any) -> None:
    for host in ("localhost:7860", "[::1]:7860", "127.0.0.1"):
        assert ask(app, "GET", "/", headers={"Host": host}).status_code == 200
    assert ask(Gate(app.app, (), {}), "GET", "/", headers={"Host": "faces.example"}).status_code == 200


def test_what_a_proxy_might_say_does_not_change_the_page(app: Any) -> None:
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    answer = ask(app, "GET", "/config", headers=forged)
    assert answer.json()["root"] == HERE
    assert "evil.example" not in answer.text


def test_large_and_unmeasured_bodies_are_refused_unread(app: Any) -> None:
    async def parts() -> Any:
        yield b"a"

    for path, most in ((PHOTOGRAPH, MOST_BYTES), (f"{EVENTS}predict", gate.MOST_BYTES_OF_AN_EVENT)):
        both = {"Transfer-Encoding": "chunked", "Content-Length": "5"}
        assert ask(app, "POST", path, content=b"abcde", headers=both | OCTETS).status_code == 413
        assert ask(app, "POST", path, content=parts(), headers=OCTETS).status_code == 413
        assert ask(app, "POST", path, content=bytes(most + 1), headers=OCTETS).status_code == 413
    assert (
        ask(app, "POST", PHOTOGRAPH, content=b"a", headers={"Content-Type": "text/plain"}).status_code == 415
    )  # a form


async def answer_of(app: Any, scope: Scope) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_websockets_are_closed(app: Any) -> None:
    scope = {"type": "websocket", "path": "/gradio_api/queue/join", "headers": []}
    assert [message["type"] for message in asyncio.run(answer_of(app, scope))] == ["websocket.close"]


HOSTILE = [
    None, True, -1, 0.5, 10**9, 10**30, 10**4000, -1e300, float("nan"), float("inf"), "", "1", "../../etc/passwd",
    "x" * 50_000, "<script>", "\x00", [], ["Nope"] * 1000, ["Attribute_03"] * 7, "{}", "[" * 9000,
]  # fmt: skip


@pytest.mark.slow
def test_no_value_of_any_control_makes_more_than_a_line_on_the_page(
    app: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    photograph, sample, test = ["Photograph", 1, "a me.png", 1, 1], ["Sample", 1, "", 1, 1], ["Test face", 1, "", 1, 1]
    edit = [[], "means", [], "keep", 0, *[0] * 14]
    good: dict[str, list[Any]] = {
        "edit_shown": [0, *photograph, *edit],
        "runs_shown": [*sample, 1, 0, "Attribute_03", 0],
        "between_shown": [0, 50, "linear", *sample, *test],
        "samples_shown": [0, 2, 0.7, 0, "normal"],
    }
    config = ask(app, "GET", "/config").json()
    numbers = {each["api_name"]: each["id"] for each in config["dependencies"]}
    asked = [
        ([*values[:place], hostile, *values[place + 1 :]], numbers[name])
        for name, values in good.items()
        for place in range(min(len(values), 10))  # those after it are sliders like it
        for hostile in HOSTILE
    ]
    others = [each for each in config["dependencies"] if each["api_name"] not in good and len(each["inputs"]) == 1]
    asked += [([hostile], each["id"]) for each in others for hostile in HOSTILE]
    events = [{"data": values, "fn_index": number, "session_hash": "a"} for values, number in asked]
    contents = [{"content": json.dumps(event), "headers": {"Content-Type": "application/json"}} for event in events]
    requests = [("POST", "/gradio_api/run/predict", content) for content in contents]
    statuses = set()
    for request, answer in zip(requests, asyncio.run(ask_all(app, requests)), strict=True):
        assert answer.status_code in (200, 400), request
        assert len(answer.text) < 2**20, request
        statuses.add("problem" if 'role=\\"alert' in answer.text else answer.status_code)
    assert statuses == {"problem", 200}
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_number_beyond_its_slider_is_a_line_on_the_page(app: Any, capfd: pytest.CaptureFixture[str]) -> None:
    config = ask(app, "GET", "/config").json()
    number = next(each["id"] for each in config["dependencies"] if each["api_name"] == "samples_shown")
    event = {"data": [0, 16, 5, 0, "normal"], "fn_index": number, "session_hash": "a"}
    answer = ask(app, "POST", "/gradio_api/run/predict", json=event)
    assert answer.status_code == 200
    assert "temperature: needs a number from 0 to 2<" in answer.json()["data"][-1]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("kind", [PHOTOGRAPH, EVENTS, OPEN_PAGES])
def test_beyond_what_is_under_way_visitors_are_told_to_come_again(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(AT_ONCE, kind, 3)
    path = {PHOTOGRAPH: PHOTOGRAPH, EVENTS: f"{EVENTS}predict", OPEN_PAGES: f"{OPEN_PAGES}a"}[kind]
    worked_on: list[int] = [0, 0]  # now, and at most

    async def busy() -> list[Response]:
        goes_on = asyncio.Event()

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            worked_on[0] += 1
            worked_on[1] = max(worked_on)
            await goes_on.wait()
            worked_on[0] -= 1
            await PlainTextResponse("done")(scope, receive, send)

        async with AsyncClient(transport=ASGITransport(Gate(answer, (), {0: 0})), base_url=HERE) as client:  # type: ignore[arg-type]

            async def one() -> Response:
                event = {"data": [], "fn_index": 0, "session_hash": "a"}
                return await (client.get(path) if kind == OPEN_PAGES else client.post(path, json=event))

            first = [asyncio.create_task(one()) for _ in range(3)]
            await asyncio.sleep(0.05)
            refusals = [await one(), await one()]
            goes_on.set()
            return [*refusals, *await asyncio.gather(*first), await one()]

    answers = asyncio.run(busy())
    assert [answer.status_code for answer in answers] == [503, 503, 200, 200, 200, 200]
    assert int(answers[0].headers["Retry-After"]) > 0
    assert "try again" in answers[0].json()["problem"]
    assert worked_on[1] == min(3, gate.WORKED_ON.get(kind, 3))


def test_a_photograph_is_looked_at_in_memory_and_refused_in_one_line(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frames = [Image.new("RGB", (200, 250), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:] * 50)
    moving = (tmp_path / "moving.gif").read_bytes()
    (tmp_path / "moving.gif").unlink()
    assert ask(app, "POST", PHOTOGRAPH, content=moving, headers=OCTETS).status_code == 200
    multipart = b'--a\r\nContent-Disposition: form-data; name="a"; filename="../../a.png"\r\n\r\nx\r\n' * 1000
    good = portrait(1)
    for content in (multipart, good[: len(good) // 2], b"<html>", good[:33] + good[50:], b"GIF89a", b"BM" + bytes(60)):
        answer = ask(app, "POST", PHOTOGRAPH, content=content, headers=OCTETS)
        assert answer.status_code == 400
        words = answer.json()["problem"]
        assert "\n" not in words
        assert len(words) < 200
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def port(app: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of an impatient server."""
    monkeypatch.setattr(server, "SECONDS_TO_ASK", 1)
    monkeypatch.setattr(gate, "SECONDS_TO_SEND", 1)
    answers, listener = threading.Event(), open_socket("127.0.0.1", 0)
    served = AnnouncedServer(app, answers.set)
    thread = threading.Thread(target=lambda: served.run(sockets=[listener]), daemon=True)
    thread.start()
    assert answers.wait(60)
    yield listener.getsockname()[1]
    served.should_exit = True
    thread.join(60)


@pytest.mark.slow
def test_who_sends_nothing_whole_is_sent_away(port: int) -> None:
    post = b"POST /photograph HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nabc"
    closed = {b"": b"", b"GET / HT": b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n": b"", post: b"HTTP/1.1 408"}
    connections = [socket.create_connection(("127.0.0.1", port), 60) for _ in closed]
    for connection, beginning in zip(connections, closed, strict=True):
        connection.sendall(beginning)
    for connection, answer in zip(connections, closed.values(), strict=True):
        with connection:
            assert connection.recv(12) == answer
    with socket.create_connection(("127.0.0.1", port), 60) as connection:  # a page that is open stays so
        connection.sendall(b"GET /gradio_api/heartbeat/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        time.sleep(2.5)
        connection.sendall(b" ")
        received = connection.recv(10_000)
        assert received
