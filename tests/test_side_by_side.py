"""Several processes that start the same thing at once: done once, or refused with a word; never broken."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import ROOT, SMALL, start_training, train, vae

from vae_lightning import load_run
from vae_lightning.data.rendering.dataset import render_faces
from vae_lightning.runs.status import read_status, state_of

pytestmark = [pytest.mark.nightly, pytest.mark.process]

QUICK = [*SMALL, "callbacks=[checkpoint]", "logger=[csv]", "trainer.enable_progress_bar=false"]
Ended = tuple[int, str]  # exit code, what was said


def at_once(*commands: list[str], cwd: Path) -> list[Ended]:
    started = [
        subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    said = [process.communicate(timeout=500)[0] for process in started]
    return [(process.returncode, words) for process, words in zip(started, said, strict=True)]


def python(program: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}"]


def vae_at_once(*commands: list[str], cwd: Path) -> list[Ended]:
    program = str(Path(sys.executable).with_name("vae"))
    return at_once(*([program, *command] for command in commands), cwd=cwd)


def assert_all_well(ended: list[Ended]) -> None:
    for code, said in ended:
        assert (code, "Traceback" in said) == (0, False), said[-3000:]


def test_eight_that_need_the_same_faces_draw_and_decode_them_once(tmp_path: Path) -> None:
    program = """
from vae_lightning.data import FaceDataModule
from vae_lightning.data.rendering import dataset as faces
draw = faces.draw_chunk
faces.draw_chunk = lambda *chunk: (print("drawn"), draw(*chunk))[1]
data = FaceDataModule("faces", faces_count=200, image_size=32)
data.prepare_data()
print("sum", sum(int(data.split(split).images.sum()) for split in ("train", "val", "test")))
"""
    ended = at_once(*([python(program)] * 8), cwd=tmp_path)
    assert_all_well(ended)
    assert sum(said.count("drawn") for _, said in ended) == 4  # chunks of 50
    assert sum(said.count("Decoding train images") for _, said in ended) == 1
    assert len({re.findall(r"sum \d+", said)[0] for _, said in ended}) == 1
    alone = render_faces(tmp_path / "alone", count=200, num_workers=1)
    (drawn,) = (tmp_path / "data").glob("faces-*")
    for path in alone.rglob("*.*"):
        assert path.read_bytes() == (drawn / path.relative_to(alone)).read_bytes()
    assert not [path for path in (tmp_path / "data").rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("count", [2, 8])
def test_one_trains_in_a_folder_and_the_others_say_who(
    count: int, tiny_celeba: Callable[..., Path], tmp_path: Path
) -> None:
    command = [*QUICK, f"data.root={tiny_celeba(60)}", "hydra.run.dir=run", "trainer.max_epochs=40"]
    started = [start_training(*command, cwd=tmp_path) for _ in range(count)]
    said = [process.communicate(timeout=500)[0] for process in started]
    codes = [process.returncode for process in started]
    for code, words in zip(codes, said, strict=True):
        assert "Traceback" not in words
        assert code == 0 or "is in use by" in words, words
    trained = [words for words in said if "validation, best epoch" in words and "is done already" not in words]
    assert len(trained) == 1
    run = tmp_path / "run"
    assert state_of(run) == "done"
    with (run / "metrics.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert len(steps) == len(set(steps))
    train(*(word for word in command if not word.startswith("hydra")), "hydra.run.dir=alone", cwd=tmp_path)
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "alone")
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_two_commands_share_the_jobs_of_a_sweep(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    command = ["-m", "beta=1,4,8,16", "sweep=s", "trainer.max_epochs=15", *QUICK, f"data.root={tiny_celeba(60)}"]
    started = [start_training(*command, cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=500)[0] for process in started]
    assert "Traceback" not in "".join(said)
    sweep = tmp_path / "multirun" / "s"
    jobs = sorted(path.parent for path in sweep.glob("*/status.json"))
    assert [path.name for path in jobs] == ["beta=1", "beta=16", "beta=4", "beta=8"]
    assert {state_of(job) for job in jobs} == {"done"}
    for job in jobs:
        assert (job / "train.log").read_text().count("ConvVAE (") == 1  # trained once
        assert read_status(job)["attempt"] == 1
    assert len(json.loads((sweep / "sweep.json").read_text())["jobs"]) == 4
    again = train(*command, cwd=tmp_path)
    assert again.stderr.count("is done already") == 4
    with (sweep / "report.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * 4


def test_verbs_on_one_run_at_once_leave_what_one_alone_leaves(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    command = ["-m", "beta=1,4", "sweep=s", "trainer.max_epochs=1", *QUICK, f"data.root={tiny_celeba(200)}"]
    train(*command, cwd=tmp_path)
    run = tmp_path / "multirun" / "s" / "beta=1"
    measured = ["evaluate", str(run), "--metrics", "likelihood,reconstructions"]
    fitted = ["edit", "directions", str(run)]
    assert_all_well(vae_at_once(measured, measured, cwd=tmp_path))
    assert_all_well(vae_at_once(fitted, fitted, ["sample", str(run)], cwd=tmp_path))
    assert_all_well(vae_at_once(*([["report", "multirun/s"]] * 2), cwd=tmp_path))
    values = [section["values"] for section in json.loads((run / "evaluation" / "card.json").read_text())["sections"]]
    directions = load_run(run).directions()
    for path in (run / "evaluation", run / "edits"):
        path.rename(path.with_name(f"{path.name}-at-once"))
    (run / "checkpoints" / "best.directions.pt").unlink()
    vae(*measured, cwd=tmp_path)
    vae(*fitted, cwd=tmp_path)
    alone = [section["values"] for section in json.loads((run / "evaluation" / "card.json").read_text())["sections"]]
    assert values == alone
    for name in directions.fitted_names:
        shifts = [each.direction(name).shift(1.0) for each in (directions, load_run(run).directions())]
        np.testing.assert_array_equal(*shifts)
    assert not [path.name for path in run.rglob(".*") if path.name not in (".lock", ".hydra")]
