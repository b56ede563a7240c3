"""What a person sees of a small sweep in TensorBoard, in a headless Chromium. Each test leaves `page.png`."""

import base64
import io
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from chromium import PAGE_SECONDS, needs_browser
from conftest import write_celeba
from hydra import compose, initialize_config_dir
from PIL import Image
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from vae_lightning.launch import train

pytestmark = [pytest.mark.browser, pytest.mark.process, pytest.mark.slow, needs_browser]

BETAS = {"beta=1": 1.0, "beta=4": 4.0}  # run folder -> beta
STEPS = [3, 6]  # 24 images in batches of 8, two epochs
KINDS = ("reconstruction", "interpolation", "traversal", "temperature")
METRICS = ("loss", "reconstruction_nats", "kl_nats", "beta", "elbo_nats", "bits_per_dim", "active_units", "mse")
START_SECONDS = 60  # a busy machine; on an idle one TensorBoard answers after two
# TensorBoard's older pages are nests of shadow roots, which no selector crosses
FUNCTIONS = """
    function all(selector, root = document) {
      const found = [...root.querySelectorAll(selector)];
      for (const element of [root, ...root.querySelectorAll('*')])
        if (element.shadowRoot) found.push(...all(selector, element.shadowRoot));
      return found;
    }
    const text = (element) => element ? element.textContent.replace(/\\s+/g, ' ').trim() : '';
    const part = (selector, root) => text(all(selector, root)[0]);
    // a card has a line of its own for the tag where its name is only the tag's last part
    const tagOf = (card) => {
      const tag = all('[itemprop=tag]', card)[0];
      return tag && tag.checkVisibility() ? text(tag) : part('[itemprop=name]', card);
    };
    const imageCard = (run, tag) => all('tf-image-loader').find(
      (card) => part('[itemprop=run]', card) === run && tagOf(card) === tag);
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep over beta."""
    folder = tmp_path_factory.mktemp("tensorboard")
    root = write_celeba(folder / "celeba", 30)
    for name, beta in BETAS.items():
        run_dir = folder / "sweep" / name
        overrides = [
            f"run_dir='{run_dir}'", f"beta={beta}", f"data.root='{root}'", f"data.data_dir='{folder / 'data'}'",
            "data.image_size=32", "data.batch_size=8", "model.latent_dim=6",
            "trainer.max_epochs=2", "trainer.log_every_n_steps=2", "trainer.enable_progress_bar=false",
            "trainer.accelerator=cpu", "trainer.precision=32-true", "+callbacks=projector",
        ]  # fmt: skip
        with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
            config = compose("config", overrides)
        plain = train.to_plain(config)
        train.run(config, plain, *train.build(config, plain))
    return folder / "sweep"


@pytest.fixture(scope="module")
def address(sweep: Path) -> Iterator[str]:
    """TensorBoard on the sweep, with both runs loaded."""
    log_file = sweep.parent / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(sweep), "--host", "127.0.0.1", "--port", "0"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield address_when_loaded(process, log_file)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def address_when_loaded(process: subprocess.Popen[bytes], log_file: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        announced = re.search(r"http://127\.0\.0\.1:\d+/", log_file.read_text(errors="replace"))
        if announced:
            tags = read_json(announced[0], "data/plugin/scalars/tags")
            if all("test/loss" in tags.get(name, {}) for name in BETAS):
                return announced[0]
        time.sleep(0.1)
    pytest.fail(f"TensorBoard does not show the sweep:\n{log_file.read_text(errors='replace')}")


def read_json(address: str, path: str) -> dict[str, Any]:
    """The answer, or nothing where there is none yet."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=10)
    try:
        connection.request("GET", f"/{path}")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer


@pytest.fixture
def open_page(address: str, browser: Chrome, tmp_path: Path) -> Iterator[Callable[[str], Chrome]]:
    """`open_page("scalars")` loads that page of TensorBoard afresh."""

    def open_it(name: str) -> Chrome:
        browser.get("about:blank")  # another fragment alone would not load anything
        browser.get(f"{address}#{name}")
        return browser

    yield open_it
    browser.save_screenshot(str(tmp_path / "page.png"))


def wait_for(browser: Chrome, script: str, *arguments: object, until: Callable[[Any], bool] = bool) -> Any:
    """What the script returns once `until` says that it is right.

    An error of the script, or a ValueError of `until`, means that the page is not there yet.
    """
    seen: Any = None

    def is_right(_: object) -> bool:
        nonlocal seen
        seen = browser.execute_script(FUNCTIONS + script, *arguments)
        return until(seen)

    try:
        WebDriverWait(browser, PAGE_SECONDS, 0.1, [WebDriverException, ValueError]).until(is_right)
    except TimeoutException:
        pytest.fail(f"page.png is what there is instead: {str(seen)[:500]} from {script.strip()} {arguments}")
    return seen


def as_number(words: str) -> float:
    return float(words.replace("\u2212", "-").replace(",", ""))  # TensorBoard writes a typographic minus


def test_time_series_compare_the_runs_by_name(open_page: Callable[[str], Chrome]) -> None:
    browser = open_page("timeseries")
    names = "return all('runs-data-table tb-data-table-content-row').map(text).sort();"
    wait_for(browser, names, until=lambda names: names == [*BETAS])
    tags = ["train/loss", "val/elbo_nats", "val/kl_nats", "val/loss"]
    tag_filter: WebElement = wait_for(browser, "return all('metrics-tag-filter input')[0];")
    tag_filter.send_keys(f"^({'|'.join(tags)})$")
    tag_filter.send_keys(Keys.ESCAPE)  # closes the list of suggestions
    tables: dict[str, list[list[str]]] = wait_for(
        browser,
        """const cards = all('scalar-card').filter((card) => card.checkVisibility());
        const cells = (row) => all('tb-data-table-content-cell', row).map(text).filter((cell) => cell);
        return Object.fromEntries(cards.map(
          (card) => [all('.tag', card)[0].title, all('tb-data-table-content-row', card).map(cells)]));""",
        # columns: run, smoothed, value, step, time
        until=lambda tables: sorted(tables) == tags and all({len(row) for row in tables[tag]} == {5} for tag in tags),
    )
    for tag, rows in tables.items():
        assert {row[0]: int(row[3]) for row in rows} == dict.fromkeys(BETAS, STEPS[-1]), tag
        assert all(math.isfinite(as_number(row[2])) for row in rows), (tag, rows)


def test_scalars_have_one_chart_for_every_metric(open_page: Callable[[str], Chrome]) -> None:
    browser = open_page("scalars")
    names = "return all('.item-label-container', all('tf-runs-selector')[0]).map(text).sort();"
    wait_for(browser, names, until=lambda names: names == [*BETAS])
    for split in ("train", "val", "test"):
        wanted = {f"{split}/{name}" for name in METRICS}
        charts: list[str] = wait_for(
            browser,
            """const group = all('tf-category-paginated-view').find(
              (group) => part('.category-name', group) === arguments[0]);
            const heading = all('button.heading', group)[0];
            if (!heading.hasAttribute('open-button')) heading.click();
            return all('tf-scalar-card', group).map(tagOf);""",
            split,
            until=lambda charts, wanted=wanted: wanted <= set(charts),
        )
        assert len(charts) == len(set(charts))


def test_images_of_every_kind_follow_the_step_slider(open_page: Callable[[str], Chrome], sweep: Path) -> None:
    browser = open_page("images")
    for name in BETAS:
        for kind in KINDS:
            card = (name, f"images/{kind}")
            first, last = (read_picture(sweep / name / "images" / kind / f"epoch={epoch:04d}.png") for epoch in (1, 2))
            assert not np.array_equal(first, last), card
            wait_for_picture(browser, card, STEPS[1], last)
            slider: WebElement = wait_for(browser, "return all('#steps', imageCard(...arguments))[0];", *card)
            slider.send_keys(Keys.ARROW_LEFT)
            wait_for_picture(browser, card, STEPS[0], first)


def read_picture(file: Path | io.BytesIO) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def wait_for_picture(browser: Chrome, card: tuple[str, str], step: int, wanted: np.ndarray) -> None:
    """Waits until the card of that run and tag shows just these pixels, and says that they are of this step."""

    def is_wanted(shown: tuple[str, str]) -> bool:
        heading, url = shown
        pixels = base64.b64decode(url.partition(",")[2])
        return f"step {step} " in heading and np.array_equal(read_picture(io.BytesIO(pixels)), wanted)

    wait_for(
        browser,
        """const card = imageCard(...arguments), picture = all('img', card)[0];
        if (!picture.naturalWidth) throw new Error('not loaded');
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
        canvas.getContext('2d').drawImage(picture, 0, 0);
        return [part('tf-card-heading', card), canvas.toDataURL('image/png')];""",
        *card,
        until=is_wanted,
    )


def test_hparams_table_sets_choices_against_results(open_page: Callable[[str], Chrome], sweep: Path) -> None:
    browser = open_page("hparams")
    choices, results = {"model", "beta", "latent_dim"}, {"test/loss", "test/elbo_nats", "test/kl_nats"}

    def is_whole(table: list[list[str]]) -> bool:
        names, *rows = table
        filled = [{name for name, cell in zip(names, row, strict=True) if cell} for row in rows]
        return len(rows) == len(BETAS) and all(choices | results <= names for names in filled)

    names, *rows = wait_for(
        browser,
        # the page shows five choices and five results until others are ticked
        """for (const box of all('.hparam-checkbox, .metric-checkbox'))
          if (arguments[0].includes(text(box)) && !box.checked) box.click();
        const content = (cell) => text(all('slot', cell)[0].assignedElements()[0]);
        return all('#header tr, #items tr:not([hidden])', all('#sessionGroupsTable')[0]).map(
          (row) => [...row.cells].filter((cell) => !cell.hidden).map(content));""",
        sorted(choices | results),
        until=is_whole,
    )
    assert len(names) == len(set(names)), names
    trials = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    assert {run: as_number(trial["beta"]) for run, trial in trials.items()} == BETAS
    for run, trial in trials.items():
        assert "conv" in trial["model"].lower()
        assert as_number(trial["latent_dim"]) == 6
        metrics = json.loads((sweep / run / "metrics.json").read_text())
        for name in results:
            assert as_number(trial[name]) == pytest.approx(metrics[name], rel=1e-3), (run, name)


def test_rate_and_distortion_come_first(open_page: Callable[[str], Chrome]) -> None:
    browser = open_page("custom_scalars")
    categories: list[list[Any]] = wait_for(
        browser,
        """const titles = (group) => all('tf-custom-scalar-multi-line-chart-card', group).map(tagOf);
        return all('tf-category-paginated-view').map((group) => [part('.category-name', group), titles(group)]);""",
        until=lambda categories: len(categories) == 3 and all(categories[0][1]),
    )
    assert [name for name, _ in categories] == ["Rate and distortion", "Objective", "Latents, pixels, speed"]
    assert categories[0][1] == ["kl_nats", "reconstruction_nats"]
    browser = open_page("images")
    cards: list[str] = wait_for(
        browser, "return all('tf-image-loader').map(tagOf);", until=lambda cards: len(cards) > 2
    )
    assert cards[:2] == ["curves/rate_distortion"] * 2  # of both runs


def test_projector_shows_the_validation_faces_of_a_run(open_page: Callable[[str], Chrome]) -> None:
    browser = open_page("projector")
    for _ in range(2):  # the page is a frame within a frame
        browser.switch_to.frame(wait_for(browser, "return all('iframe')[0];"))
    found = """return [part('.numDataPoints'), part('.dim'), all('#metadata-file [title]')[0].title];"""
    shown = ["3", "6", "projector/faces.tsv"]
    assert wait_for(browser, found, until=lambda found: found == shown) == shown
