"""Whole runs in this process on a tiny data set: what a run folder holds, and what a loaded run does."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from conftest import WHOLE_RUN
from PIL import Image

from callbacks import ProgressBar
from vae_lightning import load_run
from vae_lightning.models.pixels import to_pil
from vae_lightning.runs.checkpoints import FORMAT
from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.run import Run


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def test_a_run_folder_holds_everything(run_training: Callable[..., Path]) -> None:
    run_dir = run_training("run", "trainer.max_epochs=2", fixed=WHOLE_RUN)
    assert [path.name for path in (run_dir / "images" / "kl_per_latent").iterdir()] == ["epoch=0002.png"]
    for kind in ("reconstruction", "interpolation", "traversal", "temperature"):
        pictures = sorted(path.name for path in (run_dir / "images" / kind).iterdir())
        assert pictures == ["epoch=0001.png", "epoch=0002.png", "test.png"]
        assert read_picture(run_dir / "images" / kind / "test.png").std() > 10
    assert read_picture(run_dir / "loss_curves.png").shape == (400, 1300, 3)
    assert list(run_dir.glob("events.out.tfevents.*"))
    metrics = json.loads((run_dir / "metrics.json").read_text())
    names = ("loss", "reconstruction_nats", "kl_nats", "beta", "elbo_nats", "bits_per_dim", "active_units", "mse")
    assert {f"{split}/{name}" for split in ("val", "test") for name in names} <= set(metrics)
    assert metrics["train/images_per_second"] > 0
    assert metrics["val/elbo_nats"] == pytest.approx(-metrics["val/reconstruction_nats"] - metrics["val/kl_nats"])
    assert json.loads((run_dir / "data.json").read_text())["train_count"] == 48
    rows = read_metrics(run_dir / "metrics.csv")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert [row["epoch"] for row in rows] == [1, 1, 1, 2, 2, 2]  # as the pictures count, and the console
    assert {f"train/{name}" for name in names} <= set(rows[0])
    assert min(row["val/loss"] for row in rows if "val/loss" in row) == pytest.approx(metrics["val/loss"], rel=1e-4)


def test_checkpoints_hold_plain_data_and_describe_themselves(run_training: Callable[..., Path]) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1", "beta=4")
    record = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)[RECORD_KEY]
    assert record["format"] == FORMAT
    assert record["config"]["beta"] == 4.0
    assert record["data"]["source"] == "celeba"


def test_without_a_terminal_each_epoch_is_one_line(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_training("run", "trainer.max_epochs=2", "trainer.enable_progress_bar=true")
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    expected = r"epoch {}/2: train/loss [\d.]+, val/loss [\d.]+, val/kl_nats [\d.e-]+ · [\d.e-]+ s"
    assert len(lines) == 2
    assert all(re.fullmatch(expected.format(epoch), line) for epoch, line in enumerate(lines, start=1))


@pytest.mark.parametrize(("max_epochs", "words"), [(3, "Epoch 3/3"), (-1, "Epoch 3"), (None, "Epoch 3")])
def test_the_progress_bar_counts_epochs_from_1(max_epochs: int | None, words: str) -> None:
    bar = ProgressBar()
    bar._trainer = Mock(spec=L.Trainer, max_epochs=max_epochs)
    assert bar._get_train_description(2).strip() == words


@pytest.mark.slow
def test_pictures_do_not_disturb_training(run_training: Callable[..., Path]) -> None:
    with_pictures = run_training("with", "trainer.max_epochs=2", fixed=WHOLE_RUN)
    without = run_training("without", "trainer.max_epochs=2")
    for name, tensor in weights(with_pictures).items():
        assert torch.equal(tensor, weights(without)[name]), name


def test_validation_uses_the_final_beta_from_the_first_epoch_on(run_training: Callable[..., Path]) -> None:
    run_dir = run_training("run", "trainer.max_epochs=2", "beta=8", "beta_schedule=warmup")
    rows = read_metrics(run_dir / "metrics.csv")
    assert [row["val/beta"] for row in rows if "val/beta" in row] == [8.0, 8.0]
    assert [row["train/beta"] for row in rows if "val/beta" in row] == pytest.approx([0.0, 0.8])
    for row in rows:
        if "val/loss" in row:
            assert row["val/loss"] == pytest.approx(row["val/reconstruction_nats"] + 8 * row["val/kl_nats"], rel=1e-5)


def test_one_batch_is_learned_by_heart(run_training: Callable[..., Path]) -> None:
    run_dir = run_training(
        "run", "data.train_size=8", "beta=0.001", "trainer.max_epochs=100", "trainer.check_val_every_n_epoch=100",
        "optimizer.lr=1e-2", "model.norm=batch", "model.widths=[16,32]", "callbacks=[]",
    )  # fmt: skip
    rows = [row for row in read_metrics(run_dir / "metrics.csv") if "train/mse" in row]
    assert rows[-1]["train/mse"] < 0.002 < 0.02 < rows[0]["train/mse"]


@pytest.mark.parametrize(
    "extra",
    [
        ["reconstruction=bce"],
        ["model.output_activation=tanh"],
        ["data.color=gray", "model=linear"],
        ["model=residual", "model.widths=[8,16]", "reconstruction=gaussian_per_pixel", "perceptual=vgg16"],
    ],
)
def test_saved_and_loaded_model_draws_the_same_picture(extra: list[str], run_training: Callable[..., Path]) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1", "data.train_size=8", *extra)
    run = load_run(run_dir)
    faces = run.held_out_faces("test", 4)
    reconstruction = run.reconstruct(faces)
    assert reconstruction.shape == faces.shape
    assert reconstruction.min() >= 0
    assert reconstruction.max() <= 1
    again = load_run(run_dir / "checkpoints" / "best.ckpt").reconstruct(faces)
    assert torch.equal(reconstruction, again)
    with_unit_floats = run.reconstruct(faces.float() / 255)
    torch.testing.assert_close(with_unit_floats, reconstruction, atol=1e-5, rtol=1e-4)


def test_loaded_run_does_what_the_readme_says(run_training: Callable[..., Path]) -> None:
    run = load_run(run_training("run", "trainer.max_epochs=1"))
    assert run.sample(5, seed=1).equal(run.sample(5, seed=1))
    assert not run.sample(5, seed=1).equal(run.sample(5, seed=2))
    assert not run.sample(2).equal(run.sample(2))
    assert run.sample(3, temperature=0.0).unique(dim=0).shape[0] == 1
    photograph = Image.fromarray(np.full((218, 178, 3), 90, np.uint8))
    assert run.encode([photograph, photograph.convert("L")]).mean.shape == (2, 6)
    between = run.interpolate(run.held_out_faces("val", 2), run.held_out_faces("test", 2), num_steps=5)
    assert between.shape == (2, 5, 3, 32, 32)
    torch.testing.assert_close(between[:, 0], run.reconstruct(run.held_out_faces("val", 2)), atol=1e-5, rtol=1e-4)
    assert not run.model.training
    assert to_pil(run.sample(1))[0].size == (32, 32)


def test_wrong_images_and_temperatures_are_refused(run_training: Callable[..., Path]) -> None:
    run: Run = load_run(run_training("run", "trainer.max_epochs=1"))
    with pytest.raises(ValueError, match="with 1 or 3 channels"):
        run.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        run.encode(torch.full((1, 3, 32, 32), -1.0))
    with pytest.raises(ValueError, match="temperature=-1"):
        run.sample(1, temperature=-1.0)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file or folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no checkpoints in it"):
        load_run(tmp_path)
    junk = tmp_path / "junk.ckpt"
    for content in (b"not a checkpoint", b"rubbish", b""):
        junk.write_bytes(content)
        with pytest.raises(RunError, match=r"junk\.ckpt"):
            load_run(junk)
    torch.save({"state_dict": {}}, junk)
    with pytest.raises(RunError, match="not a checkpoint of this framework"):
        load_run(junk)
    torch.save({RECORD_KEY: {"format": FORMAT + 1}}, junk)
    with pytest.raises(RunError, match="update vae-lightning"):
        load_run(junk)
    config = {"model": {"_target_": "os.system", "command": "true"}}
    torch.save({RECORD_KEY: {"format": FORMAT, "config": config}, "state_dict": {}}, junk)
    with pytest.raises(RunError, match=r"os\.system"):
        load_run(junk)
