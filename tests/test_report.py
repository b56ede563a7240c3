"""`vae report`: what is read of a sweep, how it is ranked, what the page says."""

import base64
import io
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from chromium import CHROMIUM, FLAGS, needs_browser
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner
from written_sweeps import Page, measured, read_csv, write_job, write_recognizer, write_status

from vae_lightning import report
from vae_lightning.cli.app import app
from vae_lightning.pictures.charts import annotate_apart
from vae_lightning.report import write_report
from vae_lightning.report.beta_choice import find_bend
from vae_lightning.report.cells import cells, headings
from vae_lightning.report.curves import draw_rate_distortion
from vae_lightning.report.front import find_front
from vae_lightning.report.line_styles import line_styles
from vae_lightning.report.page import Figure as PageFigure
from vae_lightning.report.selection import select_shown
from vae_lightning.report.summary import spread, summarise
from vae_lightning.report.sweep import read_sweep, split_overrides
from vae_lightning.report.table import Estimate, make_table, mean_and_standard_error, series
from vae_lightning.runs.layout import RunError


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
    assert [row["status"] for row in rows] == ["done"] * 5 + ["interrupted"]
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
    assert (one["beta"], one["runs"], one["status"]) == ("1", "2", "1 done, 1 interrupted")
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


def test_the_levels_of_a_ladder_have_columns_and_its_latents_are_not_counted(tmp_path: Path) -> None:
    ladder = {"_target_": "vae_lightning.models.LadderVAE", "latent_dim": None, "posterior": "gaussian"}
    levels = {"test/kl_nats_4x4": 2.0, "test/kl_nats_8x8": 3.0}
    for beta in (1, 4):
        for model, config, more in (("ladder", ladder, levels), ("conv", {}, {})):
            metrics = measured(-100.0 - beta, 0.01 * beta) | more
            write_job(tmp_path, [f"beta={beta}", f"model={model}"], metrics, beta=float(beta), model=config)
    page = Page(write_report(tmp_path))
    rows = {(row["beta"], row["model"]): row for row in read_csv(tmp_path / "report.csv")}
    assert rows["4", "ladder"]["kl_nats_8x8"] == "3.0"
    assert rows["4", "conv"]["kl_nats_4x4"] == ""
    table = make_table(read_sweep(tmp_path))
    place = table.columns.index("active_units")
    assert table.columns[place : place + 4] == ["active_units", "mse", "kl_nats_4x4", "kl_nats_8x8"]
    assert "KL 8x8" in page.text
    assert list(series(table)) == ["ConvVAE, 16 latents", "LadderVAE, 2 levels"]


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
for (const name of ["beta", "ELBO"]) {
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
@needs_browser
def test_headings_sort_by_number_with_empty_cells_below(tmp_path: Path) -> None:
    for beta, elbo in ((1, -90.0), (4, -120.0), (10, None)):
        write_job(tmp_path, [f"beta={beta}"], measured(elbo, 0.03), beta=float(beta))
    page = write_report(tmp_path)
    page.write_text(page.read_text().replace("</body>", f"<script>{SORT_AND_TELL}</script></body>"))
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    (seen,) = re.findall(r"SEEN(.*?)END", shown)
    assert json.loads(seen) == {
        "beta1": ["ascending", "1", "4", "10"],
        "beta2": ["descending", "10", "4", "1"],
        "ELBO1": ["ascending", "4", "1", "10"],
        "ELBO2": ["descending", "1", "4", "10"],
    }


def test_status_is_read_from_disk(tmp_path: Path) -> None:
    planned = [{"name": f"beta={beta}", "overrides": [f"beta={beta}", "data=faces", "sweep=x"]} for beta in range(1, 6)]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": planned}))
    write_job(tmp_path, ["beta=1"], measured(-100.0, 0.02))
    interrupted = write_job(tmp_path, ["beta=2"])
    (interrupted / "metrics.csv").write_text(
        "epoch,step,val/loss,val/elbo_nats,val/mse\n0,5,210,-210,0.5\n1,10,150,-150,0.2\n2,15,190,-190,0.4\n3,2"
    )
    write_status(write_job(tmp_path, ["beta=3"]), "failed", reason="the loss is no number")
    refused = write_job(tmp_path, ["beta=4"])
    (refused / "config.yaml").unlink()
    write_status(refused, "running")  # nobody holds its lock: its process was killed
    path = write_report(tmp_path)
    rows = {row["beta"]: row for row in read_csv(tmp_path / "report.csv")}
    states = ["done", "interrupted", "failed", "interrupted", "not started"]
    assert [rows[str(beta)]["status"] for beta in range(1, 6)] == states
    # the interrupted one has validation numbers only, of its best epoch; then all are of that split
    assert {row["split"] for row in rows.values() if row["split"]} == {"val"}
    assert float(rows["2"]["elbo_nats"]) == -150.0
    assert "no number" in rows["3"]["problems"]
    page = Page(path)
    assert "1 of 5 jobs are done. Missing: beta=2 (interrupted); beta=3 (failed)" in page.text
    assert "beta=5 (not started)" in page.text


def test_each_choice_is_judged_with_all_else_equal(tmp_path: Path) -> None:
    elbos = {("1", "conv"): -100.0, ("4", "conv"): -130.0, ("1", "residual"): -90.0, ("4", "residual"): -140.0}
    for (beta, model), elbo in elbos.items():
        write_job(tmp_path, [f"beta={beta}", f"model={model}"], measured(elbo, 0.02), beta=float(beta))
    write_job(tmp_path, ["beta=8", "model=linear"], measured(-10.0, 0.02), beta=8.0)  # nothing to compare it with
    sweep = read_sweep(tmp_path)
    answer = summarise(sweep, make_table(sweep))
    assert "beta: 1 has the best elbo_nats in 2 of 2 comparisons with all else equal." in answer
    (judged,) = (sentence for sentence in answer if sentence.startswith("model: "))
    counted = "has the best elbo_nats in 1 of 2 comparisons with all else equal"
    assert judged in (f"model: conv {counted}, residual in 1.", f"model: residual {counted}, conv in 1.")


def test_unfinished_runs_are_never_the_best(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(-100.0, 0.02, split="val"))
    ahead = write_job(tmp_path, ["beta=2"])
    (ahead / "metrics.csv").write_text("epoch,step,val/loss,val/elbo_nats,val/mse\n0,5,90,-90,0.1\n")
    table = make_table(read_sweep(tmp_path))
    assert [entry.overrides["beta"] for entry in table.settings] == ["2", "1"]
    best = table.best(None)
    assert best is not None
    assert best.overrides == {"beta": "1"}


def test_recognizers_are_ranked_by_loss_in_columns_of_their_own(tmp_path: Path) -> None:
    for rate, loss, auc in ((0.1, 9.0, 0.97), (0.01, 7.0, 0.95), (1, 20.0, 0.5)):
        scores = {"loss": loss, "accuracy": 0.9, "balanced_accuracy": 0.8, "auc": auc}
        write_recognizer(tmp_path, [f"optimizer.lr={rate}"], scores)
    write_recognizer(tmp_path, ["optimizer.lr=5"])
    page = Page(write_report(tmp_path))
    rows = read_csv(tmp_path / "report.csv")
    assert [(row["optimizer.lr"], row["loss"]) for row in rows] == [
        ("0.01", "7.0"),
        ("0.1", "9.0"),
        ("1", "20.0"),
        ("5", ""),
    ]
    measured_ones = ["loss", "accuracy", "balanced_accuracy", "auc", "seconds"]  # no run measured images/s
    assert list(rows[0]) == ["optimizer.lr", "runs", "split", *measured_ones, "status", "problems"]
    best = "Best loss over attributes: 7 nats per image (test split; lower is better), with optimizer.lr=0.01"
    assert f"{best}; its mean AUC is 0.950." in page.text
    assert not {word for word in ("could not be drawn", "ELBO", "elbo") if word in page.text}


def test_numbers_that_are_none_stand_below_all_others(tmp_path: Path) -> None:
    write_job(tmp_path, ["beta=1"], measured(float("nan"), float("nan")))
    write_job(tmp_path, ["beta=2"], measured(-500.0, 0.5), beta=2.0)
    path = write_report(tmp_path)
    rows = read_csv(tmp_path / "report.csv")
    assert [row["beta"] for row in rows] == ["2", "1"]
    assert "nan or inf" in rows[1]["problems"]
    assert "with beta=2" in Page(path).text


def test_numbers_beyond_all_measure_do_not_cost_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, extreme in enumerate((1e308, -1e308)):
        folder = write_job(tmp_path, ["beta=1", f"seed={seed}"], {**measured(1e308, 1e308), "test/kl_nats": extreme})
        (folder / "metrics.csv").write_text(f"step,val/loss,val/mse\n1,2.0,{extreme}\n{extreme},2.0,0.1\n")
    write_job(tmp_path, ["beta=2", "seed=0"], measured(-500.0, 0.5), beta=2.0)
    value = {"name": "fid", "value": 1.0, "note": "", "better": "", "interval": [-1e308, 1e308]}
    card = {"about": {"split": "test", "count": 1, "seed": 0}, "format": 1}
    (folder / "evaluation").mkdir()
    section = {"name": "fidelity", "title": "Fidelity", "values": [value]}
    (folder / "evaluation" / "card.json").write_text(json.dumps({**card, "sections": [section]}))
    page = Page(write_report(tmp_path))
    assert "with beta=2" in page.text
    assert "beyond all that can be measured" in page.text
    assert "fidelity: a value is not a finite number" in page.text
    assert {"rate_distortion.png", "training_curves.png"} <= {path.name for path in (tmp_path / "report").iterdir()}

    def overflow(table: object) -> None:
        raise OverflowError("no axis for these")

    monkeypatch.setattr(report, "draw_rate_distortion", overflow)
    page = Page(write_report(tmp_path))
    assert "Rate and distortion: no axis for these" in page.text
    assert any("optimizer steps" in alt for alt, _ in page.pictures)


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


def test_overrides_are_spelt_alike() -> None:
    assert split_overrides(["+a=True", "b=1e-3", "c='x'", "sweep=y"]) == {"a": "true", "b": "0.001", "c": "x"}


def test_jobs_of_different_code_or_images_are_told(tmp_path: Path) -> None:
    for beta, code in (("1", "a"), ("2", "b")):
        job = write_job(tmp_path, [f"beta={beta}"], measured(-100.0, 0.02))
        write_status(job, "done", made_with={"code": {"model.py": code}})
        (job / "data.json").write_text(json.dumps({"root": "/faces", "fingerprint": code, "content": f"images {code}"}))
    text = Page(write_report(tmp_path)).text
    assert "Not all jobs were made with the same code" in text
    assert "The images changed between jobs" in text


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


def write_line(sweep: Path, betas: Sequence[float], bend: float, latent_dim: int = 16) -> None:
    """Runs whose distortion rises slowly up to `bend` and fast beyond it."""
    for beta in betas:
        kl = 60 / (1 + beta)
        distortion = (
            200 + (60 - kl) / 10 if beta <= bend else 200 + (60 - 60 / (1 + bend)) / 10 + 20 * (60 / (1 + bend) - kl)
        )
        scores = measured(-kl - distortion, distortion / 1000, kl) | {"test/active_units": round(kl / 4)}
        overrides = [f"beta={beta}", f"model.latent_dim={latent_dim}"]
        write_job(sweep, overrides, scores, beta=float(beta), model={"latent_dim": latent_dim})


def test_the_first_sentence_says_where_the_curve_bends_and_what_beta_costs(tmp_path: Path) -> None:
    write_line(tmp_path, (0.5, 1, 2, 4, 8), bend=2)
    sweep = read_sweep(tmp_path)
    first, second, *_ = summarise(sweep, make_table(sweep))
    assert first == (
        "Choosing β for ConvVAE, 16 latents (test split): the curve of rate and distortion bends at β = 2, with a rate "
        "of 20 nats, a distortion of 204 nats, 5 active units. β = 0.5 has a rate of 40 nats, a distortion of "
        "202 nats, 10 active units; β = 8 has a rate of 6.67 nats, a distortion of 470.7 nats, 2 active units."
    )
    assert second.startswith("Best ELBO")
    assert second.endswith("it does not say which β suits a use.")


@pytest.mark.parametrize(
    ("rates", "distortions", "bend"),
    [
        ([9.0, 5.0, 1.0], [1.0, 2.0, 9.0], 1),
        ([9.0, 5.0, 1.0], [1.0, 5.0, 9.0], None),  # straight
        ([9.0, 5.0, 1.0], [1.0, 8.0, 9.0], None),  # bends to the worse side
        ([9.0, 1.0], [1.0, 9.0], None),
        ([1.0, 5.0, 9.0], [9.0, 2.0, 1.0], None),  # rate rises with beta: no trade-off
        ([3.0, 3.0, 3.0], [2.0, 2.0, 2.0], None),
    ],
)
def test_a_curve_bends_where_it_is_furthest_below_the_line_between_its_ends(
    rates: list[float], distortions: list[float], bend: int | None
) -> None:
    assert find_bend(rates, distortions) == bend


def test_the_table_says_what_is_wrong_only_where_something_is(tmp_path: Path) -> None:
    write_line(tmp_path, (1, 4), bend=1)
    table = make_table(read_sweep(tmp_path))
    names = [name for name, _ in headings(table)]
    assert names[:5] == ["beta", "status", "ELBO", "distortion", "rate (KL)"]
    assert "what is wrong" not in names
    assert all(len(cells(table, setting)) == len(names) for setting in table.settings)


def test_a_sweep_in_which_everything_collapsed_has_no_best_run(tmp_path: Path) -> None:
    for beta in (1, 4):
        scores = measured(-500.0 - beta / 1000, 0.07681 + beta * 1e-6, 0.002) | {"test/active_units": 0}
        write_job(tmp_path, [f"beta={beta}"], scores, beta=float(beta))
    report = write_report(tmp_path)
    assert '<tr class="best">' not in report.read_text()
    page = Page(report)
    assert "Every posterior has collapsed: in all 2 measured settings" in page.text
    assert "mse stays at 0.0768" in page.text
    assert "Best ELBO" not in page.text
    assert page.text.count("its posterior has collapsed") == 2  # under what is wrong
    write_job(tmp_path, ["beta=0.1"], measured(-400.0, 0.02, 40.0) | {"test/active_units": 9}, beta=0.1)
    text = Page(write_report(tmp_path)).text
    assert "Every posterior" not in text
    assert "Best ELBO: −400" in text


@pytest.mark.parametrize("directions", [("minimize", "minimize"), ("maximize", "minimize")])
def test_the_front_of_a_search_is_named(directions: tuple[str, str], tmp_path: Path) -> None:
    sign = 1 if directions[0] == "minimize" else -1
    found = {"0.7342837482374823": (10.0, 50.0), "4.123456789": (5.0, 70.0), "8.5": (6.0, 80.0), "9.5": (20.0, 49.0)}
    for beta, (first, second) in found.items():
        values = {"val/kl_nats": sign * first, "val/reconstruction_nats": second}
        write_job(tmp_path, [f"beta={beta}"], measured(-100.0, 0.02) | values, beta=float(beta))
    write_job(tmp_path, ["beta=16"])  # interrupted
    goals = dict(zip(("val/kl_nats", "val/reconstruction_nats"), directions, strict=True))
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "goals": goals, "jobs": [], "trials": 4}))
    front = find_front(read_sweep(tmp_path))
    assert front is not None
    assert [job.beta for job in front.jobs] == [
        4.123456789,
        pytest.approx(0.73428374823748),
        9.5,
    ]  # 8.5 is worse in both
    text = Page(write_report(tmp_path)).text
    assert f"The Pareto front of val/kl_nats ({directions[0]}d) and val/reconstruction_nats (minimized): 3 of 4" in text
    assert f"On the front: beta=0.7343 with val/kl_nats {sign * 10}, val/reconstruction_nats 50." in text
    assert "0.73428" not in text.partition("What was run")[0]


def test_a_search_for_one_number_names_its_best_run(tmp_path: Path) -> None:
    for beta, loss in ((1, 30.0), (2, 20.0)):
        write_job(tmp_path, [f"beta={beta}"], measured(-100.0, 0.02) | {"val/loss": loss}, beta=float(beta))
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "goals": {"val/loss": "minimize"}, "trials": 2}))
    assert "best of 2 runs is beta=2 with val/loss 20." in Page(write_report(tmp_path)).text


def test_many_lines_are_told_apart_by_the_swept_value() -> None:
    lines = [{"beta": str(beta), "seed": str(seed)} for beta in (0.1, 1, 2, 4, 8, 16) for seed in range(3)]
    styles = line_styles(lines, ["beta", "seed"])
    assert (styles.key, len({*styles.colors}), len({*styles.dashes})) == ("beta", 6, 3)
    words = line_styles([{"model": f"m{number % 3}", "x": f"w{number}"} for number in range(30)], ["model", "x"])
    assert len({*words.dashes}) == 3
    few = line_styles(lines[:8], ["beta", "seed"])
    assert few.key == ""
    assert len({*zip(few.colors, few.dashes, strict=True)}) == 8


def test_labels_of_points_do_not_cover_each_other() -> None:
    figure = Figure(figsize=(4, 3), dpi=100)
    axis = figure.subplots()
    places = [(x / 20, x / 20) for x in range(20)]
    axis.plot(*zip(*places, strict=True), "o")
    annotate_apart(figure, axis, [(*place, f"β={number}.123456", "black") for number, place in enumerate(places)])
    boxes = [text.get_window_extent() for text in axis.texts]
    assert 2 <= len(boxes) < 20
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    assert axis.texts[0].get_text() == "β=0.123456"


def test_of_many_runs_the_best_the_worst_and_others_over_the_sweep_are_shown(tmp_path: Path) -> None:
    for beta in range(1, 41):
        folder = write_job(tmp_path, [f"beta={beta}", "seed=0"], measured(-100.0 - (beta - 7) ** 2, 0.02), beta=beta)
        (folder / "checkpoints").mkdir()
        if beta != 11:
            (folder / "checkpoints" / "best.ckpt").touch()
    sweep = read_sweep(tmp_path)
    selection = select_shown(sweep, make_table(sweep))
    betas = [job.beta for job in selection.sweep.jobs]
    assert len(betas) == 10
    assert betas == sorted(betas)
    assert {1, 7, 40} <= {*betas}  # 7 is the best, 40 the worst
    assert max(np.diff(betas)) < 9
    assert "10 of 40 runs" in selection.words
    few = type(sweep)(tmp_path, sweep.jobs[:10])
    assert select_shown(few, make_table(few)).sweep is few


def test_a_large_picture_of_faces_is_compressed_on_the_page() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 2_000, 3), np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    figure = PageFigure(png.getvalue(), "title", "caption", "alt")
    kind, _, content = figure.source.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (1_600, 240)
    assert PageFigure(png.getvalue(), "title", "caption", "alt", is_chart=True).source.startswith("data:image/png;")
