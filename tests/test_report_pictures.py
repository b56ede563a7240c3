"""`vae report`: the pictures of runs that were really trained, and the matching of their latents."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import train_tiny, write_celeba
from explored_runs import write_explored_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tiny_runs import LADDER, run_of
from torch import nn
from typer.testing import CliRunner
from written_sweeps import Page, measured, read_csv, write_job, write_recognizer

from vae_lightning import load_run
from vae_lightning.cli.app import app
from vae_lightning.models import LinearVAE
from vae_lightning.models.pixels import to_uint8
from vae_lightning.pictures.charts import COLORS
from vae_lightning.report import write_report
from vae_lightning.report.curves import _legend_below, draw_training_curves
from vae_lightning.report.exhibits import exhibit_sweep, fit_to
from vae_lightning.report.sweep import Job, read_sweep
from vae_lightning.report.traversals import match_latents, measure_latents, traversal_row

pytestmark = pytest.mark.slow  # test_report has the page and its tables

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


def test_runs_with_fewer_latents_are_left_out_by_index(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "is_collapsed", False)  # after one epoch all are nearly, and those come last
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
        assert there == [int(name[2:-1]) < run.model.latent_dim for name in exhibition.latents]


def test_of_a_ladder_the_latents_of_coarse_levels_are_shown_by_name(tmp_path: Path) -> None:
    root = write_celeba(tmp_path / "celeba", 60)
    jobs = {
        "model=ladder": LADDER,
        "model=ladder,seed=1": LADDER,
        "model=conv": {"latent_dim": 100, "posterior": "deterministic"},
    }
    for number, (name, model) in enumerate(jobs.items()):
        run = write_explored_run(tmp_path / "sweep" / name, root, tmp_path / "data", seed=number, **model)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(name.split(",")))
        kept = {key: model.get(key) for key in ("_target_", "latent_dim", "posterior")}
        (run / "config.yaml").write_text(yaml.safe_dump({"beta": 1.0, "model": kept}))
    exhibition = exhibit_sweep(read_sweep(tmp_path / "sweep"))
    assert exhibition.problems == {}
    shown = {exhibit.job.name: exhibit for exhibit in exhibition.exhibits}
    reference = shown.pop(exhibition.reference.name)  # type: ignore[union-attr]
    assert [row.name for row in reference.matched] == exhibition.latents
    of_ladders = {name: exhibit for name, exhibit in shown.items() if "ladder" in name}
    for exhibit in of_ladders.values():
        assert all(re.fullmatch(r"(4x4|8x8) map \d \(\d, \d\)", row.name) for row in exhibit.matched)
    kinds = {name: [row is not None for row in exhibit.by_index] for name, exhibit in shown.items()}
    same_kind = "ladder" in reference.job.name
    assert all(set(there) == {("ladder" in name) == same_kind} for name, there in kinds.items())
    write_report(tmp_path / "sweep")
    pictures = list((tmp_path / "sweep" / "report").glob("traversal_*_matched.png"))
    assert len(pictures) == len(exhibition.latents) > 0


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
    assert re.search(r"beta=4: .*best\.ckpt is not a checkpoint that can be read safely", page.text)
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
    assert (shown.stdout.strip(), shown.stderr.strip()) == ("multirun/new/report.html", "last: multirun/new")
    shown = CliRunner().invoke(app, ["report", "multirun/old"])
    assert shown.output.strip() == "multirun/old/report.html"


def test_recognizers_stand_below_vaes_and_are_in_no_picture_of_faces(tmp_path: Path) -> None:
    for rate in (1, 2):
        write_job(tmp_path, [f"lr={rate}", "x=vae"], measured(-100.0 * rate, 0.02) | {"test/loss": 0.5})
        reader = write_recognizer(tmp_path, [f"lr={rate}", "x=attributes"], {"loss": 10.0 - rate, "auc": 0.9})
        (reader / "checkpoints").mkdir()
        (reader / "checkpoints" / "best.ckpt").touch()  # no VAE: reading it would be a problem to tell of
    write_job(tmp_path, ["lr=1", "x=plain"], measured(None, 0.01), model={"posterior": "deterministic"})
    write_recognizer(tmp_path, ["lr=1", "x=factors"], {"loss": 4.0, "r_squared": 0.75}, target="factors")
    page = Page(write_report(tmp_path))
    rows = read_csv(tmp_path / "report.csv")
    order = [("1", "vae"), ("2", "vae"), ("1", "plain"), ("2", "attributes"), ("1", "attributes"), ("1", "factors")]
    assert [(row["lr"], row["x"]) for row in rows] == order
    assert [row["loss"] for row in rows] == ["", "", "", "8.0", "9.0", "4.0"]
    assert [row["elbo_nats"] for row in rows] == ["-100.0", "-200.0", "", "", "", ""]
    assert "Best ELBO: −100 nats per image at β = 1 (test split; higher is better), with lr=1, x=vae." in page.text
    assert "lower is better), with lr=1, x=factors; its mean R² is 0.750." in page.text
    assert sum(tag == "tr" and attributes.get("class") == "best" for tag, attributes in page.elements) == 3
    assert "comparisons" not in page.text  # a loss is compared with no ELBO
    assert set(re.findall(r"x=(\w+): no checkpoint", page.text)) == {"vae", "plain"}
    assert "checkpoint that can be read" not in page.text


def test_curves_of_recognizers_show_their_loss(tmp_path: Path) -> None:
    for rate, loss in ((1, 20), (2, 10)):
        rows = f"epoch,step,val/loss,val/auc\n0,5,{loss},0.5\n1,9,{loss},0.9\n"
        (write_recognizer(tmp_path, [f"lr={rate}"]) / "metrics.csv").write_text(rows)
    picture = draw_training_curves(read_sweep(tmp_path))
    assert picture is not None
    heights = []
    for color in COLORS[:2]:
        wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
        found = (abs(picture.astype(int) - wanted).sum(-1) < 6).sum(1)
        assert found.max() > 300  # a level line across the only panel
        heights.append(int(found.argmax()))
    assert heights[1] - heights[0] > 100  # rows count downwards


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
    runs = [run_of(each, {}, tmp_path) for each in (model, permuted(model, order, signs))]
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
    small = run_of(LinearVAE(image_size=32, color="gray", latent_dim=5, hidden_dim=24), {}, tmp_path)
    large = run_of(LinearVAE(image_size=64, latent_dim=7, hidden_dim=24), {}, tmp_path)
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


def test_long_names_stay_inside_the_picture() -> None:
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    figure.subplots().plot([0, 1], [0, 1], label=f"callbacks=[{','.join(['reconstruction'] * 12)}], lr=0.1")
    _legend_below(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert "lr=0.1" in legend.get_texts()[0].get_text()
