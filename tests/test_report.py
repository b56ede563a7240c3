"""`vae report`: what is read of a sweep, how it is ranked and matched, what the page holds."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import train_tiny, write_celeba
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli import app
from vae_lightning.models import LinearVAE
from vae_lightning.pixels import to_uint8
from vae_lightning.report import write_report
from vae_lightning.report.curves import draw_rate_distortion
from vae_lightning.report.exhibits import exhibit_sweep, fit_to
from vae_lightning.report.summary import spread, summarise
from vae_lightning.report.sweep import planned_jobs, read_sweep, split_choices, split_overrides
from vae_lightning.report.table import Estimate, make_table, mean_and_standard_error, series
from vae_lightning.report.traversals import match_latents, measure_latents, traversal_row
from vae_lightning.run_folders import RunError
from vae_lightning.runs import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CONFIG = {
    "beta": 1.0,
    "posterior": "gaussian",
    "model": {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 16, "posterior": "gaussian"},
    "reconstruction": {"_target_": "vae_lightning.losses.SquaredError"},
    "data": {"image_size": 32, "color": "rgb", "crop": 148},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for name, value in changes.items():
        both[name] = merged(both[name], value) if isinstance(value, dict) else value
    return both


def write_job(sweep: Path, overrides: list[str], metrics: Mapping[str, float] | None = None, **config: Any) -> Path:
    """A run folder of words and numbers, without a checkpoint. `metrics=None` leaves it unfinished."""
    folder = sweep / ",".join(overrides)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "data=faces"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(merged(CONFIG, config)))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def measured(elbo: float | None, mse: float, kl: float = 5.0, split: str = "test") -> dict[str, float]:
    values = {"mse": mse, "reconstruction_nats": 1000 * mse}
    if elbo is not None:
        values |= {"elbo_nats": elbo, "kl_nats": kl, "bits_per_dim": -elbo / 20}
    return {f"{split}/{name}": value for name, value in values.items()} | {"seconds": 90.0}


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """What a browser would fetch or show of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    @property
    def pictures(self) -> list[tuple[str, np.ndarray]]:
        """Alt text and pixels of every image."""
        found = []
        for tag, attributes in self.elements:
            if tag == "img":
                kind, _, content = str(attributes["src"]).partition(",")
                assert kind == "data:image/png;base64"
                with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as picture:
                    found.append((attributes.get("alt") or "", np.asarray(picture)))
        return found


# ---- the numbers


def test_the_best_elbo_stands_first_and_autoencoders_stand_last(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(-120.0, 0.03), beta=1.0)
    write_job(tmp_path, ["beta=4"], measured(-100.0, 0.05), beta=4.0)
    write_job(tmp_path, ["beta=10"], measured(-110.0, 0.06), beta=10.0)
    for name, mse in (("8", 0.002), ("9", 0.001)):
        changes = {"posterior": "deterministic"}
        write_job(tmp_path, [f"beta={name}", "posterior=deterministic"], measured(None, mse), model=changes)
    write_job(tmp_path, ["beta=2"])
    path = write_report(tmp_path)
    rows = read_csv(tmp_path / "report.csv")
    assert [row["beta"] for row in rows] == ["4", "10", "1", "9", "8", "2"]
    assert [row["elbo_nats"] for row in rows] == ["-100.0", "-110.0", "-120.0", "", "", ""]
    assert [row["status"] for row in rows] == ["done"] * 5 + ["failed"]
    assert {row["split"] for row in rows[:5]} == {"test"}
    assert rows[0]["seconds"] == "90.0"
    assert "data" not in rows[0]  # the same in all jobs
    page = Page(path)
    assert (
        "Best ELBO: −100 nats per image at β = 1 (test split; higher is better), with beta=4, posterior=gaussian."
        in page.text
    )
    assert "data=faces" in page.text


def test_seeds_of_one_setting_give_mean_and_standard_error(tmp_path: Path) -> None:
    for seed, elbo in enumerate((-96.0, -100.0, -104.0)):
        write_job(tmp_path, ["beta=4", f"seed={seed}"], measured(elbo, 0.02), beta=4.0)
    write_job(tmp_path, ["beta=1", "seed=0"], measured(-99.0, 0.02))
    write_job(tmp_path, ["beta=1", "seed=1"])  # not finished: it must not move the mean
    path = write_report(tmp_path)
    one, four = read_csv(tmp_path / "report.csv")
    assert (one["beta"], one["runs"], one["status"]) == ("1", "2", "1 done, 1 failed")
    assert (float(one["elbo_nats"]), one["elbo_nats_standard_error"]) == (-99.0, "")
    assert (four["beta"], four["runs"], four["status"]) == ("4", "3", "done")
    assert float(four["elbo_nats"]) == -100.0
    assert float(four["elbo_nats_standard_error"]) == pytest.approx(4 / 3**0.5)  # deviations -4, 0, 4: s = 4
    assert "−100.0 ± 2.3" in Page(path).text
    runs = [(row["beta"], row["seed"]) for row in read_csv(tmp_path / "report" / "runs.csv")]
    assert runs == [("4", "0"), ("1", "0"), ("4", "1"), ("4", "2"), ("1", "1")]


def test_standard_error_against_numbers_by_hand() -> None:
    estimate = mean_and_standard_error([1.0, 3.0])
    assert (estimate.mean, estimate.standard_error) == (2.0, 1.0)  # s = sqrt(2), over sqrt(2)
    assert mean_and_standard_error([7.0]).standard_error is None


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(-357.37, 117.95), "−357 ± 118"),
        (Estimate(16.0, 0.0), "16 ± 0"),
        (Estimate(0.0145394, 0.00094726), "0.01454 ± 0.00095"),
        (Estimate(12345.6), "12346"),
        (Estimate(0.0), "0"),
        (Estimate(float("nan")), "no number"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_they_have(estimate: Estimate, words: str) -> None:
    assert spread(estimate, 5) == words


def test_different_pixel_terms_are_ranked_by_bits(tmp_path: Path) -> None:
    bce = {"_target_": "vae_lightning.losses.BCE"}
    metrics = measured(-1700.0, 0.01) | {"test/bits_per_dim": 3.0}
    write_job(tmp_path, ["reconstruction=bce"], metrics, reconstruction=bce)
    write_job(tmp_path, ["reconstruction=squared_error"], measured(-100.0, 0.02) | {"test/bits_per_dim": 5.0})
    path = write_report(tmp_path)
    assert [row["reconstruction"] for row in read_csv(tmp_path / "report.csv")] == ["bce", "squared_error"]
    assert "do not compare" in Page(path).text


def test_beta_makes_one_line_per_architecture_and_latent_size(tmp_path: Path) -> None:
    for latent_dim, kls in ((16, (9.0, 4.0, 1.0)), (32, (12.0, 6.0, 3.0))):
        for beta, kl in zip((1, 4, 10), kls, strict=True):
            overrides = [f"beta={beta}", f"model.latent_dim={latent_dim}"]
            metrics = measured(-100.0 - beta, 0.01 * beta, kl)
            write_job(tmp_path, overrides, metrics, beta=float(beta), model={"latent_dim": latent_dim})
    sweep = read_sweep(tmp_path)
    table = make_table(sweep)
    lines = series(table)
    assert list(lines) == ["ConvVAE, 16 latents", "ConvVAE, 32 latents"]
    assert [entry.jobs[0].beta for entry in lines["ConvVAE, 32 latents"]] == [1.0, 4.0, 10.0]
    answer = summarise(sweep, table)
    assert (
        "ConvVAE, 16 latents: over β = 1 → 4 → 10, KL falls (9 → 4 → 1 nats) and mse rises (0.01 → 0.04 → 0.1)."
        in answer
    )
    picture = draw_rate_distortion(table)
    assert picture is not None
    for color in ((0, 114, 178), (179, 71, 0)):  # both lines are there
        assert (np.abs(picture.astype(int) - color).sum(-1) < 6).sum() > 100


SORT_AND_TELL = """
const table = document.querySelector("table.sortable");
const seen = {};
for (const name of ["beta", "elbo_nats"]) {
  const heading = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === name);
  for (const press of [1, 2]) {
    heading.querySelector("button").click();
    seen[name + press] = [heading.ariaSort, ...[...table.tBodies[0].rows].map((row) => row.cells[0].textContent)];
  }
}
document.body.textContent = "SEEN" + JSON.stringify(seen) + "END";
"""


@pytest.mark.browser
@pytest.mark.process
@pytest.mark.skipif(not CHROMIUM, reason="no headless browser: chromium or google-chrome must be on the PATH")
def test_headings_sort_by_number_with_empty_cells_below(tmp_path: Path) -> None:
    for beta, elbo in ((1, -90.0), (4, -120.0), (10, None)):
        write_job(tmp_path, [f"beta={beta}"], measured(elbo, 0.03), beta=float(beta))
    page = write_report(tmp_path)
    page.write_text(page.read_text().replace("</body>", f"<script>{SORT_AND_TELL}</script></body>"))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command = [str(CHROMIUM), *flags, *quiet, "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (seen,) = re.findall(r"SEEN(.*?)END", shown)
    assert json.loads(seen) == {
        "beta1": ["ascending", "1", "4", "10"],
        "beta2": ["descending", "10", "4", "1"],
        "elbo_nats1": ["ascending", "4", "1", "10"],
        "elbo_nats2": ["descending", "1", "4", "10"],
    }


# ---- what has become of the jobs


def test_status_is_judged_from_what_is_on_disk(tmp_path: Path) -> None:
    task = ["beta=1,2,3,4,5", "data=faces"]
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"task": task}}}))
    write_job(tmp_path, ["beta=1"], measured(-100.0, 0.02))
    interrupted = write_job(tmp_path, ["beta=2"])
    (interrupted / "metrics.csv").write_text(
        "epoch,step,val/loss,val/elbo_nats,val/mse\n0,5,210,-210,0.5\n1,10,150,-150,0.2\n2,15,190,-190,0.4\n3,2"
    )
    broken = write_job(tmp_path, ["beta=3"])
    (broken / "non_finite_batch.txt").write_text("000001.jpg\n")
    refused = write_job(tmp_path, ["beta=4"])
    (refused / "config.yaml").unlink()
    path = write_report(tmp_path)
    rows = {row["beta"]: row for row in read_csv(tmp_path / "report.csv")}
    states = ["done", "interrupted", "failed", "failed", "not started"]
    assert [rows[str(beta)]["status"] for beta in range(1, 6)] == states
    # the interrupted one has validation numbers only, of its best epoch; then all are of that split
    assert {row["split"] for row in rows.values() if row["split"]} == {"val"}
    assert float(rows["2"]["elbo_nats"]) == -150.0
    assert "no number" in rows["3"]["problems"]
    assert "refused before any data was read" in rows["4"]["problems"]
    page = Page(path)
    assert "1 of 5 jobs are done. Missing: beta=2 (interrupted); beta=3 (failed)" in page.text
    assert "beta=5 (not started)" in page.text


def test_unfinished_runs_are_never_the_best(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(-100.0, 0.02, split="val"))
    ahead = write_job(tmp_path, ["beta=2"])
    (ahead / "metrics.csv").write_text("epoch,step,val/loss,val/elbo_nats,val/mse\n0,5,90,-90,0.1\n")
    table = make_table(read_sweep(tmp_path))
    assert [entry.overrides["beta"] for entry in table.settings] == ["2", "1"]
    assert table.best is not None
    assert table.best.overrides == {"beta": "1"}


def test_numbers_that_are_none_stand_below_all_others(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(float("nan"), float("nan")))
    write_job(tmp_path, ["beta=2"], measured(-500.0, 0.5), beta=2.0)
    path = write_report(tmp_path)
    rows = read_csv(tmp_path / "report.csv")
    assert [row["beta"] for row in rows] == ["2", "1"]
    assert "nan or inf" in rows[1]["problems"]
    assert "with beta=2" in Page(path).text


def test_an_interrupted_seed_does_not_move_the_mean(tmp_path: Path) -> None:
    for seed, elbo in ((0, -100.0), (1, -110.0)):
        write_job(tmp_path, ["beta=1", f"seed={seed}"], measured(elbo, 0.02, split="val"))
    early = write_job(tmp_path, ["beta=1", "seed=2"])
    (early / "metrics.csv").write_text("epoch,step,val/loss,val/elbo_nats,val/mse\n0,5,900,-900,0.1\n")
    (setting,) = make_table(read_sweep(tmp_path)).settings
    assert setting.status == "2 done, 1 interrupted"
    assert setting.values["elbo_nats"].mean == -105.0
    assert setting.values["elbo_nats"].standard_error == pytest.approx(5.0)  # s = sqrt(50), over sqrt(2)


def test_labels_of_rows_stay_as_high_as_an_image(tmp_path: Path) -> None:
    for value in "ab":
        write_job(tmp_path, [*(f"key{number}={value}" for number in range(7)), "model.x=1", f"data.x={value * 99}"])
    sweep = read_sweep(tmp_path)
    lines = sweep.label(sweep.jobs[0]).split("\n")
    assert lines[0] == "key0=a, key1=a"
    assert len(lines) == 4
    assert max(map(len, lines)) < 60


def test_a_sweep_of_one_job_has_a_report(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(-100.0, 0.02))
    page = Page(write_report(tmp_path))
    assert "with the only setting" in page.text
    assert "beta=1: no checkpoint" in page.text


def test_planned_jobs_are_those_that_hydra_would_make(tmp_path: Path) -> None:
    assert split_choices("crop=148,[15,40,163,188],'a,b'") == ["crop=148", "crop=[15,40,163,188]", "crop='a,b'"]
    assert split_choices("name=null") == ["name=null"]
    assert split_overrides(["+a=True", "b=1e-3", "c='x'"]) == {"a": "true", "b": "0.001", "c": "x"}
    plan = tmp_path / "multirun.yaml"

    def planned(task: list[str], sweeper: dict[str, Any] | None = None) -> list[dict[str, str]]:
        plan.write_text(yaml.safe_dump({"hydra": {"overrides": {"task": task}, "sweeper": sweeper}}))
        return planned_jobs(tmp_path)

    assert planned(["beta=1,4", "seed=0", "data.root=/a,/b"]) == [
        {"beta": beta, "seed": "0", "data.root": root} for beta in ("1", "4") for root in ("/a", "/b")
    ]
    assert planned(["seed=0"], {"params": {"beta": "1,4"}}) == [{"beta": beta, "seed": "0"} for beta in ("1", "4")]
    assert planned(["beta=range(1,4)"]) == []
    assert planned(["beta=1,4"], {"_target_": "hydra_plugins.hydra_optuna_sweeper.OptunaSweeper"}) == []


def test_a_continued_run_is_no_other_setting(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(-1.0, 0.1))
    continued = write_job(tmp_path, ["beta=2"], measured(-2.0, 0.1))
    (continued / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["beta=2", "data=faces", "ckpt_path=last"]))
    assert read_sweep(tmp_path).varied == ["beta"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "there is no such folder"),
        (lambda folder: folder, "holds no run"),
        (lambda folder: (folder / "page").touch() or folder / "page", "is a file"),
        (lambda folder: write_job(folder, ["beta=1"], measured(-1.0, 0.1)), "is one run"),
    ],
)
def test_what_is_no_sweep_is_refused(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    folder = make(tmp_path)
    with pytest.raises(RunError, match=message) as caught:
        write_report(folder)
    assert str(folder) in str(caught.value)
    assert "multirun/<time>" in str(caught.value)
    shown = CliRunner().invoke(app, ["report", str(folder)])
    assert shown.exit_code == 2
    assert message in shown.output.replace("\n", " ")
    assert not list(tmp_path.rglob("report.html"))


def test_names_and_values_are_escaped(tmp_path: Path) -> None:
    hostile = '<script>alert("1")</script>'
    folder = write_job(tmp_path, ["beta=1"], measured(-1.0, 0.1))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["beta=1", f"name={hostile}", f"x={hostile}"]))
    (folder / "data.json").write_text(json.dumps({"source": hostile, "root": "'\"><img src=x onerror=alert(1)>"}))
    other = write_job(tmp_path, ["beta=2"])
    (other / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["beta=2", "name=b", f"x={hostile}"]))
    page = Page(write_report(tmp_path))
    assert hostile in page.text
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert {str(attributes.get("data-value")) for tag, attributes in page.elements if tag == "td"} >= {hostile}


# ---- the pictures, of runs that were really trained

TINY_MODEL = ["model=linear", "model.hidden_dim=24", "trainer.max_epochs=1", "callbacks=[checkpoint]", "logger=[csv]"]
JOBS = {
    "beta=1": ["beta=1"],
    "beta=10": ["beta=10"],
    "beta=4": ["beta=4", "data.image_size=64", "model.latent_dim=9", "data.color=gray"],
    "posterior=deterministic": ["posterior=deterministic"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with two like runs, one of another size and colour, and a plain autoencoder."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_celeba(folder / "celeba", 100)
    for name, overrides in JOBS.items():
        run_dir = train_tiny(root, folder / "data", folder / "sweep" / name, *TINY_MODEL, *overrides)
        (run_dir / ".hydra").mkdir()
        (run_dir / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*TINY_MODEL, *overrides]))
    return folder / "sweep"


@pytest.fixture
def sweep(trained: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "sweep"))


@pytest.fixture(scope="module")
def reported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its report, to look at."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("reported") / "sweep"))
    write_report(folder)
    return folder


def test_a_report_holds_all_pictures_and_asks_nothing_of_a_network(reported: Path) -> None:
    page = Page(reported / "report.html")
    names = {path.stem for path in (reported / "report").iterdir()}
    kinds = {"rate_distortion", "training_curves", "reconstructions", "interpolation", "samples"}
    traversals = {f"traversal_{number}_{kind}" for number in range(1, 5) for kind in ("matched", "by_index")}
    assert names == kinds | traversals
    assert len(page.pictures) == len(names)
    assert all(len(alt) > 20 for alt, _ in page.pictures)
    assert all(pixels.std() > 5 for _, pixels in page.pictures)
    fetched = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert fetched
    assert all(str(value).startswith("data:image/png;base64,") for value in fetched)
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.html)
    assert not re.search(r"https?:|@import|url\(|//[a-z]", without_pictures.replace("// Sorts", ""))
    assert "celeba" in page.text.lower()
    assert not [path for path in reported.rglob("*") if path.name.startswith(".report")]  # nothing half written


def test_every_run_reconstructs_and_interpolates_the_same_faces(trained: Path) -> None:
    exhibition = exhibit_sweep(read_sweep(trained))
    assert exhibition.problems == {}
    assert [exhibit.job.name for exhibit in exhibition.exhibits] == [
        "beta=1",
        "beta=4",
        "beta=10",
        "posterior=deterministic",
    ]
    assert len({exhibit.data for exhibit in exhibition.exhibits}) == 1
    for exhibit in exhibition.exhibits:
        run = load_run(exhibit.job.folder)
        faces = run.held_out_faces("test", 64)[:8]
        assert exhibit.originals is not None
        assert exhibit.reconstructions is not None
        assert exhibit.interpolation is not None
        assert torch.equal(exhibit.originals, faces)
        assert torch.equal(exhibit.reconstructions, to_uint8(run.reconstruct(faces), (0.0, 1.0)))
        both_ends = to_uint8(run.reconstruct(faces[[0, -1]]), (0.0, 1.0)).int()
        assert (exhibit.interpolation[[0, -1]].int() - both_ends).abs().max() <= 1
        assert exhibit.has_prior == (exhibit.samples is not None)
        if exhibit.samples is not None:
            assert torch.equal(exhibit.samples, to_uint8(run.sample(8, seed=0), (0.0, 1.0)))


def test_autoencoders_are_left_out_of_samples_and_it_is_said(reported: Path) -> None:
    page = Page(reported / "report.html")
    alts = " ".join(alt for alt, _ in page.pictures)
    assert "sampled from the prior of 3 runs" in alts
    assert "reconstructions by 4 runs" in alts
    assert re.search(r"plain autoencoder has no prior to sample from: [^.]*posterior=deterministic", page.text)


def test_runs_with_fewer_latents_are_left_out_by_index(trained: Path) -> None:
    exhibits = {exhibit.job.name: exhibit for exhibit in exhibit_sweep(read_sweep(trained)).exhibits}
    assert len(exhibits["beta=4"].matched) == 4
    # as the reference, the run with 9 latents may name one that runs with 6 do not have
    sweep = read_sweep(trained)
    first = next(job for job in sweep.jobs if job.name == "beta=4")
    others = [job for job in sweep.jobs if job.name != "beta=4"]
    exhibition = exhibit_sweep(type(sweep)(sweep.folder, [first, *others]))
    assert exhibition.reference is first
    for exhibit in exhibition.exhibits:
        run = load_run(exhibit.job.folder)
        there = [row is not None for row in exhibit.by_index]
        assert there == [number < run.model.latent_dim for number in exhibition.latents]


def test_damaged_jobs_do_not_stop_the_rest(sweep: Path) -> None:
    (sweep / "beta=10" / "metrics.json").write_text('{"val/loss": 1')
    (sweep / "beta=4" / "checkpoints" / "best.ckpt").write_bytes(b"not a checkpoint")
    shutil.rmtree(sweep / "posterior=deterministic" / "checkpoints")
    page = Page(write_report(sweep))
    rows = {row["beta"]: row for row in read_csv(sweep / "report.csv") if row["posterior"] == "gaussian"}
    assert sorted(rows) == ["1", "10", "4"]
    assert "metrics.json is damaged" in rows["10"]["problems"]
    assert float(rows["10"]["elbo_nats"]) < 0  # of metrics.csv
    assert "reconstructions by 2 runs" in " ".join(alt for alt, _ in page.pictures)
    assert re.search(r"beta=4: .*best\.ckpt is no checkpoint that can be read safely", page.text)
    assert "posterior=deterministic: no checkpoint" in page.text


def test_a_run_without_a_best_epoch_is_shown_by_its_last(sweep: Path) -> None:
    for name in JOBS:
        (sweep / name / "checkpoints" / "best.ckpt").rename(sweep / name / "checkpoints" / "last.ckpt")
    exhibition = exhibit_sweep(read_sweep(sweep))
    assert [exhibit.reconstructions is not None for exhibit in exhibition.exhibits] == [True] * len(JOBS)


def test_lost_data_leaves_the_samples(sweep: Path) -> None:
    for checkpoint in sweep.glob("*/checkpoints/best.ckpt"):
        content = torch.load(checkpoint, weights_only=True)
        content["run_record"]["data"]["root"] = str(sweep / "gone")
        torch.save(content, checkpoint)
    (sweep / "report").mkdir()
    (sweep / "report" / "reconstructions.png").touch()  # of an earlier report
    page = Page(write_report(sweep))
    assert "sampled from the prior of 3 runs" in " ".join(alt for alt, _ in page.pictures)
    assert "gone" in page.text
    assert not (sweep / "report" / "reconstructions.png").exists()


def test_a_report_changes_nothing_in_the_runs(sweep: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sweep.glob("*=*/**/*") if path.is_file()}

    before = contents()
    write_report(sweep)
    assert len(before) > 12
    assert contents() == before


def test_the_command_takes_a_folder_or_the_newest_sweep(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no sweep in multirun/" in CliRunner().invoke(app, ["report", "last"]).output
    for name in ("old", "new"):
        write_job(tmp_path / "multirun" / name, ["beta=1"], measured(-1.0, 0.1))
    old = tmp_path / "multirun" / "old" / "beta=1" / ".hydra" / "overrides.yaml"
    os.utime(old, (1, 1))
    write_report(tmp_path / "multirun" / "old")  # a report does not make a sweep newer
    shown = CliRunner().invoke(app, ["report", "last"])
    assert shown.exit_code == 0
    assert shown.output.strip() == "multirun/new/report.html"
    shown = CliRunner().invoke(app, ["report", "multirun/old"])
    assert shown.output.strip() == "multirun/old/report.html"


# ---- matching of latents


def permuted(model: LinearVAE, order: list[int], signs: list[float]) -> LinearVAE:
    """The same VAE whose latent k is the other's latent order[k], times signs[k]."""
    other = LinearVAE(image_size=32, latent_dim=model.latent_dim, hidden_dim=24)
    other.load_state_dict(model.state_dict())
    head, projection = other.encoder[-1], other.decoder[0]
    assert isinstance(head, nn.Linear)
    assert isinstance(projection, nn.Linear)
    sign = torch.tensor(signs)
    rows = torch.tensor([*order, *(model.latent_dim + latent for latent in order)])
    with torch.no_grad():
        head.weight.copy_(head.weight[rows] * torch.cat([sign, torch.ones_like(sign)])[:, None])
        head.bias.copy_(head.bias[rows] * torch.cat([sign, torch.ones_like(sign)]))
        projection.weight.copy_(projection.weight[:, order] * sign)
    return other


def test_matching_finds_permutation_and_sign(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LinearVAE(image_size=32, latent_dim=6, hidden_dim=24)
    with torch.no_grad():
        model.encoder[-1].weight.mul_(4)  # untrained, some latents would have no KL to speak of
    order, signs = [3, 0, 5, 1, 4, 2], [1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    faces = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    runs = [Run(each, {}, tmp_path) for each in (model, permuted(model, order, signs))]
    torch.testing.assert_close(runs[0].reconstruct(faces), runs[1].reconstruct(faces))  # the same model indeed
    reference, other = (measure_latents(run, faces) for run in runs)
    matches = match_latents(reference, other, 6)
    assert len(matches) == 6
    for latent, match in zip(reference.active.tolist(), matches, strict=True):
        assert order[match.latent] == latent
        assert match.sign == signs[match.latent]
        assert match.similarity == pytest.approx(1.0, abs=1e-4)
        # with the sign flipped back, the rows show the same
        rows = [
            traversal_row(runs[0], reference, latent, 1),
            traversal_row(runs[1], other, match.latent, match.sign),
        ]
        assert (rows[0].int() - rows[1].int()).abs().max() <= 1
        assert not torch.equal(rows[0][0], rows[0][-1])


def test_latents_are_matched_across_image_size_and_colour(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = Run(LinearVAE(image_size=32, color="gray", latent_dim=5, hidden_dim=24), {}, tmp_path)
    large = Run(LinearVAE(image_size=64, latent_dim=7, hidden_dim=24), {}, tmp_path)
    one = measure_latents(small, torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8))
    other = measure_latents(large, torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    for reference, offered in ((one, other), (other, one)):
        matches = match_latents(reference, offered, 4)
        assert len(matches) == min(4, len(reference.active)) > 1
        assert all(0 <= match.similarity <= 1 for match in matches)


def test_images_are_fitted_to_one_grid_by_the_nearest_pixel() -> None:
    gray = torch.tensor([[0, 50], [100, 200]], dtype=torch.uint8)[None, None]
    fitted = fit_to(gray, 4, 3)
    assert fitted.shape == (3, 3, 4, 4)
    for channel in fitted[0]:
        assert channel.tolist() == [[0, 0, 50, 50]] * 2 + [[100, 100, 200, 200]] * 2
    assert (fitted[1:] == 255).all()
