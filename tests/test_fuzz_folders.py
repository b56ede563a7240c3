"""What stands in run and sweep folders, nearly right, and command lines: tests/fuzzing.py."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated, mutated_text
from written_sweeps import measured, write_job

from vae_lightning.evaluation.card import Card, Section, read_card, to_markdown
from vae_lightning.evaluation.measured import Value
from vae_lightning.launch.command_line import explain_unknown_key, name_jobs_by_what_is_swept
from vae_lightning.launch.configuration import CONF_DIR
from vae_lightning.launch.overrides import TARGET, read_overrides
from vae_lightning.launch.sweep.progress import look, time_left
from vae_lightning.report.evaluations import read_evaluations
from vae_lightning.report.page import page_html
from vae_lightning.report.summary import summarise
from vae_lightning.report.sweep import read_sweep
from vae_lightning.report.table import make_table
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.status import read_plan, read_status, state_of


@fuzzed
def test_metrics(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "metrics.csv"
    path.write_bytes(mutated(b"step,epoch,val/loss,train/loss\n10,0,3.5,\n20,1,,2.5\n30,1,1e-3,nan\n", number))
    try:
        assert all(isinstance(value, float) for row in read_metrics(path) for value in row.values())
    except ValueError as error:
        check_words(error)


def plain_files() -> dict[str, Any]:
    """What a sweep folder holds, as plain data by path."""
    status = {"state": "done", "identity": "ab", "session": "s", "process": 3, "host": "here", "attempt": 1}
    config = {
        "beta": 4.0,
        "posterior": "gaussian",
        "model": {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 16, "posterior": "gaussian"},
        "reconstruction": {"_target_": "vae_lightning.losses.SquaredError"},
        "recognizer": None,
        "data": {"image_size": 32, "color": "rgb", "crop": 148},
        "trainer": {"max_epochs": 3, "max_steps": -1},
    }
    job = {"name": "beta=9", "identity": "cd", "overrides": ["beta=9", "data=faces"]}
    plan = {"session": "s", "started": 1.0, "trials": None, "in_session": ["beta=4"], "jobs": [job], "engine": "basic"}
    return {
        "beta=4/status.json": {**status, "changed": ["a"], "made_with": {"libraries": {"torch": "2"}}},
        "beta=4/config.yaml": config,
        "beta=4/metrics.json": measured(-90.0, 0.01),
        "beta=4/data.json": {"source": "celeba", "fingerprint": "01", "test_count": 3},
        "beta=4/.hydra/overrides.yaml": ["beta=4", "data=faces", "+model.width=3"],
        "beta=4/evaluation/card.json": json.loads(json.dumps(_card())),
        "sweep.json": {**plan, "work_at_start": 1.0},
    }


def _card() -> dict[str, Any]:
    value = Value("bits_per_dim", 3.5, "of 256 levels", (3.4, 3.6), "lower")
    section = Section("likelihood", "Likelihood", [value], {"seed": 0}, ["Fine."], {"rows": [{"a": 1}]}, ["a.png"], 1.5)
    return {
        "format": 1,
        "about": {"split": "test", "count": 10, "seed": 0},
        "sections": [vars(section) | _plain(value)],
    }


def _plain(value: Value) -> dict[str, Any]:
    return {"values": [vars(value)]}


@fuzzed
def test_sweep_folders(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    sweep = folder_of_all(tmp_path_factory) / "sweep"
    files = plain_files()
    if not sweep.exists():
        write_job(sweep, ["beta=1"], measured(-95.0, 0.02))
        for path, content in files.items():
            (sweep / path).parent.mkdir(parents=True, exist_ok=True)
            (sweep / path).write_text(_writer(path)(content))
    path = list(files)[number % len(files)]
    (sweep / path).write_bytes(mutated_text(files[path], number, _writer(path)))
    try:
        _report(sweep)
    finally:
        (sweep / path).write_text(_writer(path)(files[path]))


def _writer(path: str) -> Callable[[Any], str]:
    return json.dumps if path.endswith(".json") else yaml.safe_dump


def _report(sweep: Path) -> None:
    read = read_sweep(sweep)
    table = make_table(read)
    page = page_html(read, table, summarise(read, table), [], [], read_evaluations(table))
    assert page.count("<script>") == 1
    time_left(sweep, look(sweep))


@fuzzed
def test_states_and_plans(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    folder, files = folder_of_all(tmp_path_factory), plain_files()
    (folder / "status.json").write_bytes(mutated_text(files["beta=4/status.json"], number))
    (folder / "sweep.json").write_bytes(mutated_text(files["sweep.json"], number))
    read_status(folder)
    state_of(folder)
    for job in read_plan(folder).get("jobs", []):
        assert Path(job["name"]).name == job["name"]


@fuzzed
def test_cards(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "card.json"
    path.write_bytes(mutated_text(_card(), number))
    try:
        card: Card = read_card(path)
    except ValueError:
        return
    assert all(Path(picture).name == picture for picture in card.pictures)
    assert card.values is not None
    if {"checkpoint", "data"} <= card.about.keys():
        to_markdown(card)


@fuzzed
def test_settings_of_a_folder(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    folder = folder_of_all(tmp_path_factory)
    (folder / ".hydra").mkdir(exist_ok=True)
    stored = ["beta=4", "+callbacks.x={_target_: callbacks.EMA, decay: 0.9}", "model=conv", "~callbacks.ema", "seed=1"]
    (folder / ".hydra" / "overrides.yaml").write_bytes(mutated_text(stored, number, yaml.safe_dump))
    try:
        kept = read_overrides(folder, CONF_DIR, {"seed"})
    except RunError as error:
        check_words(error)
        return
    for override in kept:
        assert not override.startswith(("-", "hydra", "+hydra"))
        assert "${" not in override
        assert not re.search(r"_target_['\"]?\s*[=:]", override) or TARGET.search(override)


@fuzzed
def test_command_lines(number: int) -> None:
    line = b"-m beta=1,4,10 model.latent_dim=range(3,9) +callbacks.x._target_=callbacks.EMA 'data.root=/a b' sweep=name"
    arguments = mutated(line, number).decode(errors="replace").split(" ")
    explain_unknown_key(arguments, CONF_DIR)
    assert name_jobs_by_what_is_swept(arguments)[: len(arguments)] == arguments
