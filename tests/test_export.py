"""`vae export`: the folder loads as the run did, tells nothing of the machine, and is whole or not there."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import train_tiny, write_celeba
from PIL import Image
from safetensors import safe_open
from tiny_runs import LADDER, PRIVATE, checkpoint, fit_everything, write_run
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli.app import app
from vae_lightning.export import Exported, export_run, folder
from vae_lightning.export.contents import portable
from vae_lightning.export.folder import replacing_folder
from vae_lightning.runs.checkpoints import build_reconstruction, read_checkpoint
from vae_lightning.runs.fitted import digest_of, prior_file
from vae_lightning.runs.layout import EXPORTED_CONFIG, EXPORTED_WEIGHTS, RECORD_KEY, RunError

MODELS: dict[str, dict[str, Any]] = {
    "conv": {"norm": "batch"},
    "autoencoder": {"posterior": "deterministic", "color": "gray"},
    "pixel variance": {"pixel_logvar": True, "reconstruction": "GaussianPerPixel"},
    "linear": {"_target_": "vae_lightning.models.LinearVAE", "hidden_dim": 16, "output_activation": "tanh"},
    "patch": {"_target_": "vae_lightning.models.PatchVAE", "widths": [8, 8], "decoder_widths": [8, 8]},
    "residual": {"_target_": "vae_lightning.models.ResidualVAE", "widths": [8, 8, 8], "num_blocks": 1},
    "ladder": {**LADDER, "reconstruction": "Logistic"},
}


def vae(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """A run to which everything was fitted, and its export: to be read, not to be changed."""
    place = tmp_path_factory.mktemp("fitted")
    run = write_run(place / "run")
    fit_everything(run)
    return run, export_run(run, place / "exported")


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_computes_bitwise_what_the_run_does(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", **MODELS[name])
    exported = export_run(run, tmp_path / "exported")
    before, after = load_run(run), load_run(exported.folder)
    latents = torch.randn(3, before.model.latent_dim, generator=torch.Generator().manual_seed(0))
    images = before.decode(latents)
    assert images.std() > 0
    assert torch.equal(after.decode(latents), images)
    assert torch.equal(after.encode(images).mean, before.encode(images).mean)
    assert type(after.encode(images)) is type(before.encode(images))
    assert after.model.pixel_range == before.model.pixel_range


def test_a_trained_run_gives_the_mean_of_its_weights_and_its_learned_sigma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then every verb takes the folder, with the data that CELEBA_ROOT names."""
    root = write_celeba(tmp_path / "celeba", 60)
    choices = ["reconstruction=gaussian_shared", "reconstruction.variance=learned", "optimizer.lr=0.05"]
    small = ["callbacks=[checkpoint,ema]", "callbacks.ema.decay=0.9", "trainer.max_epochs=1", "model.widths=[8,8]"]
    run = train_tiny(root, tmp_path / "data", tmp_path / "run", *choices, *small)
    folder = export_run(run, tmp_path / "exported").folder
    kept, exported = read_checkpoint(checkpoint(run)), read_checkpoint(folder / EXPORTED_WEIGHTS)
    mean, raw = kept["state_dict"], kept["current_model_state"]
    weight = "model.posterior_head.weight"
    assert torch.equal(exported["state_dict"][weight], mean[weight])
    assert not torch.equal(mean[weight], raw[weight])
    assert build_reconstruction(exported).sigma((0.0, 1.0)) == build_reconstruction(kept).sigma((0.0, 1.0))
    assert build_reconstruction(exported).sigma((0.0, 1.0)) != pytest.approx(12**-0.5, abs=1e-3)
    root.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert "CELEBA_ROOT" in vae("reconstruct", folder, code=2)
    monkeypatch.setenv("CELEBA_ROOT", str(tmp_path / "elsewhere"))
    vae("reconstruct", folder, "-n", 2)
    assert (folder / "images" / "reconstruct_test.png").is_file()
    vae("evaluate", folder, "--metrics", "likelihood", "--device", "cpu")
    card = json.loads((folder / "evaluation" / "card.json").read_text())
    assert card["about"]["same_files_as_in_training"] is True
    assert card["about"]["epoch"] == 1


def test_what_was_fitted_goes_along_under_the_new_digest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    directions, statistics = fit_everything(run)
    output = vae("export", run, tmp_path / "exported")
    assert "Included: priors gaussian, gmm, directions of 2 attributes, statistics of the latents" in output
    assert f"Not included: priors flow: vae evaluate {run} --metrics samplers" in output
    before, after = load_run(run), load_run(tmp_path / "exported")
    for prior in ("gaussian", "gmm"):
        assert torch.equal(after.sample(2, seed=1, prior=prior), before.sample(2, seed=1, prior=prior))
    face = Image.new("RGB", (178, 218), "tan")
    assert torch.equal(after.edit(face, "Smiling"), before.edit(face, "Smiling"))
    assert after.directions().names == directions.names
    assert torch.equal(after.latent_statistics().std, statistics.std)
    assert prior_file(after.path).checkpoint_digest == digest_of(after.path) != digest_of(before.path)


def test_what_belongs_to_another_checkpoint_stays_behind(tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", seed=1)
    fit_everything(other)
    for file in other.glob("checkpoints/*.pt"):
        file.rename(run / "checkpoints" / file.name)
    exported = export_run(run, tmp_path / "exported")
    assert exported.carried.in_words() == "nothing"
    assert {"model.priors.pt", "model.directions.pt", "model.latents.pt"}.isdisjoint(exported.files)
    assert len(exported.carried.missing("RUN")) == 3


def test_nothing_tells_where_it_was_made(fitted: tuple[Path, Exported]) -> None:
    run, exported = fitted
    for name in exported.files:
        content = (exported.folder / name).read_bytes()
        assert PRIVATE.encode() not in content, name
        assert str(run.parent).encode() not in content, name
    config = json.loads((exported.folder / EXPORTED_CONFIG).read_text())
    assert config["record"]["config"]["data"]["root"] == "celeba"
    assert config["record"]["config"]["run_dir"] == "run"
    with safe_open(exported.folder / EXPORTED_WEIGHTS, "pt") as weights:
        assert weights.metadata() == {"format": "pt"}
    assert (
        len({(exported.folder / name).stat().st_mode for name in exported.files}) == 1
    )  # who may read one may read all


def test_only_paths_are_cut() -> None:
    plain = {
        "here": ["data", "val/loss", "outputs/2026", None, 0.5, True],
        "there": (
            "/mnt/disk/celeba",
            "~/celeba",
            "../shared/celeba",
            "C:\\Users\\me\\celeba",
            "\\\\server\\share\\celeba",
        ),
    }
    assert portable(plain) == {"here": plain["here"], "there": ["celeba"] * 5}


def test_an_export_can_be_exported(fitted: tuple[Path, Exported], tmp_path: Path) -> None:
    _, first = fitted
    second = export_run(first.folder, tmp_path / "second")
    assert second.files == first.files
    for name in (EXPORTED_WEIGHTS, EXPORTED_CONFIG):
        assert (second.folder / name).read_bytes() == (first.folder / name).read_bytes()


@pytest.mark.slow
def test_the_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    exported = export_run(run, tmp_path / "exported")
    (exported.folder / "note.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    monkeypatch.setattr(folder, "model_card", lambda *_: 1 / 0)  # the last thing that is written
    for place in ("exported", "another"):
        with pytest.raises(ZeroDivisionError):
            export_run(run, tmp_path / place, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "exported"}
    assert {path.name: path.read_bytes() for path in exported.folder.iterdir()} == before
    monkeypatch.undo()
    export_run(write_run(tmp_path / "later", seed=1), exported.folder, overwrite=True)
    assert not (exported.folder / "note.txt").exists()
    assert (exported.folder / EXPORTED_WEIGHTS).read_bytes() != before[EXPORTED_WEIGHTS]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["nothing moved", "the earlier one moved away", "both moved"])
def test_an_export_killed_at_any_moment_leaves_the_earlier_one_or_the_new_one(tmp_path: Path, moment: str) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "weights").write_text("earlier")
    count = ("nothing moved", "the earlier one moved away", "both moved").index(moment)
    killed = textwrap.dedent(f"""
        import os, signal, pathlib
        from vae_lightning.export.folder import replacing_folder
        move, moves = pathlib.Path.rename, []
        def rename(path, to):
            if len(moves) == {count}:
                os.kill(os.getpid(), signal.SIGKILL)
            moves.append(move(path, to))
        pathlib.Path.rename = rename
        with replacing_folder(pathlib.Path({str(exported)!r})) as unfinished:
            (unfinished / "weights").write_text("new")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    with pytest.raises(KeyboardInterrupt), replacing_folder(exported):
        raise KeyboardInterrupt
    assert (exported / "weights").read_text() == ("new" if moment == "both moved" else "earlier")
    assert list(tmp_path.iterdir()) == [exported]


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    exported = export_run(run, foreign).folder  # an empty one may be there
    assert "--overwrite" in vae("export", run, exported, code=2)
    assert "holds the model that is to be exported" in vae("export", exported, exported, "--overwrite", code=2)
    (exported / EXPORTED_CONFIG).write_text('{"model_type": "bert"}')
    assert "no earlier export" in vae("export", run, exported, "--overwrite", code=2)
    assert (exported / EXPORTED_WEIGHTS).is_file()
    assert "is a file" in vae("export", run, checkpoint(run), code=2)
    monkeypatch.chdir(tmp_path)
    assert "is your working folder" in vae("export", run, ".", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--public"], "--public goes with --push"),
        (["--browser-runtime", "."], "--browser-runtime goes with --demo"),
        (["--checkpoint", "last"], "no checkpoints/last.ckpt"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words(arguments: list[str], message: str, tmp_path: Path) -> None:
    output = vae("export", write_run(tmp_path / "run"), tmp_path / "exported", *arguments, code=2)
    assert message in output.replace("\n", " ")
    assert not (tmp_path / "exported").exists()


def test_the_record_is_that_of_the_checkpoint(fitted: tuple[Path, Exported]) -> None:
    """But for paths: what reads a run's settings finds them in its export too."""
    run, exported = fitted
    before = read_checkpoint(checkpoint(run))[RECORD_KEY]
    after = read_checkpoint(exported.folder / EXPORTED_WEIGHTS)[RECORD_KEY]
    assert after == portable(before)
    assert after["config"]["model"] == before["config"]["model"]


def test_a_pixel_term_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    content = read_checkpoint(checkpoint(run))
    content[RECORD_KEY]["config"]["reconstruction"] = {"_target_": "somebody.Loss"}
    torch.save(content, checkpoint(run))
    with pytest.raises(RunError, match=r"somebody\.Loss"):
        export_run(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_push_without_its_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    output = vae("export", tmp_path / "no run", tmp_path / "exported", "--push", "somebody/faces", code=2)
    assert "--push needs the extra `export` (missing: huggingface_hub)" in output.replace("\n", " ")
