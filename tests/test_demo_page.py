"""The browser demo as a person uses it, in a headless Chromium."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from chromium import PAGE_SECONDS, needs_browser
from demo_runs import LATENTS, directions, fitted_run, ladder_run, mixture
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from torch import Tensor

from vae_lightning.export.browser_runtime import browser_runtime
from vae_lightning.export.demo import DECODER, write_demo
from vae_lightning.runs.run import Run

pytestmark = [pytest.mark.browser, pytest.mark.extra, needs_browser]
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
from vae_lightning.export.onnx_files import write_onnx  # noqa: E402  # after what it needs

SAMPLES = 4_000


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fitted_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    try:
        runtime = browser_runtime()
    except ValueError as error:
        pytest.skip(str(error))
    write_onnx(run.model, place / DECODER)
    return write_demo(run, place / DECODER, place / "demo", runtime)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


@pytest.fixture
def open_page(address: str, browser: Chrome, tmp_path: Path) -> Iterator[Callable[[str], Chrome]]:
    """`open_page("#seed=5")` waits for the first picture. What is there at the end is kept as page.png."""

    def open_it(fragment: str = "#seed=5") -> Chrome:
        browser.get("about:blank")  # another fragment alone would not load anything
        browser.get(address + fragment)
        wait_for_pictures(browser, 1)
        return browser

    yield open_it
    browser.save_screenshot(str(tmp_path / "page.png"))


def wait_for_pictures(browser: Chrome, count: int) -> None:
    script = "return window.demo?.pictures >= arguments[0]"
    WebDriverWait(browser, PAGE_SECONDS, 0.05).until(lambda _: browser.execute_script(script, count), status(browser))


def wait_for_new_picture(browser: Chrome, before: list[float]) -> list[float]:
    WebDriverWait(browser, PAGE_SECONDS, 0.05).until(lambda _: latents(browser) != before, status(browser))
    return latents(browser)


def status(browser: Chrome) -> str:
    return browser.find_element(By.ID, "status").text


def latents(browser: Chrome) -> list[float]:
    found: list[float] = browser.execute_script("return window.demo.latents")
    return found


def picture(browser: Chrome, canvas: str = "face") -> np.ndarray:
    """What the canvas holds: height, width, RGBA."""
    levels, size = browser.execute_script(
        """const canvas = document.getElementById(arguments[0]);
        const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return [Array.from(image.data), canvas.width];""",
        canvas,
    )
    return np.array(levels, np.int64).reshape(size, size, 4)


def decoded(run: Run, values: list[float]) -> Tensor:
    """The same latents in PyTorch: height, width, RGB in 0 to 255."""
    return 255 * run.decode(torch.tensor([values]))[0].permute(1, 2, 0)


def assert_shows(shown: np.ndarray, expected: Tensor) -> None:
    assert np.abs(shown[..., :3] - expected.numpy()).max() <= 1
    assert (shown[..., 3] == 255).all()


def test_pictures_are_pytorchs_and_nothing_leaves_the_machine(
    open_page: Callable[..., Chrome], address: str, run: Run
) -> None:
    for log in ("performance", "browser"):  # of earlier pages
        open_page().get_log(log)
    browser = open_page("#seed=7&temperature=1.2&prior=gaussian&latent.3=-2.5")
    expected = decoded(run, latents(browser))
    assert expected.std() > 3  # a picture, not one gray
    assert_shows(picture(browser), expected)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert f"{address}demo.json" in asked
    assert [url for url in asked if not url.startswith((address, "about:"))] == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_sliders_move_the_face_by_keyboard(open_page: Callable[..., Chrome], run: Run) -> None:
    browser = open_page()
    before = latents(browser)
    slider = browser.find_element(By.ID, f"latent-{LATENTS - 1}")  # the most active
    slider.send_keys(Keys.ARROW_RIGHT)
    after = wait_for_new_picture(browser, before)
    moved = [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert moved == [LATENTS - 1]
    assert_shows(picture(browser), decoded(run, after))
    browser.find_element(By.ID, "reset").click()
    assert wait_for_new_picture(browser, after) == before
    # 20 steps of 0.05: strength 1, as `vae edit` moves
    browser.find_element(By.ID, "attribute-Smiling").send_keys(Keys.ARROW_RIGHT * 20)
    WebDriverWait(browser, PAGE_SECONDS).until(lambda _: "attribute.Smiling=1" in browser.current_url)
    shift = directions().direction("Smiling").shift(1.0)
    assert torch.tensor(latents(browser)) - torch.tensor(before) == pytest.approx(shift, abs=1e-3)


def test_a_link_brings_the_same_faces_back(open_page: Callable[..., Chrome], run: Run) -> None:
    browser = open_page("#seed=1&prior=normal")
    first = latents(browser)
    browser.find_element(By.ID, "keep-a").click()
    browser.find_element(By.ID, "new-face").click()
    second = wait_for_new_picture(browser, first)
    browser.find_element(By.ID, "keep-b").click()
    browser.execute_script(
        "const slider = document.getElementById('between-input');"
        "slider.value = 0.25; slider.dispatchEvent(new Event('input'));"
    )
    between = wait_for_new_picture(browser, second)
    assert between == pytest.approx([0.75 * a + 0.25 * b for a, b in zip(first, second, strict=True)], abs=1e-5)
    WebDriverWait(browser, PAGE_SECONDS).until(lambda _: "between=0.25" in browser.current_url)
    fragment = "#" + browser.current_url.partition("#")[2]
    browser = open_page(fragment)
    assert latents(browser) == between
    assert_shows(picture(browser, "picture-a"), decoded(run, first))
    browser = open_page("#seed=-1&attribute.Smyling=1")
    assert "attribute.Smyling=1" in status(browser)
    assert "seed=-1" in status(browser)


def test_samples_have_the_priors_moments(open_page: Callable[..., Chrome]) -> None:
    browser = open_page()
    samples = torch.tensor(
        browser.execute_async_script(
            """const [count, done] = arguments;
            const { sampleLatents, unpackFloats } = await import('./sampling.js');
            const { priors } = await (await fetch('demo.json')).json();
            const mixture = priors.find((prior) => prior.name === 'gmm');
            for (const part of mixture.components) part.cholesky = unpackFloats(part.cholesky);
            done(Array.from({ length: count }, (_, seed) => Array.from(sampleLatents(mixture, seed, 1))));""",
            SAMPLES,
        ),
        dtype=torch.float64,
    )
    reference = mixture().sample(200_000, torch.Generator().manual_seed(0)).double()
    errors = 5 * reference.std(0) / SAMPLES**0.5
    assert ((samples.mean(0) - reference.mean(0)).abs() < errors).all()
    assert torch.allclose(samples.T.cov(), reference.T.cov(), atol=0.1 * float(reference.var(0).max()))


def test_finer_latents_follow_the_sample_at_their_own_temperature(open_page: Callable[..., Chrome]) -> None:
    coarse, *finer = open_page().execute_async_script(
        """const [done] = arguments;
        const { sampleLatents } = await import('./sampling.js');
        const prior = { components: [{ weight: 1, mean: [5], spread: [0] }] };
        done(sampleLatents(prior, 3, 1, { count: 4000, temperature: 0.5 }));"""
    )
    assert coarse == 5
    assert len(finer) == SAMPLES
    assert abs(np.mean(finer)) < 0.04
    assert np.std(finer) == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_a_ladders_page_has_a_temperature_for_its_finer_levels(browser: Chrome, folder: Path, tmp_path: Path) -> None:
    run = ladder_run(tmp_path / "run")
    write_onnx(run.model, tmp_path / DECODER)
    page = write_demo(run, tmp_path / DECODER, tmp_path / "demo", folder)
    with serving(page) as address:
        browser.get(address + "#seed=5&finer=0.6&prior=normal")
        wait_for_pictures(browser, 1)
        before = latents(browser)
        assert np.std(before[96:]) == pytest.approx(0.6, rel=0.1)
        assert_shows(picture(browser), decoded(run, before))
        assert browser.find_element(By.CSS_SELECTOR, "#latents label").text.split(" ")[0] in ("4x4", "8x8")
        slider = browser.find_element(By.ID, "finer-input")
        assert "32x32" in slider.accessible_name
        slider.send_keys(Keys.HOME)
        after = wait_for_new_picture(browser, before)
        assert after == [*before[:96], *[0] * 1024]
        WebDriverWait(browser, PAGE_SECONDS).until(lambda _: browser.current_url.endswith("finer=0"))
        browser.save_screenshot(str(tmp_path / "ladder.png"))


def test_attributes_are_found_by_name(open_page: Callable[..., Chrome]) -> None:
    browser = open_page()
    visible = (
        "return [...document.querySelectorAll('#attributes .slider:not([hidden]) label')].map((l) => l.textContent)"
    )
    assert browser.execute_script(visible) == ["Smiling", "Young"]
    search = browser.find_element(By.ID, "search")
    search.send_keys("bal")
    assert browser.execute_script(visible) == ["Bald"]
    search.send_keys("x")
    assert browser.execute_script(visible) == []
    assert browser.find_element(By.ID, "no-attribute").text == "No attribute of this name."
    assert len(browser.find_elements(By.CSS_SELECTOR, "#latents .slider")) == 12
    browser.find_element(By.ID, "more-latents").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#latents .slider")) == LATENTS


def test_the_page_fits_a_phone_and_everything_has_a_name(open_page: Callable[..., Chrome]) -> None:
    browser = open_page()
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    fields = browser.find_elements(By.CSS_SELECTOR, "main input, main select, main button, main canvas")
    names = [field.accessible_name for field in fields if field.is_displayed()]
    assert len(names) > 20
    assert all(names)


def test_what_is_missing_is_said_in_words(
    browser: Chrome, address: str, folder: Path, open_page: Callable[..., Chrome]
) -> None:
    hidden = (folder / DECODER).rename(folder / "hidden")
    try:
        browser.get("about:blank")
        browser.get(address)
        WebDriverWait(browser, PAGE_SECONDS).until(lambda _: "decoder.onnx cannot be read" in status(browser))
    finally:
        hidden.rename(folder / DECODER)
    browser.get("about:blank")
    browser.get((folder / "index.html").as_uri())
    WebDriverWait(browser, PAGE_SECONDS).until(lambda _: "python -m http.server" in status(browser))
    assert len(latents(open_page())) == LATENTS
