"""The page of `vae explore`: what its server refuses, and what a person does in a headless Chromium."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import PAGE_SECONDS, needs_browser
from conftest import write_images
from explored_runs import pixels_of, write_explored_sweep
from PIL import Image
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.support.ui import WebDriverWait

pytest.importorskip("gradio.blocks")  # Gradio leaves a folder behind when it is removed
pytestmark = [pytest.mark.extra, pytest.mark.process]

from httpx import ASGITransport, AsyncClient, Response  # noqa: E402  (Gradio brings it)

from vae_lightning.explorer.gate import AT_ONCE, PHOTOGRAPH, plain_event  # noqa: E402
from vae_lightning.explorer.listening import open_socket  # noqa: E402
from vae_lightning.explorer.opening import open_workbench  # noqa: E402
from vae_lightning.explorer.server import AnnouncedServer, build_app  # noqa: E402
from vae_lightning.explorer.workbench import Workbench  # noqa: E402
from vae_lightning.runs.load import load_run  # noqa: E402

MAIN = "return [...document.querySelectorAll('.picture.main img')].find((image) => image.checkVisibility())?.src"
SHOWN = "[...document.querySelectorAll(arguments[0])].filter((element) => element.checkVisibility())"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    sweep = write_explored_sweep(tmp_path_factory.mktemp("explored") / "sweep")
    return open_workbench(str(sweep), "best", "cpu", fits=True)


@pytest.fixture(scope="module")
def app(bench: Workbench) -> Any:
    async def build() -> Any:
        return build_app(bench)

    return asyncio.run(build())  # outside of a loop Gradio makes loops of its own, and leaves them open


@pytest.fixture(scope="module")
def address(app: Any) -> Iterator[str]:
    listener = open_socket("127.0.0.1", 0)
    answers = threading.Event()
    server = AnnouncedServer(app, answers.set)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    assert answers.wait(PAGE_SECONDS)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(PAGE_SECONDS)


def ask(app: Any, method: str, path: str, **content: Any) -> Response:
    async def one() -> Response:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1:7860") as client:
            return await client.request(method, path, **content)

    return asyncio.run(one())


def test_the_page_allows_nothing_from_other_hosts(app: Any) -> None:
    page = ask(app, "GET", "/")
    assert page.status_code == 200
    assert "sweep" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=CHECKPOINT",
        "/file=/etc/passwd",
        "/gradio_api/file//etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/stream/x",
        "/gradio_api/upload",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/queue/join",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/login",
        "/assets/../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_file_and_no_route_but_the_pages_own_can_be_had(method: str, path: str, app: Any, bench: Workbench) -> None:
    path = path.replace("CHECKPOINT", str(bench.runs[0].vae.path))
    answer = ask(app, method, path, content=b"" if method == "POST" else None)
    assert answer.status_code in (404, 405)
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "event",
    [
        {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]},
        {"data": [[{"path": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}}]]},
        {"data": {"path": "/etc/passwd"}},
        {"data": [["a", ["b"]]]},
        {"data": []},
        {"data": [1, 2]},
        {"data": None},
        {"data": ["\ud800"]},
        {"fn_index": 10**30},
        {"fn_index": -1},
        {"fn_index": True},
        {"fn_index": [0]},
        {"fn_index": None},
        {"session_hash": None},
        {"session_hash": {"a": 1}},
        {"session_hash": "a" * 33},
        {"session_hash": "../x"},
    ],
)
def test_an_event_brings_positions_of_controls_and_no_files(event: dict[str, object], app: Any) -> None:
    content = json.dumps({"data": ["Sample"], "fn_index": 0, "session_hash": "a"} | event).encode()
    assert plain_event(content, app.num_values) is None
    assert ask(app, "POST", "/gradio_api/run/predict", content=content).text == "only positions of controls"


def test_of_an_event_only_what_is_needed_goes_on(app: Any) -> None:
    wanted = {"data": [0, "Test face", 1.5, None, ["Smiling"], True], "fn_index": 3, "session_hash": "a1"}
    sent = wanted | {"event_id": "b", "trigger_id": 7, "event_data": {"path": "/etc/passwd"}, "__proto__": {"a": 1}}
    assert json.loads(plain_event(json.dumps(sent).encode(), {3: 6}) or b"") == wanted
    for broken in (b"", b"[1]", b"null", b"[" * 100_000, b"\xff", b"9" * 5000, b'{"data": NaN}'):
        assert plain_event(broken, {3: 6}) is None


def test_what_a_visitor_sends_leaves_no_file(app: Any, bench: Workbench, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    write_images(tmp_path, ["me.png"], (178, 218))
    octets = {"Content-Type": "application/octet-stream"}
    answer = ask(app, "POST", "/photograph", content=(tmp_path / "me.png").read_bytes(), headers=octets)
    pixels = bench.photographs.pixels(answer.json()["token"], bench.runs[0].vae)
    assert pixels.equal(bench.runs[0].vae.preprocess(Image.open(tmp_path / "me.png"))[0])
    refusal = ask(app, "POST", "/photograph", content=b"rubbish", headers=octets)
    assert refusal.status_code == 400
    assert "not an image" in refusal.json()["problem"]
    assert [path.name for path in tmp_path.iterdir()] == ["me.png"]


@pytest.fixture
def page(address: str, browser: Chrome, tmp_path: Path) -> Iterator[Chrome]:
    """On its first tab; afterwards `page.png` shows it."""
    browser.get(address)
    wait_for(browser, f"return {SHOWN}.length", "figure img")
    yield browser
    browser.save_screenshot(str(tmp_path / "page.png"))


def wait_for(browser: Chrome, script: str, *arguments: object, until: Callable[[Any], bool] = bool) -> Any:
    """What the script returns once `until` says that it is right."""
    seen: Any = None

    def is_right(_: object) -> bool:
        nonlocal seen
        seen = browser.execute_script(script, *arguments)
        return until(seen)

    try:
        WebDriverWait(browser, PAGE_SECONDS, 0.05, [WebDriverException]).until(is_right)
    except TimeoutException:
        pytest.fail(f"there is {str(seen)[:300]} instead, from {script} {arguments}")
    return seen


def shown(browser: Chrome, selector: str) -> list[Any]:
    return list(browser.execute_script(f"return {SHOWN}", selector))


def open_tab(browser: Chrome, name: str) -> None:
    next(tab for tab in shown(browser, "button[role=tab]") if tab.text == name).click()


def slider(browser: Chrome, label: str) -> Any:
    found = wait_for(
        browser,
        f"return {SHOWN}.find((element) => element.ariaLabel.includes(arguments[1]))",
        "input[type=range]",
        label,
    )
    return found


@needs_browser
def test_all_runs_stand_side_by_side_and_move_together(page: Chrome, bench: Workbench) -> None:
    columns = f"return {SHOWN}.map((image) => image.src)"
    captions = [caption.text.split("\n")[0] for caption in shown(page, ".runs figcaption")]
    assert captions == ["β=1", "β=4"]
    assert any("β=10 (failed) is left out" in note.text for note in shown(page, ".notes li"))
    before = page.execute_script(columns, ".runs img")
    for number, source in enumerate(before):
        run = load_run(bench.runs[number].vae.path)
        face = run.held_out_faces("test", 100)[0]
        assert np.array_equal(pixels_of(source), np.asarray(run.reconstruct(face, as_pil=True)[0]))
    slider(page, "Shift of this latent").send_keys(Keys.ARROW_RIGHT)
    wait_for(page, columns, ".runs img", until=lambda now: len(now) == 2 and not set(now) & set(before))


@needs_browser
def test_an_arrow_key_on_a_slider_changes_the_face_and_a_button_resets_it(page: Chrome) -> None:
    open_tab(page, "One face")
    before = wait_for(page, MAIN)
    slider(page, "Latent ").send_keys(Keys.ARROW_RIGHT)
    wait_for(page, MAIN, until=lambda now: now and now != before)
    caption = "return [...document.querySelectorAll('.picture.main figcaption span')][0].textContent"
    assert "+0.1" in page.execute_script(caption)
    next(button for button in shown(page, "button") if button.text == "Reset all sliders").click()
    wait_for(page, MAIN, until=lambda now: now == before)


@needs_browser
def test_a_photograph_is_reconstructed_and_a_broken_one_leaves_it(
    page: Chrome, bench: Workbench, tmp_path: Path
) -> None:
    write_images(tmp_path, ["me.png"], (300, 400))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    open_tab(page, "One face")
    before = wait_for(page, MAIN)
    next(label for label in shown(page, "label") if label.text == "Photograph").click()
    choose = f"return {SHOWN}[0]"
    wait_for(page, choose, "input[type=file]").send_keys(str(tmp_path / "me.png"))
    source = wait_for(page, MAIN, until=lambda now: now and now != before)
    run = bench.runs[0].vae
    expected = run.reconstruct(Image.open(tmp_path / "me.png"), as_pil=True)[0]
    assert np.array_equal(pixels_of(source), np.asarray(expected))
    wait_for(page, choose, "input[type=file]").send_keys(str(tmp_path / "broken.png"))
    status = f"return {SHOWN}.map((element) => element.textContent).join()"
    wait_for(page, status, ".status", until=lambda words: "broken.png: it is not an image" in words)
    assert page.execute_script(MAIN) == source


@needs_browser
@pytest.mark.slow
def test_a_photograph_waits_while_the_server_is_busy_and_comes_through(
    page: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AT_ONCE, PHOTOGRAPH, 0)
    write_images(tmp_path, ["waiting.png"], (300, 400))
    open_tab(page, "One face")
    before = wait_for(page, MAIN)
    next(label for label in shown(page, "label") if label.text == "Photograph").click()
    wait_for(page, f"return {SHOWN}[0]", "input[type=file]").send_keys(str(tmp_path / "waiting.png"))
    status = f"return {SHOWN}.map((element) => element.textContent).join()"
    wait_for(page, status, ".status", until=lambda words: "waiting.png waits: many photographs" in words)
    assert page.execute_script(MAIN) == before
    monkeypatch.setitem(AT_ONCE, PHOTOGRAPH, 1)
    assert wait_for(page, MAIN, until=lambda now: now and now != before)


@needs_browser
def test_another_run_and_another_face_are_shown(page: Chrome, bench: Workbench) -> None:
    open_tab(page, "Two faces")
    before = wait_for(page, MAIN)
    slider(page, "Second face: number").send_keys(Keys.ARROW_RIGHT)
    wait_for(page, MAIN, until=lambda now: now and now != before)
    slider(page, "Way from").send_keys(Keys.HOME)
    run = bench.runs[0].vae
    first = run.reconstruct(run.held_out_faces("test", 100)[0], as_pil=True)[0]
    wait_for(page, MAIN, until=lambda now: now and np.array_equal(pixels_of(now), np.asarray(first)))
    open_tab(page, "Samples")
    sheet = f"return {SHOWN}[0]?.src"
    sixteen = wait_for(page, sheet, ".picture.sheet img")
    expected = [np.asarray(face) for face in run.sample(16, 0.7, 0, as_pil=True)]
    assert np.array_equal(pixels_of(sixteen)[:32, :32], expected[0])
    next(button for button in shown(page, "button") if button.text == "Other faces").click()
    wait_for(page, sheet, ".picture.sheet img", until=lambda now: now and now != sixteen)


@needs_browser
@pytest.mark.parametrize("tab", ["All runs", "One face", "Two faces", "Samples"])
def test_every_control_and_picture_has_a_name_and_a_phone_shows_all(tab: str, page: Chrome) -> None:
    open_tab(page, tab)
    wait_for(page, f"return {SHOWN}.length", "figure img")
    nameless = page.execute_script(
        """const named = (element) => element.ariaLabel || element.title || element.textContent.trim()
          || (element.labels && [...element.labels].some((label) => label.textContent.trim()))
          || element.getAttribute('aria-labelledby');
        return [...document.querySelectorAll('button, input, select, textarea, a')]
          .filter((element) => element.checkVisibility() && !named(element)).map((element) => element.outerHTML);"""
    )
    assert nameless == []
    assert all(image.get_attribute("alt") for image in shown(page, "img"))
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        wait_for(page, "return document.documentElement.scrollWidth", until=lambda width: width <= 390)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_the_browser_asks_no_other_host_and_has_no_complaint(address: str, page: Chrome) -> None:
    page.get_log("performance")  # of other pages
    page.get_log("browser")
    page.refresh()
    wait_for(page, f"return {SHOWN}.length", "figure img")
    for tab in ("One face", "Two faces", "Samples", "All runs"):
        open_tab(page, tab)
        wait_for(page, f"return {SHOWN}.length", "figure img")
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith("data:")}
    assert hosts == {urlsplit(address).netloc}
    assert [entry["message"] for entry in page.get_log("browser")] == []
