"""The commands and the code in README.md and docs/ work."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from tiny_runs import write_run
from typer.main import get_command
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli.app import app
from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.sweep.engines import check_extras
from vae_lightning.system.extras import MissingExtraError

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "multirun/README.md"]
RECIPES = REPOSITORY / "docs/extending.md"  # its code blocks and commands are tested in test_extending.py
README = PAGES[0].read_text(encoding="utf-8")
BLOCKS = "\n".join(
    block
    for page in PAGES
    if page != RECIPES
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
)
PRESETS = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "conf/experiment").glob("*.yaml"))
TRAIN_COMMANDS = sorted(
    {
        " ".join(shlex.split(command.partition("train.py")[2], comments=True))
        for command in [*BLOCKS.splitlines(), *re.findall(r"^#   (.*)$", PRESETS, flags=re.MULTILINE)]
        if "train.py " in command and "--help" not in command
    }
)
VAE_COMMANDS = sorted(set(re.findall(r"^(?:uv run .*)?\bvae (\w[^#\n]*?) *(?:#.*)?$", BLOCKS, flags=re.MULTILINE)))
VAE_VERBS = sorted(get_command(app).commands)  # type: ignore[attr-defined]
EDIT_VERBS = sorted(get_command(app).commands["edit"].commands)  # type: ignore[attr-defined]


@pytest.mark.readme
@pytest.mark.parametrize("command", TRAIN_COMMANDS)
def test_train_commands_compose_and_build(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    overrides = [word for word in words if "=" in word]
    parsed = OverridesParser.create().parse_overrides(overrides)
    first_of_sweep = [
        f"{override.key_or_group}={next(override.sweep_string_iterator())}"
        if override.is_sweep_override()
        else override.input_line
        for override in parsed
    ]
    try:
        check_extras(words)
    except MissingExtraError as error:
        pytest.skip(str(error))
    on_any_machine = ["trainer.accelerator=cpu"] if "trainer=gpu" in overrides else []
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*first_of_sweep, *on_any_machine, f"run_dir='{tmp_path}'"])  # type: ignore[list-item]
    assert train.build(config, to_plain(config))


@pytest.mark.parametrize("command", VAE_COMMANDS)
def test_vae_commands_name_a_verb_and_options_that_it_has(command: str) -> None:
    """Parsed and not run; what belongs to Hydra in `vae bench` is left to it."""
    context, words = get_command(app).make_context("vae", [], resilient_parsing=True), shlex.split(command)
    verb: Any = get_command(app)
    while hasattr(verb, "commands"):
        assert words[0] in verb.commands, command
        name, verb, words = *verb.resolve_command(context, words)[:2], words[1:]
    flags = {flag for option in verb.params for flag in (*option.opts, *option.secondary_opts)}
    assert not [word for word in words if word.startswith("--") and word.partition("=")[0] not in flags], (name, flags)


def test_the_help_of_train_is_that_of_train_py() -> None:
    shown = CliRunner().invoke(app, ["train", "--help"])
    assert shown.exit_code == 0
    assert "beta_schedule: capacity, constant, cyclical, warmup" in shown.output


@pytest.mark.parametrize("verb", sorted({*VAE_VERBS, *(f"edit {verb}" for verb in EDIT_VERBS)} - {"train"}))
def test_verbs_exist_and_show_an_example(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert shown.exit_code == 0
    assert f"Example: vae {verb}" in shown.output


@pytest.mark.parametrize("page", [PAGES[0], REPOSITORY / "docs/using.md"], ids=lambda page: page.name)
def test_the_tables_name_all_verbs(page: Path) -> None:
    assert sorted(re.findall(r"^\| `vae (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)) == VAE_VERBS


def test_there_are_commands_to_test() -> None:
    assert len(TRAIN_COMMANDS) >= 30
    assert len(VAE_COMMANDS) >= 25
    assert set(re.findall(r"^vae edit (\w+)", BLOCKS, flags=re.MULTILINE)) == set(EDIT_VERBS)


@pytest.mark.parametrize("page", [page for page in PAGES if page != RECIPES], ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an untrained run in place of the one that the page names."""
    run = write_run(tmp_path / "run", source="faces")
    monkeypatch.setattr("vae_lightning.load_run", lambda _: load_run(run))
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        names: dict[str, Any] = {"photographs": [Image.new("RGB", (600, 800), "tan")]}
        exec(block, names)
        assert names["faces"].shape == (16, 3, 32, 32)
        assert names["latents"].shape == (1, 6)


@pytest.mark.parametrize(
    "group",
    [
        *("model", "reconstruction", "kl", "beta_schedule", "perceptual", "experiment", "debug"),
        *("hparams_search", "hydra/launcher", "recognizer"),
    ],
)
def test_every_choice_is_named(group: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    choices = {path.stem for path in (train.CONF_DIR / group).glob("*.yaml")}
    assert choices
    assert not [choice for choice in choices if not re.search(rf"[`={choice[0]}]{choice[1:]}\b", text)]
