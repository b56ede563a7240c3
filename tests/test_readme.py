"""The README's commands and pictures are real."""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from stand_ins import noise_images, subject_of
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

import train
from vae_lightning.cli.app import app
from vae_lightning.evaluation.measured import Measured, Metric, Value
from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.engines import check_extras
from vae_lightning.losses import GaussianPerPixel, Objective
from vae_lightning.models import Autoencoder, LinearVAE
from vae_lightning.runs.opened import Subject
from vae_lightning.scores.resampling import bootstrap_interval
from vae_lightning.training.vae_module import VAEModule

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL))
TRAIN_COMMANDS = sorted(
    {line.split("#")[0] for line in BLOCKS.splitlines() if "train.py" in line and "--help" not in line}
)
EDIT_VERBS = sorted(set(re.findall(r"^vae edit (\w+)", BLOCKS, flags=re.MULTILINE)))
VAE_VERBS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.readme
@pytest.mark.parametrize("command", TRAIN_COMMANDS)
def test_train_commands_compose_and_build(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    overrides = [
        word for word in words[words.index(next(w for w in words if w.endswith("train.py"))) + 1 :] if "=" in word
    ]
    parsed = OverridesParser.create().parse_overrides(overrides)
    first_of_sweep = [
        f"{override.key_or_group}={next(override.sweep_string_iterator())}"
        if override.is_sweep_override()
        else override.input_line
        for override in parsed
    ]
    try:
        check_extras(words)
    except ConfigError as error:
        pytest.skip(str(error))
    on_any_machine = ["trainer.accelerator=cpu"] if "trainer=gpu" in overrides else []
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*first_of_sweep, *on_any_machine, f"run_dir='{tmp_path}'"])  # type: ignore[list-item]
    assert train.build(config, to_plain(config))


@pytest.mark.parametrize("verb", [*VAE_VERBS, *(f"edit {verb}" for verb in EDIT_VERBS)])
def test_verbs_exist_and_show_an_example(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: vae {verb}" in shown.output


def test_the_table_names_all_verbs_and_no_command_another() -> None:
    assert re.findall(r"^\| `vae (\w+)", TEXT, flags=re.MULTILINE)
    assert sorted(re.findall(r"^\| `vae (\w+)", TEXT, flags=re.MULTILINE)) == VAE_VERBS
    assert set(re.findall(r"^(?:uv run .*)?vae (\w+)", BLOCKS, flags=re.MULTILINE)) <= set(VAE_VERBS)


def test_the_model_to_start_from_encodes_and_decodes() -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL) if "class TinyVAE" in block)
    names: dict[str, Any] = {"math": math, "nn": nn, "Autoencoder": Autoencoder}
    exec(code, names)
    model = names["TinyVAE"](image_size=32, latent_dim=4, pixel_logvar=True)
    module = VAEModule(model, Objective(GaussianPerPixel()), torch.optim.Adam)
    images = torch.rand(2, 3, 32, 32)
    prediction = module.model.predict_pixels(module.model.encode(images).mean)
    assert prediction.mean.shape == images.shape
    assert prediction.logvar is not None
    assert prediction.logvar.shape == images.shape
    assert module.configure_optimizers().param_groups[0]["params"]


def test_the_metric_to_start_from_measures() -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL) if "(Metric)" in block)
    names: dict[str, Any] = {
        **{"dataclass": dataclass, "ClassVar": ClassVar, "bootstrap_interval": bootstrap_interval},
        **{"Metric": Metric, "Measured": Measured, "Value": Value, "Subject": Subject, "__name__": "readme"},
    }
    exec(code, names)
    model = LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4)
    (value,) = names["Brightness"]().measure(subject_of(model, noise_images(20))).values
    assert value.interval is not None
    assert 0 < value.interval[0] <= value.value <= value.interval[1] < 1


def test_there_are_commands_to_test() -> None:
    assert len(TRAIN_COMMANDS) >= 8
    assert EDIT_VERBS == ["amplify", "attribute", "directions", "guide", "score", "transfer"]


@pytest.mark.parametrize(
    "group",
    [
        *("model", "reconstruction", "kl", "beta_schedule", "perceptual", "experiment", "debug"),
        *("hparams_search", "hydra/launcher", "recognizer"),
    ],
)
def test_every_choice_is_named(group: str) -> None:
    choices = {path.stem for path in (train.CONF_DIR / group).glob("*.yaml")}
    assert choices
    assert not [choice for choice in choices if not re.search(rf"[`={choice[0]}]{choice[1:]}\b", TEXT)]


def test_pictures_and_files_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (README.parent / path).is_file(), path
    (tree,) = re.findall(r"## Files\n\n```\n(.*?)```", TEXT, flags=re.DOTALL)
    parts = (README.parent / part for part in ("train.py", "conf", "vae_lightning", "callbacks", "tests"))
    there = [str(path) for part in parts for path in ([part] if part.is_file() else part.rglob("*"))]
    for name in re.findall(r"[\w/]+\.(?:py|yaml)\b", tree):
        assert any(path.endswith(f"/{name}") for path in there), name


def test_every_promise_is_held_by_a_test_that_exists() -> None:
    page = TEXT.partition("## What you can rely on")[2].partition("\n## ")[0]
    file, named = None, []
    for path, name in re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", page):
        file = path or file
        named.append((file, name))
    assert len(named) > 60
    for file, name in named:
        code = (README.parent / "tests" / str(file)).read_text(encoding="utf-8")
        assert f"def {name}(" in code or not name, f"{file}::{name}"
