"""`vae evaluate`: the card, what is measured anew and what is not, sweeps, and the callback."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import train_tiny
from PIL import Image
from rich.console import Console
from stand_ins import noise_images, subject_of
from typer.testing import CliRunner
from written_sweeps import Page, measured, read_csv, write_job

from vae_lightning import load_run
from vae_lightning.cli import evaluate as evaluation_command
from vae_lightning.cli.app import app
from vae_lightning.cli.workplace import as_table
from vae_lightning.data.sources.source import DataError
from vae_lightning.evaluation import METRIC_NAMES, metrics
from vae_lightning.evaluation import request as requests
from vae_lightning.evaluation.card import Card, Section, read_card, to_markdown, to_rich, value_texts
from vae_lightning.evaluation.evaluate import evaluate_run
from vae_lightning.evaluation.metric import EvaluationError, Metric
from vae_lightning.evaluation.metrics.latents import LatentSpace
from vae_lightning.evaluation.metrics.likelihood import Likelihood
from vae_lightning.evaluation.request import Request
from vae_lightning.latents.priors import CoarsePrior
from vae_lightning.models import LinearVAE
from vae_lightning.runs.checkpoints import FORMAT
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.scores.result import Result, Value
from vae_lightning.system.found import files_in
from vae_lightning.system.progress import Observer

QUICK = ("likelihood", "latents", "pictures")
COUNT_FACES = """
from dataclasses import dataclass
from typing import ClassVar

from vae_lightning.evaluation.metric import Metric
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Value


@dataclass(frozen=True)
class CountFaces(Metric):
    title: ClassVar[str] = "Number of faces"
    samples: int = 3

    def measure(self, subject: Subject) -> Result:
        return Result([Value("faces", float(len(subject.rows(subject.split))))])
"""


def refuse(metric: Metric, subject: object) -> Result:
    raise AssertionError(f"{metric.name} was measured again")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 90 tiny images, shared: every test evaluates it into a folder of its own."""
    from conftest import write_celeba

    folder = tmp_path_factory.mktemp("trained")
    root = write_celeba(folder / "celeba", 90)
    return train_tiny(root, folder / "data", folder / "run", "trainer.max_epochs=1", "test=false")


def test_metric_names_are_those_of_the_metrics() -> None:
    in_order = [metric.name for metric in Request().build()]
    assert tuple(sorted(in_order)) == METRIC_NAMES
    assert (in_order[0], in_order[-1]) == ("likelihood", "fidelity")


def test_a_file_is_a_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It takes those of the request's arguments that it has, and stands before what takes long."""
    (tmp_path / "count_faces.py").write_text(COUNT_FACES)
    assert files_in(tmp_path) == ("count_faces",)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    monkeypatch.setattr(requests, "METRIC_NAMES", ("count_faces", "fidelity"))
    first, last = Request(samples=17).build()
    assert (first.name, first.samples, last.name, last.samples) == ("count_faces", 17, "fidelity", 17)
    (value,) = first.measure(
        subject_of(LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4), noise_images(20))
    ).values
    assert value.value == 20


# The card


def test_card_holds_numbers_protocol_and_pictures(trained: Path, tmp_path: Path) -> None:
    card = evaluate_run(trained, Request(metrics=QUICK), out=tmp_path)
    content = json.loads((tmp_path / "card.json").read_text())
    assert content["about"]["count"] == 9
    assert content["about"]["split"] == "test"
    assert content["about"]["data_fingerprint"]
    assert [section["name"] for section in content["sections"]] == list(QUICK)
    assert read_card(tmp_path / "card.json").values == card.values
    assert card.values["elbo_nats"] == pytest.approx(-(card.values["reconstruction_nats"] + card.values["kl_nats"]))
    page = (tmp_path / "card.md").read_text()
    for name in card.values:
        assert name in page
    shown_pictures = [picture for section in card.sections for picture in section.pictures]
    assert {"faces.png", "temperatures.png", "interpolations.png", "random_samples.png"} <= set(shown_pictures)
    for picture in shown_pictures:
        assert f"]({picture})" in page
        with Image.open(tmp_path / picture) as opened:
            assert np.asarray(opened).std() > 10  # something is drawn


def test_same_numbers_as_the_test_of_training_but_for_noise(tmp_path: Path, trained: Path) -> None:
    card = evaluate_run(trained, Request(metrics=("likelihood",), split="val"), out=tmp_path)
    rows = read_metrics(trained / "metrics.csv")
    logged = next(row for row in rows if "val/elbo_nats" in row)
    assert card.values["kl_nats"] == pytest.approx(logged["val/kl_nats"], rel=1e-5)
    assert card.values["elbo_nats"] == pytest.approx(logged["val/elbo_nats"], rel=0.02)
    assert card.values["mse"] == pytest.approx(logged["val/mse"], rel=0.02)


def test_digits_follow_the_interval() -> None:
    assert value_texts(Value("elbo_nats", -202.78622, interval=(-206.1, -197.5))) == ("-202.8", "-206.1 to -197.5")
    assert value_texts(Value("mse", 0.0124709, interval=(0.012155, 0.012796))) == ("0.01247", "0.01215 to 0.01280")
    assert value_texts(Value("active_units", 125.0)) == ("125", "")
    assert value_texts(Value.missing("fid_normal", "weights missing")) == ("–", "")


def test_a_number_that_is_none_is_not_measured() -> None:
    section = Section.of(Likelihood(), Result([Value("mse", float("nan"))]), 0.1)
    assert section.values[0].value is None
    assert "nan" in section.values[0].note


def test_missing_numbers_are_said_and_never_zero(trained: Path, tmp_path: Path) -> None:
    card = evaluate_run(trained, Request(metrics=("fidelity", "disentanglement"), split="train"), out=tmp_path)
    assert card.values == {}
    notes = " ".join(value.note for section in card.sections for value in section.values)
    assert "the weights of FID's Inception are missing" in notes
    assert "data=faces" in notes
    assert "not measured: the weights" in to_markdown(card)


def test_a_metric_that_cannot_be_leaves_the_others_their_card(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="test split has 9 images"):  # asked for by name
        evaluate_run(trained, Request(metrics=("latents", "fidelity")), out=tmp_path)
    card = read_card(tmp_path / "card.json")
    assert "active_units" in card.values
    assert "test split has 9 images" in card.sections[-1].remarks[0]


def test_what_was_measured_before_ctrl_c_is_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(metric: Metric, subject: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(LatentSpace, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(trained, Request(metrics=QUICK), out=tmp_path)
    assert "elbo_nats" in read_card(tmp_path / "card.json").values


def test_pictures_of_an_earlier_card_do_not_stay(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"somebody else's")
    evaluate_run(trained, Request(metrics=("latents", "pictures")), out=tmp_path)
    evaluate_run(trained, Request(metrics=("latents",)), out=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "aggregate_posterior.png",
        "kl_per_latent.png",
        "mine.png",
    ]


# What is measured again


@pytest.mark.slow
def test_same_arguments_are_read_and_others_are_measured(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(metrics=("likelihood", "pictures"))
    first = evaluate_run(trained, request, out=tmp_path)
    monkeypatch.setattr(Likelihood, "measure", refuse)
    assert evaluate_run(trained, request, out=tmp_path).sections == first.sections
    # one more metric: the others are still there
    assert evaluate_run(trained, Request(metrics=QUICK), out=tmp_path).values.items() >= first.values.items()
    assert evaluate_run(trained, Request(metrics=("likelihood",), batch_size=3), out=tmp_path).values == first.values
    for other in (Request(metrics=("likelihood",), seed=1), Request(metrics=("likelihood",), split="val")):
        with pytest.raises(AssertionError, match="measured again"):
            evaluate_run(trained, other, out=tmp_path)
    with pytest.raises(AssertionError, match="measured again"):
        evaluate_run(trained, request, checkpoint="last", out=tmp_path / "other")


def test_a_damaged_result_is_measured_again(trained: Path, tmp_path: Path) -> None:
    request = Request(metrics=("likelihood", "pictures"))
    first = evaluate_run(trained, request, out=tmp_path)
    results = sorted((tmp_path / "measured").glob("likelihood-*/result.json"))
    assert len(results) == 1
    results[0].write_text("{")
    next((tmp_path / "measured").glob("pictures-*/interpolations.png")).unlink()
    (tmp_path / "interpolations.png").unlink()
    assert evaluate_run(trained, request, out=tmp_path).values == first.values
    assert (tmp_path / "interpolations.png").is_file()


@pytest.mark.slow
def test_fitted_priors_lie_beside_the_checkpoint_and_sample(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="vae evaluate"):
        load_run(trained).sample(1, prior="gaussian")
    card = evaluate_run(trained, Request(metrics=("samplers",)), out=tmp_path)
    assert card.values["gaussian_rate_nats"] < card.values["normal_rate_nats"] + 1
    run = load_run(trained)
    faces = run.sample(4, seed=0, prior="gaussian")
    assert faces.equal(run.sample(4, seed=0, prior="gaussian"))
    assert not faces.equal(run.sample(4, seed=0))
    with pytest.raises(ValueError, match="gmm"):
        run.sample(1, prior="gnm")
    result = CliRunner().invoke(
        app, ["sample", str(trained), "-n", "2", "--prior", "gaussian", "--out", str(tmp_path / "s.png")]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "s.png").is_file()


@pytest.mark.slow
def test_a_ladder_is_evaluated_in_its_coarse_levels(trained: Path, tmp_path: Path) -> None:
    ladder = ["model=ladder", "model.sides=[2,4]", "model.widths=[8,8]", "model.blocks=[1,1]", "kl=per_level"]
    settings = [
        "model.latent_dim=null",
        "model.latent_channels=[2,1]",
        "reconstruction=logistic",
        "trainer.max_epochs=1",
        "test=false",
    ]
    places = trained.parent / "celeba", trained.parent / "data", tmp_path / "run"
    run = train_tiny(*places, *ladder, *settings)
    names = ("likelihood", "iwae", "latents", "probes", "samplers", "reconstructions", "pictures")
    command = ["evaluate", str(run), "--metrics", ",".join(names), "--split", "train", "--importance-samples", "2"]
    result = CliRunner().invoke(app, [*command, "--levels", "2x2"])
    assert result.exit_code == 0, result.output
    card = read_card(run / "evaluation" / "card.json")
    protocols = {section.name: section.protocol for section in card.sections}
    assert protocols["probes"]["codes"] == "posterior means of the levels 2x2 (8 of 24 latents), standardised"
    assert protocols["samplers"]["priors"]["flow"]["levels"] == ["2x2"]
    assert {"normal_rate_nats", "gmm_rate_nats", "flow_rate_nats", "probe_mean_auc", "iwae_nats"} <= set(card.values)
    for levels in (("2x2",), ("2x2", "4x4")):  # the second time those by default
        prior = load_run(run).prior("gaussian")
        assert isinstance(prior, CoarsePrior)
        assert prior.levels == levels
        assert load_run(run).sample(2, prior="gaussian").shape == (2, 3, 32, 32)
        evaluate_run(run, Request(metrics=("samplers",), split="train"), out=tmp_path / "again")
    wrong = CliRunner().invoke(app, [*command, "--levels", "4x4"])
    assert wrong.exit_code == 2
    assert "--levels 4x4: allowed are the coarsest levels in their order, 2x2 or 2x2,4x4" in wrong.stderr


@pytest.mark.gpu
def test_the_accelerator_gives_the_same_card(trained: Path, tmp_path: Path) -> None:
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator here")
    request = Request(metrics=("likelihood", "iwae", "latents", "samplers"), importance_samples=4, device="cpu")
    on_cpu = evaluate_run(trained, request, out=tmp_path / "cpu").values
    there = evaluate_run(trained, replace(request, device="auto"), out=tmp_path / "there").values
    assert there == pytest.approx(on_cpu, rel=1e-3, abs=1e-3)


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ("likelyhood",)}, "did you mean likelihood"),
        ({"split": "tset"}, "split=tset.*train, val, test"),
        ({"reference": "all"}, "reference=all"),
        ({"importance_samples": 1}, "importance_samples=1"),
        ({"weights": "/nowhere"}, "weights=/nowhere"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"samples": 3}, "samples=3"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_read(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Request(**arguments)  # type: ignore[arg-type]


def test_what_is_no_run_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(RunError, match="no such file or folder"):
        evaluate_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no checkpoints in it"):
        evaluate_run(tmp_path)
    with pytest.raises(RunError, match=r"checkpoint=epoch3\.ckpt"):
        evaluate_run(trained, checkpoint="epoch3.ckpt")
    newer = tmp_path / "newer.ckpt"
    torch.save({RECORD_KEY: {"format": FORMAT + 1}}, newer)
    with pytest.raises(RunError, match="update vae-lightning"):
        evaluate_run(newer)
    with pytest.raises(ValueError, match="device=warp"):
        evaluate_run(trained, Request(device="warp"))


def test_lost_data_and_empty_splits_are_named(tmp_path: Path, tiny_celeba: Callable[..., Path]) -> None:
    root = tiny_celeba(60)
    run_dir = train_tiny(root, tmp_path / "data", tmp_path / "run", "trainer.max_epochs=1", "test=false")
    partition = root / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace(" 2\n", " 0\n"))
    with pytest.raises(DataError, match="no test images"):
        evaluate_run(run_dir, Request(metrics=("likelihood",)))
    root.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=f"{root.name}"):
        evaluate_run(run_dir, Request(metrics=("likelihood",)))


def test_celeba_may_lie_elsewhere_now(
    tmp_path: Path, tiny_celeba: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(60)
    run_dir = train_tiny(root, tmp_path / "data", tmp_path / "run", "trainer.max_epochs=1", "test=false")
    before = evaluate_run(run_dir, Request(metrics=("likelihood",)))
    root.rename(tmp_path / "moved")
    monkeypatch.setenv("CELEBA_ROOT", str(tmp_path / "moved"))
    after = evaluate_run(run_dir, Request(metrics=("likelihood",)))
    assert after.values == before.values
    assert after.about["data_root"] == str(tmp_path / "moved")
    assert after.about["same_files_as_in_training"]


# The command


def test_brackets_are_words_and_no_markup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values, said = ["[early_stopping]", "[plots]"], iter(["[/bold] is no face", ""])
    about = {"model": "m", "checkpoint": "best.ckpt", "count": 9, "split": "test", "seed": 0, "data": "[/red]"}
    card = Card(about, [Section("latents", "Latents", [Value("[/x]", 3.0), Value.missing("[/y]", "none")])])
    jobs = [write_job(tmp_path, [f"callbacks={value}"], measured(-100.0, 0.02)) for value in [*values, "[b]", "[i]"]]

    def evaluate(folder: Path, *_: object, observer: Observer, **__: object) -> Card:
        observer.metric("Latents")
        list(observer.track([1], f"of {folder.name}", 1))
        if folder in jobs[2:]:
            raise RuntimeError(next(said))
        return card

    monkeypatch.setattr(evaluation_command, "evaluate_run", evaluate)
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert all(f"callbacks={value}" in result.stdout for value in values)
    assert {"callbacks=[b]: [/bold] is no face", "callbacks=[i]: RuntimeError"} <= set(result.stdout.splitlines())
    assert "3/4 callbacks=[i]: Latents" in result.stderr
    console = Console(width=160)
    with console.capture() as shown_words:
        console.print(to_rich(card, 80))
        console.print(as_table("scores", [{"[/name]": "[/bold].png", "score": 1.0}], ["[/name]", "score"]))
    assert all(word in shown_words.get() for word in ("[/red]", "[/x]", "[/y]", "[/name]", "[/bold].png"))


def test_the_command_prints_the_card_and_where_it_lies(trained: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(trained), "--metrics", "likelihood", "--checkpoint", "last", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "elbo_nats" in result.stdout
    assert "own pixel term" in result.stdout
    narrow = CliRunner().invoke(app, [*words[:3], "likelihood,disentanglement", *words[4:]], env={"COLUMNS": "80"})
    assert "own pixel term" not in narrow.stdout
    assert "mig and 9 more: not measured" in narrow.stdout
    assert max(len(line) for line in narrow.stdout.splitlines() if "nats" in line) <= 80
    assert str(tmp_path / "card.md") in result.stdout
    wrong = CliRunner().invoke(app, ["evaluate", str(trained), "--metrics", "fdi"])
    assert wrong.exit_code == 2
    assert "--metrics fdi" in wrong.stderr
    assert "likelihood" in wrong.stderr


@pytest.mark.slow
def test_a_sweep_is_evaluated_run_by_run_and_joins_the_report(tmp_path: Path, tiny_celeba: Callable[..., Path]) -> None:
    root, sweep = tiny_celeba(60), tmp_path / "multirun" / "s"
    for beta in (1, 4):
        small = ["trainer.max_epochs=1", "test=false", "callbacks=[checkpoint]"]
        run_dir = train_tiny(root, tmp_path / "data", sweep / f"beta={beta}", f"beta={beta}", *small)
        (run_dir / ".hydra").mkdir()
        (run_dir / ".hydra" / "overrides.yaml").write_text(f"- beta={beta}\n")
    (sweep / "beta=9").mkdir()
    (sweep / "beta=9" / "status.json").write_text('{"state": "failed", "reason": "no more disk"}')
    words = ["evaluate", str(sweep), "--metrics", "likelihood,latents"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "bits_per_dim" in result.stdout
    assert "beta=9: " in result.stdout
    cards = {beta: read_card(sweep / f"beta={beta}" / "evaluation" / "card.json") for beta in (1, 4)}
    rows = {row["name"]: row for row in read_csv(sweep / "report" / "evaluation.csv")}
    for beta, card in cards.items():
        assert float(rows["kl_nats"][f"beta={beta}"]) == pytest.approx(card.values["kl_nats"])
    page = Page(sweep / "report.html")
    assert "total_correlation_nats" in page.text
    assert any("over beta" in alt for alt, _ in page.pictures)
    refused = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "is a sweep" in refused.stderr


def test_cards_of_different_protocols_do_not_compare_in_silence(tmp_path: Path) -> None:
    from vae_lightning.report import write_report

    for number, split in enumerate(("test", "val")):
        folder = write_job(tmp_path, [f"beta={number + 1}"], measured(-100.0, 0.01), beta=float(number + 1))
        about = {"model": "m", "checkpoint": "best.ckpt", "count": 9, "split": split, "seed": 0, "data": "faces"}
        Card(about, [Section("latents", "Latent space", [Value("active_units", 3.0)])]).write(folder / "evaluation")
    page = Page(write_report(tmp_path))
    assert "The cards do not compare" in page.text
    (tmp_path / "beta=1" / "evaluation" / "card.json").write_text("{}")
    assert "cannot be read as a card" in Page(write_report(tmp_path)).text
