"""Files of a newer version of the framework are refused in words: nobody here knows what they mean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import checkpoint, fit_everything, write_run

from vae_lightning import load_run
from vae_lightning.evaluation.card import read_card
from vae_lightning.export import export_run
from vae_lightning.report import write_report
from vae_lightning.runs.checkpoints import checkpoint_to_resume
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.status import read_plan, read_status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with all that this version writes beside it."""
    run = write_run(tmp_path / "run")
    fit_everything(run)
    (run / "checkpoints" / "last.ckpt").write_bytes(checkpoint(run).read_bytes())
    (run / "status.json").write_text('{"format": 1, "state": "done"}', encoding="utf-8")
    (tmp_path / "sweep.json").write_text('{"format": 1, "jobs": []}', encoding="utf-8")
    export_run(run, tmp_path / "exported")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "card.json").write_text(
        '{"format": 1, "about": {"split": "test", "count": 9, "seed": 0}, "sections": []}', encoding="utf-8"
    )
    return tmp_path


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


KINDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "checkpoint": ("run/checkpoints/best.ckpt", raise_in_checkpoint, lambda folder: load_run(folder / "run")),
    "checkpoint to resume": (
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
        lambda folder: prior_file(checkpoint(folder / "run")).read("gmm"),
    ),
    "directions": (
        "run/checkpoints/best.directions.pt",
        raise_in_tensors,
        lambda folder: direction_file(checkpoint(folder / "run")).read(),
    ),
    "statistics of latents": (
        "run/checkpoints/best.latents.pt",
        raise_in_tensors,
        lambda folder: statistics_file(checkpoint(folder / "run")).read(),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_format_is_refused_in_words(kind: str, folder: Path) -> None:
    name, raise_format, read = KINDS[kind]
    read(folder)
    raise_format(folder / name)
    with pytest.raises(ValueError, match=r"format \d+, this version reads up to \d+"):
        read(folder)


@pytest.mark.parametrize("name", ["status.json", "sweep.json"])
def test_a_sweep_of_a_newer_version_is_left_alone(name: str, tmp_path: Path) -> None:
    """Nobody here knows whether its jobs are done: they are neither skipped nor trained again."""
    job = write_run(tmp_path / "beta=1")
    (job / "status.json").write_text('{"format": 1, "state": "done"}', encoding="utf-8")
    file = tmp_path / name if name == "sweep.json" else job / name
    file.write_text('{"format": 99, "state": "paused", "jobs": []}', encoding="utf-8")
    before = (job / "status.json").read_bytes()
    with pytest.raises(RunError, match="update vae-lightning"):
        write_report(tmp_path)
    assert (job / "status.json").read_bytes() == before
