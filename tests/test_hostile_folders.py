"""Run and sweep folders, settings and cards that come from anybody: no code in them runs, no path leads elsewhere."""

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated, mutated_text
from test_hostile_plain_files import LAUGHS
from written_sweeps import measured, write_job

from vae_lightning.evaluation.card import Card, Section, read_card, to_markdown
from vae_lightning.launch.command_line import explain_unknown_key, name_jobs_by_what_is_swept
from vae_lightning.launch.configuration import CONF_DIR
from vae_lightning.launch.signatures import ConfigError, check_arguments
from vae_lightning.launch.stored_overrides import offer_of, read_overrides
from vae_lightning.launch.sweep.progress import read_progress, time_left
from vae_lightning.report import write_report
from vae_lightning.report.evaluations import read_evaluations
from vae_lightning.report.page import page_html
from vae_lightning.report.summary import summarise
from vae_lightning.report.sweep import read_sweep
from vae_lightning.report.table import make_table
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.status import read_plan, read_status, state_of
from vae_lightning.scores.result import Value


def stored(folder: Path, overrides: Any) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return folder


CHECKPOINTS_ELSEWHERE = (
    "+callbacks.x={_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: /tmp/other, filename: best}"
)
NOT_FROM_A_FOLDER = [
    # programs and classes that do not stand in conf/
    *("+callbacks.x._target_=os.system", "kl._target_=subprocess.Popen", "optimizer._target_=torch.optim.SGD"),
    "+callbacks.x={_target_: os.system, command: 'true'}",
    "+callbacks={a: {b: {_target_: callbacks.EMA.os}}}",
    "+callbacks={a: {b: {_target_: callbacks.EMA}}}",
    "model._target_=vae_lightning.data.sources.source.os.system",
    "model._target_=callbacks.EMA",
    "+callbacks.x=${oc.decode:'{_target_: os.system}'}",
    "+callbacks.x={_target_: callbacks.EMA, _args_: [0.5]}",
    "+logger.x={_target_: lightning.pytorch.loggers.CSVLogger}",
    "+trainer.profiler={_target_: lightning.pytorch.profilers.SimpleProfiler, dirpath: /tmp/other}",
    "+trainer.plugins=[{_target_: lightning.pytorch.plugins.TorchCheckpointIO}]",
    "trainer.strategy={_target_: lightning.pytorch.strategies.DDPStrategy}",
    "+data.x={_target_: lightning.Trainer, default_root_dir: /tmp/other}",
    "+trainer.x={_target_: lightning.Trainer}",
    # places to write to
    *(CHECKPOINTS_ELSEWHERE, "+callbacks.x={_target_: callbacks.LossCurves, run_dir: other}"),
    *("callbacks.best_checkpoint.dirpath=/tmp/other", "callbacks.best_checkpoint.dirpath=other"),
    *(
        "callbacks.best_checkpoint.filename=/tmp/best",
        "callbacks.last_checkpoint.filename=../../x/best",
    ),
    *("callbacks.loss_curves.run_dir=other", "logger.csv.run_dir=/tmp/other", "logger.tensorboard.run_dir=null"),
    *("+logger.csv={_target_: callbacks.MetricsCsv, run_dir: ~/other}", "+trainer.default_root_dir=other"),
    *(
        "+trainer.profiler=simple",
        "data.data_dir=/tmp/other",
        "data.data_dir=outputs",
        "data.data_dir=~nobody_at_all/x",
    ),
    *("data={data_dir: /tmp/other}", f"data.data_dir={'x' * 300}", "run_dir=/home/somebody", "+run_dir=other"),
    # files and settings of Hydra
    *("model=../../../tmp/evil", "callbacks=[ema,../evil]", "+experiment=/tmp/evil", "callbacks@data.x=checkpoint"),
    *("--config-dir=/tmp/evil", "-m", "hydra.searchpath=[file:///tmp/evil]", "hydra/launcher=ray"),
    *("+hydra.job.env_set.PATH=/tmp", "hydra.sweep.dir=/tmp", "seed=1,2", "seed", "=", "sweep=???", "compile=???"),
]


@pytest.mark.parametrize("override", NOT_FROM_A_FOLDER)
def test_going_on_takes_no_class_and_no_place_out_of_a_folder(override: str, tmp_path: Path) -> None:
    folder = stored(tmp_path / "run", ["beta=4", override])
    with pytest.raises(RunError, match=r"type it again beside ckpt_path=last") as caught:
        read_overrides(folder, CONF_DIR, set())
    assert str(caught.value).isprintable()
    key = override.split("=")[0].lstrip("+~")
    assert read_overrides(folder, CONF_DIR, {key}) == ["beta=4"]


def test_going_on_keeps_what_a_person_would_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decoded" / "cache").mkdir(parents=True)
    overrides = [
        *("beta=4", "model=conv", "model.widths=[8,16]", "data.root='/a b/c'", "callbacks=[ema,checkpoint]"),
        *("optimizer=adamw", "+callbacks.x={_target_: callbacks.EMA, decay: 0.9}", "~callbacks.ema", "compile=default"),
        *("perceptual=null", "trainer.max_epochs=-1", "model.logvar_clamp=null", "callbacks.evaluation.metrics=[fid]"),
        *("callbacks.best_checkpoint.monitor=val/mse", "+trainer.max_time=00:01:00:00", "trainer.devices=[0,1]"),
        *("data.data_dir=data", "data.data_dir=decoded", "recognizer.weights=/a/b.pt"),
        *("optimized_metric=[val/mse,val/kl]", "logger=[]", "+experiment=fast", "beta_schedule.unit=step"),
    ]
    assert read_overrides(stored(tmp_path / "run", overrides), CONF_DIR, set()) == overrides
    for damaged in (None, "beta=1", [["beta=1"]], {"beta": 1}):
        with pytest.raises(RunError, match="is damaged, so its settings are not known"):
            read_overrides(stored(tmp_path / str(damaged)[:4].strip("[{'"), damaged), CONF_DIR, set())


def test_what_a_folder_may_name_is_read_from_conf(tmp_path: Path) -> None:
    """A file that somebody adds to conf/ needs no second list."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "callbacks").mkdir()
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: vae_lightning.models.mine.MyVAE\nkind: a\n")
    (tmp_path / "conf" / "callbacks" / "b.yaml").write_text(
        "# @package callbacks.b\n_target_: callbacks.B\nplace: ${run_dir}/b\nword: a\n"
    )
    stored_here = ["model=mine", "model._target_=vae_lightning.models.mine.MyVAE", "model.kind=b", "callbacks.b.word=c"]
    folder = stored(tmp_path / "run", stored_here)
    assert read_overrides(folder, tmp_path / "conf", set()) == stored_here
    for refused in ("callbacks.b.place=x", "model.other=x", "model._target_=callbacks.B"):
        with pytest.raises(RunError, match="type it again"):
            read_overrides(stored(tmp_path / refused, [refused]), tmp_path / "conf", set())


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "no.such.Class", "", "vae_lightning.data.sources.source.os"]
)
def test_what_is_no_class_is_refused_also_where_it_is_typed(target: str) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.x\._target_=.*must be the full name of a class"):
        check_arguments({"callbacks": {"x": {"_target_": target}}})


@pytest.mark.parametrize(
    "wrong",
    [{"trials": math.nan}, {"trials": 0.5}, {"started": math.nan}, {"started": -1e308}, {"work_at_start": math.inf}],
)
def test_a_plan_of_impossible_numbers_is_none(wrong: dict[str, float], tmp_path: Path) -> None:
    plan = {"jobs": [], "in_session": ["beta=1"], "trials": None, "started": 1.0, "work_at_start": 2.0}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    assert read_plan(tmp_path) == plan
    (tmp_path / "sweep.json").write_text(json.dumps(plan | wrong))
    assert read_plan(tmp_path) == {}


def test_a_report_on_a_strangers_sweep(tmp_path: Path) -> None:
    """Files that cannot be read, names of elsewhere, and words that matplotlib, a page or a terminal would obey."""
    sweep = tmp_path / "sweep"
    write_job(sweep, ["beta=1", "+x=$a$"], measured(-100.0, 0.02), beta=1.0)
    write_job(sweep, ["beta=4", "+x=$\\frac{$<script>alert(1)"], measured(-90.0, 0.01), beta=4.0)
    damaged = write_job(sweep, ["beta=9"], {})
    (damaged / "config.yaml").write_text(LAUGHS)
    (damaged / "metrics.json").write_text("[" * 100_000)
    (damaged / "metrics.csv").write_text('step,val/loss\n1,2,3\n"')
    (damaged / "status.json").write_text(json.dumps({"state": ["done"], "changed": 3}))
    job = {"name": "../../elsewhere", "identity": "x", "overrides": ["beta=2"]}
    (sweep / "sweep.json").write_text(json.dumps({"jobs": [job]}))
    assert read_plan(sweep) == {}
    page = write_report(sweep).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    for name in ("config.yaml", "metrics.json", "metrics.csv"):
        assert f"{name} is damaged" in page


def test_a_card_touches_nothing_beside_its_folder(tmp_path: Path) -> None:
    folder, precious = tmp_path / "run" / "evaluation", tmp_path / "precious.png"
    folder.mkdir(parents=True)
    precious.write_bytes(b"mine")
    section = Section("a", "A", [], pictures=["../../precious.png"])
    card = Card({"split": "test", "count": 1, "seed": 0}, [section])
    (folder / "card.json").write_text(json.dumps({"format": 1, "about": card.about, "sections": [vars(section)]}))
    with pytest.raises(ValueError, match="not PNG files beside the card"):
        read_card(folder / "card.json")
    with pytest.raises(ValueError, match="cannot be read as a card"):
        read_card(_with_value(folder, copy.deepcopy(vars(section)), {"name": "x", "value": "high", "interval": None}))
    assert precious.read_bytes() == b"mine"


def _with_value(folder: Path, section: dict[str, Any], value: dict[str, Any]) -> Path:
    section |= {"pictures": [], "values": [value]}
    about = {"split": "test", "count": 1, "seed": 0}
    (folder / "card.json").write_text(json.dumps({"format": 1, "about": about, "sections": [section]}))
    return folder / "card.json"


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
    time_left(sweep, read_progress(sweep))


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
        named = re.search(r"_target_['\"]?\s*[=:]\s*['\"]?([\w.]*)", override)
        assert not named or named[1] in {target for _, target in offer_of(CONF_DIR).classes}


@fuzzed
def test_command_lines(number: int) -> None:
    line = b"-m beta=1,4,10 model.latent_dim=range(3,9) +callbacks.x._target_=callbacks.EMA 'data.root=/a b' sweep=name"
    arguments = mutated(line, number).decode(errors="replace").split(" ")
    explain_unknown_key(arguments, CONF_DIR)
    assert name_jobs_by_what_is_swept(arguments)[: len(arguments)] == arguments
