"""train.py and vae as processes of their own: what a person types, what the person sees."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT, SMALL, fork_train, fork_vae, train, wait_for
from typer.testing import CliRunner

from vae_lightning.cli.app import app

pytestmark = pytest.mark.process


def test_help_names_groups_and_examples(tmp_path: Path) -> None:
    text = train("--help", cwd=tmp_path).stdout
    for words in (
        "-m beta=1,4,10",
        "model: conv",
        "reconstruction: absolute_error, bce, gaussian_discretised, gaussian_per_pixel, gaussian_shared, logistic, ",
        "latent_dim: 128",
    ):
        assert words in text


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra shows its whole traceback where a tracer runs, and `pytest --cov` runs one in every process."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("bata=1", "did you mean beta?"),
        pytest.param("beta=abc", "beta=abc: must be a number", marks=pytest.mark.slow),
        pytest.param("model=convv", "conv", marks=pytest.mark.slow),
        pytest.param("seed=x", "seed=x: must be a whole number", marks=pytest.mark.slow),
        pytest.param("model.latent_dm=3", "latent_dm", marks=pytest.mark.slow),
    ],
)
def test_misspelt_overrides_end_at_once(argument: str, words: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), argument]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode != 0
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.slow
def test_a_sweep_its_folders_and_the_verbs(
    tiny_celeba: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(60)
    shared = [*SMALL, "trainer.max_epochs=1", "hydra.sweep.dir=multirun/now"]
    fork_train("-m", "beta=1,10", *shared, cwd=tmp_path, CELEBA_ROOT=str(root))
    jobs = sorted(path.name for path in (tmp_path / "multirun" / "now").iterdir() if (path / "status.json").exists())
    assert jobs == ["beta=1", "beta=10"]
    for job in jobs:
        assert (tmp_path / "multirun" / "now" / job / "metrics.json").is_file()
    sampled = fork_vae("sample", "last", "--count", "3", cwd=tmp_path).stdout.strip()
    assert (tmp_path / sampled).is_file()
    own = tmp_path / "me.png"
    own.write_bytes((root / "img_align_celeba" / "000001.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)  # one verb as a process of its own is enough
    words = ["reconstruct", "multirun/now/beta=1", str(own), "--out", "both.png"]
    assert CliRunner().invoke(app, words).stdout.strip() == "both.png"
    assert Path("both.png").is_file()
    refused = CliRunner().invoke(app, ["sample", "multirun/now"])
    assert refused.exit_code == 2
    assert "beta=1/checkpoints/best.ckpt" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_that_training_goes_on_from(
    tiny_celeba: Callable[..., Path], tmp_path: Path
) -> None:
    root = tiny_celeba(60)
    command = [str(ROOT / "train.py"), *SMALL, f"data.root={root}", "callbacks=[checkpoint,loss_curves]"]
    process = subprocess.Popen(
        [sys.executable, *command, "trainer.max_epochs=100000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(tmp_path.glob("outputs/*/checkpoints/last.ckpt")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors[-3000:]
    assert "ckpt_path=last" in errors
    (run_dir,) = (tmp_path / "outputs").iterdir()
    assert (run_dir / "loss_curves.png").is_file()
    epochs_done = len((run_dir / "metrics.csv").read_text().splitlines())
    fork_train("ckpt_path=last", f"trainer.max_epochs={epochs_done + 2}", cwd=tmp_path)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [run_dir.name]
    assert (run_dir / "metrics.json").is_file()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "list_eval_partition.txt").unlink(), ["list_eval_partition"]),
        (lambda root: _cut_short(root / "img_align_celeba" / "000007.jpg"), ["row 6 of", "000007.jpg", "whole copy"]),
    ],
    ids=["missing partition file", "truncated JPEG"],
)
def test_damaged_data_ends_with_one_clear_message(
    damage: Callable[[Path], None], words: list[str], tiny_celeba: Callable[..., Path], tmp_path: Path
) -> None:
    root = tiny_celeba(60)
    damage(root)
    errors = fork_train(*SMALL, f"data.root={root}", "data=celeba", cwd=tmp_path, expect=1).stderr
    for word in words:
        assert word in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("data/cache/*/images.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_presets_can_be_read_before_they_run(preset: str, tmp_path: Path) -> None:
    """`--cfg job --resolve`: no reference is left to look up, and nothing is written."""
    finished = fork_train(f"experiment={preset}", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert "${" not in finished.stdout
    assert re.search(r"^run_dir: outputs/", finished.stdout, flags=re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
    header = (ROOT / "conf" / "experiment" / f"{preset}.yaml").read_text()
    assert f"python train.py experiment={preset}" in header
    assert re.search(r"min\b", header), "says how long it takes"
    assert re.search(r"(mse|accuracy|r_squared) 0\.\d+", header), "says what comes out"
