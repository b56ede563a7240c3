"""Run folders of earlier versions are read, and those of newer ones refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli.app import app
from vae_lightning.evaluation.card import read_card
from vae_lightning.report import write_report
from vae_lightning.runs.checkpoints import FORMAT, checkpoint_to_resume
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.status import read_plan, read_status, state_of

OLD_RUNS = Path(__file__).parent / "old_runs"
FORMATS = sorted(OLD_RUNS.glob("format_*"))
NEWEST = OLD_RUNS / f"format_{FORMAT}"
TOLERANCE = 1e-4  # other versions of PyTorch add in another order


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """A copy of what this version has written."""
    return Path(shutil.copytree(NEWEST, tmp_path / "copy"))


def test_there_is_a_run_of_every_format() -> None:
    assert [path.name for path in FORMATS] == [f"format_{number}" for number in range(1, FORMAT + 1)]


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_an_old_run_draws_what_it_drew(folder: Path) -> None:
    expected = torch.load(folder / "expected.pt")
    for checkpoint in ("best", "last"):
        load_run(folder / "run", checkpoint)
    run = load_run(folder / "run")
    assert run.record["format"] == int(folder.name.removeprefix("format_"))
    torch.testing.assert_close(run.reconstruct(expected["images"]), expected["reconstruction"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(run.sample(2, seed=0), expected["faces"], atol=TOLERANCE, rtol=0)
    assert run.interpolate(expected["images"], expected["images"]).isfinite().all()


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_verbs_that_need_the_run_alone_work_on_an_old_one(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    pictures = []
    for number, colour in enumerate(("tan", "navy")):
        pictures.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (60, 80), colour).save(pictures[-1])
    for words in (
        ["sample", str(run)],
        ["reconstruct", str(run), *pictures],
        *([["traverse", str(run), pictures[0]]] if (run / "checkpoints" / "best.latents.pt").is_file() else []),
        ["export", str(run), str(tmp_path / "exported")],
        ["sample", str(tmp_path / "exported")],
    ):
        ended = CliRunner().invoke(app, words)
        assert ended.exit_code == 0, ended.output


def test_old_runs_are_reported_side_by_side(tmp_path: Path) -> None:
    for folder in FORMATS:
        shutil.copytree(folder / "run", tmp_path / "sweep" / folder.name)
        assert state_of(tmp_path / "sweep" / folder.name) == "done"
    page = write_report(tmp_path / "sweep").read_text(encoding="utf-8")
    assert all(folder.name in page for folder in FORMATS)


def test_training_goes_on_from_the_newest_format_alone() -> None:
    for folder in FORMATS[:-1]:
        with pytest.raises(RunError, match=r"start the run anew"):
            checkpoint_to_resume("last", folder / "run")
    assert checkpoint_to_resume("last", NEWEST / "run") == NEWEST / "run" / "checkpoints" / "last.ckpt"


def test_what_was_fitted_and_measured_then_is_used_now(newest: Path) -> None:
    checkpoint = newest / "run" / "checkpoints" / "best.ckpt"
    assert set(prior_file(checkpoint).names()) == {"gaussian", "gmm"}
    directions = direction_file(checkpoint).read()
    assert directions is not None
    assert "Attribute_07" in directions.names
    assert statistics_file(checkpoint).read() is not None
    assert "elbo_nats" in read_card(newest / "run" / "evaluation" / "card.json").values
    run = load_run(newest / "run")
    assert run.sample(2, seed=0, prior="gmm").isfinite().all()
    assert run.edit(run.sample(1, seed=0), "Attribute_07", unit="std").isfinite().all()


def test_an_exported_folder_of_then_draws_the_same(newest: Path) -> None:
    expected = torch.load(newest / "expected.pt")
    exported = load_run(newest / "exported")
    torch.testing.assert_close(exported.sample(2, seed=0), expected["faces"], atol=TOLERANCE, rtol=0)
    assert exported.sample(1, seed=0, prior="gmm").isfinite().all()


def raise_in_json(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "format": content["format"] + 1}), encoding="utf-8")


def raise_in_tensors(file: Path, *path: str) -> None:
    content = torch.load(file)
    place: dict[str, Any] = content
    for name in path:
        place = place[name]
    place["format"] += 1
    torch.save(content, file)


def raise_in_checkpoint(file: Path) -> None:
    raise_in_tensors(file, RECORD_KEY)


def checkpoint_of(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "best.ckpt"


KINDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "checkpoint": ("run/checkpoints/best.ckpt", raise_in_checkpoint, lambda folder: load_run(folder / "run")),
    "checkpoint to go on from": (
        "run/checkpoints/last.ckpt",
        raise_in_checkpoint,
        lambda folder: checkpoint_to_resume("last", folder / "run"),
    ),
    "export": ("exported/config.json", raise_in_json, lambda folder: load_run(folder / "exported")),
    "card": ("run/evaluation/card.json", raise_in_json, lambda folder: read_card(folder / "run/evaluation/card.json")),
    "status": ("run/status.json", raise_in_json, lambda folder: read_status(folder / "run")),
    "plan of a sweep": ("sweep.json", raise_in_json, read_plan),
    "priors": (
        "run/checkpoints/best.priors.pt",
        raise_in_tensors,
        lambda folder: prior_file(checkpoint_of(folder)).read("gmm"),
    ),
    "directions": (
        "run/checkpoints/best.directions.pt",
        raise_in_tensors,
        lambda folder: direction_file(checkpoint_of(folder)).read(),
    ),
    "statistics of latents": (
        "run/checkpoints/best.latents.pt",
        raise_in_tensors,
        lambda folder: statistics_file(checkpoint_of(folder)).read(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_format_is_refused_in_words(kind: str, newest: Path) -> None:
    name, raise_format, read = KINDS[kind]
    (newest / "sweep.json").write_text('{"format": 1, "jobs": []}', encoding="utf-8")
    read(newest)
    raise_format(newest / name)
    with pytest.raises(ValueError, match=r"format \d+, this version reads up to \d+"):
        read(newest)


@pytest.mark.parametrize("name", ["status.json", "sweep.json"])
def test_a_sweep_of_a_newer_version_is_left_alone(name: str, newest: Path) -> None:
    """Nobody here knows whether its jobs are done: they are neither skipped nor trained again."""
    sweep = newest / "sweep"
    shutil.copytree(newest / "run", sweep / "beta=1")
    before = (sweep / "beta=1" / "status.json").read_bytes()
    file = sweep / name if name == "sweep.json" else sweep / "beta=1" / name
    file.write_text('{"format": 99, "state": "paused", "jobs": []}', encoding="utf-8")
    with pytest.raises(RunError, match="update vae-lightning"):
        write_report(sweep)
    assert name == "status.json" or (sweep / "beta=1" / "status.json").read_bytes() == before
