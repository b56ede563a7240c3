"""A resumed run keeps its own settings where conf/ has changed since it was started, and names what has changed."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir

from vae_lightning.launch.configuration import CONF_DIR
from vae_lightning.launch.kept_settings import Composer, keep_settings, resolved
from vae_lightning.launch.overrides import key_of
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.settings import differences, read_settings

STARTED = ["experiment=fast", "trainer=cpu", "trainer.precision=32-true"]


def settings_of(run: Path, overrides: list[str], conf: Path) -> dict[str, Any]:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return resolved(Composer(run, [])(overrides))


@cache
def own_settings(overrides: tuple[str, ...]) -> dict[str, Any]:
    return settings_of(Path("anywhere"), list(overrides), CONF_DIR)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A copy of conf/ that an upgrade may change."""
    return Path(shutil.copytree(CONF_DIR, tmp_path / "conf"))


def edit(file: Path, *replacements: tuple[str, str]) -> None:
    text = file.read_text()
    for before, after in replacements:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    def start(*overrides: str) -> Path:
        run = tmp_path / "run"
        run.mkdir()
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        (run / "config.yaml").write_text(yaml.safe_dump(own_settings(overrides)))
        return run

    return start


def resumed(run: Path, conf: Path, typed: list[str]) -> dict[str, Any]:
    kept = [override for override in STARTED if key_of(override) not in set(map(key_of, typed))]
    return settings_of(run, [*keep_settings(run, kept, typed, conf), *typed], conf)


CHANGES: dict[str, Callable[[Path], None]] = {
    "a value of the preset": lambda conf: edit(conf / "experiment/fast.yaml", ("lr: 5.0e-3", "lr: 1.0e-3")),
    "a choice of the preset": lambda conf: edit(
        conf / "experiment/fast.yaml",
        ("/lr_schedule: decay", "/lr_schedule: constant"),
        ("/model: patch", "/model: conv"),
    ),
    "the preset is gone": lambda conf: (conf / "experiment/fast.yaml").unlink(),
    "a default": lambda conf: edit(conf / "config.yaml", ("beta: 1.0 ", "beta: 4.0 "), ("seed: 0 ", "seed: 7 ")),
    "a value that others follow": lambda conf: edit(conf / "data/auto.yaml", ("image_size: 64", "image_size: 32")),
    "a new setting": lambda conf: edit(conf / "model/patch.yaml", ("_target_:", "dropout: 0.1\n_target_:")),
    "a setting is gone": lambda conf: edit(conf / "model/patch.yaml", ("patch: 4", "# patch: 4")),
    "a part that was none": lambda conf: edit(conf / "config.yaml", ("perceptual: none", "perceptual: vgg16")),
    "other callbacks": lambda conf: edit(conf / "config.yaml", ("[checkpoint, throughput,", "[checkpoint, ema,")),
}

FAST = ("a value of the preset",)


@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=[pytest.mark.slow] if name not in FAST else []) for name in CHANGES],
)
def test_what_conf_says_now_does_not_reach_a_resumed_run(
    change: str, conf: Path, start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(*STARTED)
    own = read_settings(run)
    CHANGES[change](conf)
    if change != "the preset is gone":
        assert list(differences(own, settings_of(run, STARTED, conf)))
    assert list(differences(own, resumed(run, conf, []))) == []
    assert "keeps its own settings" in capsys.readouterr().err
    typed = ["trainer.max_epochs=20"]
    longer = resumed(run, conf, typed)
    assert [each.key for each in differences(own, longer)] == ["trainer.max_epochs"]
    assert "max_epochs" not in capsys.readouterr().err


def test_nothing_is_said_or_added_where_nothing_has_changed(
    conf: Path, start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(*STARTED)
    moved = run.rename(run.with_name("renamed"))
    assert keep_settings(moved, STARTED, ["ckpt_path=last"], conf) == STARTED
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("beta=2", "beta", 2.0),
        ("beta=4", "beta", 4.0),  # the new default
        ("seed=3", "data.seed", 3),  # follows
        ("data.image_size=128", "model.image_size", 128),
        ("model=linear", "model._target_", "vae_lightning.models.LinearVAE"),
        ("perceptual=vgg16", "perceptual.weight", 0.1),
        ("+callbacks=ema", "callbacks.ema.decay", 0.999),
        ("~callbacks.throughput", "callbacks.throughput", None),
    ],
)
def test_what_is_typed_has_its_whole_effect(
    typed: str, key: str, value: Any, conf: Path, start: Callable[..., Path]
) -> None:
    run = start(*STARTED)
    edit(conf / "config.yaml", ("beta: 1.0 ", "beta: 4.0 "), ("seed: 0 ", "seed: 7 "))
    edit(conf / "data/auto.yaml", ("image_size: 64", "image_size: 32"))
    now: Any = resumed(run, conf, [typed])
    for name in key.split("."):
        now = now.get(name)
    assert now == value
    changed = {each.path[0] for each in differences(read_settings(run), resumed(run, conf, [typed]))}
    assert changed <= {key.split(".")[0], typed.lstrip("+~").split("=")[0].split(".")[0]}


def test_settings_that_cannot_be_read_are_no_settings(tmp_path: Path, start: Callable[..., Path]) -> None:
    run = start(*STARTED)
    for damaged in ("[", "- beta: 1", "beta: 1"):
        (run / "config.yaml").write_text(damaged)
        with pytest.raises(RunError, match=r"config\.yaml .*settings are not known"):
            keep_settings(run, STARTED, [], CONF_DIR)
    with pytest.raises(RunError, match=r"config\.yaml cannot be read"):
        keep_settings(tmp_path, STARTED, [], CONF_DIR)


def test_a_program_is_not_taken_out_of_config_yaml(start: Callable[..., Path]) -> None:
    run = start(*STARTED)
    own = yaml.safe_load((run / "config.yaml").read_text())
    own["callbacks"]["x"] = {"_target_": "os.system", "command": "true"}
    (run / "config.yaml").write_text(yaml.safe_dump(own))
    with pytest.raises(RunError, match=r"config\.yaml says .*os\.system.*type it again"):
        keep_settings(run, STARTED, [], CONF_DIR)
