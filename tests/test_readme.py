"""The README's commands and pictures are real."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from typer.testing import CliRunner

import train
from vae_lightning.cli import app

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL))
TRAIN_COMMANDS = sorted(
    {line.split("#")[0] for line in BLOCKS.splitlines() if "train.py" in line and "--help" not in line}
)
VAE_VERBS = sorted(set(re.findall(r"^vae (\w+)", BLOCKS, flags=re.MULTILINE)))


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
    on_any_machine = ["trainer.accelerator=cpu"] if "trainer=gpu" in overrides else []
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*first_of_sweep, *on_any_machine, f"run_dir='{tmp_path}'"])  # type: ignore[list-item]
    assert train.build(config, train.to_plain(config))


@pytest.mark.parametrize("verb", VAE_VERBS)
def test_verbs_exist_and_show_an_example(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example: vae {verb}" in shown.output


def test_there_are_commands_to_test() -> None:
    assert len(TRAIN_COMMANDS) >= 8
    assert VAE_VERBS == ["bench", "reconstruct", "sample"]


def test_pictures_and_files_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (README.parent / path).is_file(), path
    (tree,) = re.findall(r"## Files\n\n```\n(.*?)```", TEXT, flags=re.DOTALL)
    for name in re.findall(r"[\w/]+\.(?:py|yaml)\b", tree):
        matches = list(README.parent.glob(f"**/{name}"))
        assert any(".venv" not in path.parts for path in matches), name
