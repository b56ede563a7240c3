"""A run that searches its batch size, and goes on with what was found."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_LADDER

from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

Train = Callable[..., Path]
QUICK = ["callbacks=[checkpoint]", "logger=[csv]", "test=false", "lr_schedule=decay", "trainer.log_every_n_steps=1"]
SEARCH = ["callbacks=[checkpoint,batch_size_finder]", "callbacks.batch_size_finder.init_val=8", *QUICK[1:]]
FOUND = "Training with batches of 16, the largest that were tried and fit: data.batch_size=16"


@pytest.fixture(autouse=True)
def _small_device(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of 8, 16 and 32 images the last is too much."""
    step = VAEModule.training_step

    def training_step(self: VAEModule, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if len(batch["images"]) > 16:
            raise RuntimeError("CUDA out of memory.")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VAEModule, "training_step", training_step)
    caplog.set_level(logging.INFO, "vae_lightning")


def assert_alike(run_dir: Path, other: Path) -> None:
    """The same weights, moments of the optimizer, learning rate and logs."""
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (run_dir, other))
    assert one["global_step"] == two["global_step"]
    assert one["lr_schedulers"] == two["lr_schedulers"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, two["state_dict"][name]), name
    for state, expected in zip(*(each["optimizer_states"][0]["state"].values() for each in (one, two)), strict=True):
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert read_metrics(run_dir / "metrics.csv") == read_metrics(other / "metrics.csv")


@pytest.mark.slow
@pytest.mark.parametrize("model", [[], TINY_LADDER], ids=["conv", "ladder"])
def test_a_search_ends_in_the_run_with_the_size_that_it_found(
    model: list[str], run_training: Train, caplog: pytest.LogCaptureFixture
) -> None:
    searched = run_training("searched", *SEARCH, *model, "trainer.max_epochs=1")
    assert FOUND in caplog.text
    assert_alike(searched, run_training("given", *QUICK, *model, "data.batch_size=16", "trainer.max_epochs=1"))


@pytest.mark.slow
def test_a_run_goes_on_with_the_size_that_was_found_before(
    run_training: Train, caplog: pytest.LogCaptureFixture
) -> None:
    searched = run_training("searched", *SEARCH, "trainer.max_epochs=1")
    caplog.clear()
    (searched / ".scale_batch_size_1234.ckpt").touch()  # of a search that was killed
    run_training("searched", *SEARCH, "trainer.max_epochs=3", "ckpt_path=last")
    assert "resumes with batches of 16, the size that was found before" in caplog.text
    assert FOUND not in caplog.text
    assert not list(searched.glob(".scale_batch_size_*"))
    run_training("given", *QUICK, "data.batch_size=16", "trainer.max_epochs=1")
    given = run_training("given", *QUICK, "data.batch_size=16", "trainer.max_epochs=3", "ckpt_path=last")
    assert_alike(searched, given)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["last", "a file"])
def test_a_search_that_comes_later_loses_nothing(
    start: str, run_training: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither where the run goes on nor where a new one starts from its checkpoint."""
    before = run_training("searched", *QUICK, "data.batch_size=8", "trainer.max_epochs=1")
    shutil.copytree(before, before.with_name("given"))
    name, other, checkpoint = ("searched", "given", "last")
    if start == "a file":
        name, other, checkpoint = "searched anew", "given anew", f"'{before}/checkpoints/last.ckpt'"
    searched = run_training(name, *SEARCH, "trainer.max_epochs=2", f"ckpt_path={checkpoint}")
    assert FOUND in caplog.text
    given = run_training(other, *QUICK, "data.batch_size=16", "trainer.max_epochs=2", f"ckpt_path={checkpoint}")
    assert_alike(searched, given)
    assert torch.load(given / "checkpoints" / "last.ckpt")["global_step"] == 6 + 3
