"""A ladder is trained like any other model: precision, layout, pictures, guards, and what a run leaves behind."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_LADDER, WHOLE_RUN
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from callbacks.kl_per_latent import curves_of
from callbacks.posterior_collapse import _what_to_try
from vae_lightning import load_run
from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.losses import KLWeight
from vae_lightning.models.pixels import to_uint8
from vae_lightning.pictures.charts import draw_kl_per_level
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

FULL_WEIGHT = KLWeight(torch.tensor(1.0), torch.tensor(0.0))
LIKELIHOODS = {
    "logistic": [],
    "logistic_mixture": ["reconstruction=logistic_mixture"],
    "gaussian_discretised": ["reconstruction=gaussian_discretised"],
}


def ladder_module(*overrides: str) -> VAEModule:
    words = [*TINY_LADDER, "data.image_size=16", "trainer=cpu", "logger=[]", "callbacks=[]", "run_dir=unused"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        module = train.build_module(to_plain(compose("config", [*words, *overrides])))
    assert isinstance(module, VAEModule)
    return module


def some_images(count: int = 8) -> Tensor:
    """Gradients of colour, as uint8 NCHW."""
    corners = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(corners, (16, 16), mode="bilinear").to(torch.uint8)


def losses(module: VAEModule, num_steps: int, dtype: torch.dtype | None = None) -> list[float]:
    """Of steps on one batch, each with noise of its own."""
    optimizer, images = module.make_optimizer(module.parameters()), some_images()
    generator, seen = torch.Generator().manual_seed(1), []
    for _ in range(num_steps):
        noise = torch.randn(len(images), module.model.latent_dim, generator=generator)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = module.evaluate(images, noise, FULL_WEIGHT).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_one_batch_can_be_learnt_by_heart(likelihood: list[str]) -> None:
    seen = losses(ladder_module(*likelihood, "optimizer=adamax", "optimizer.lr=0.02"), 100)
    assert max(seen[-5:]) < 0.8 * seen[0]


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_bfloat16_gives_nearly_the_same_losses(likelihood: list[str]) -> None:
    """Correctness alone: this says nothing about speed."""
    exact, rounded = (losses(ladder_module(*likelihood), 10, dtype) for dtype in (None, torch.bfloat16))
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


def test_the_memory_layout_does_not_change_the_loss() -> None:
    one = ladder_module()
    other = VAEModule(one.model, one.objective, one.make_optimizer, channels_last=False)
    loss = losses(one, 1)
    assert one.model.stem.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]
    other.model.to(memory_format=torch.contiguous_format)
    other.load_state_dict(ladder_module().state_dict())
    assert losses(other, 1) == pytest.approx(loss, rel=1e-5)


def test_the_remedies_of_a_collapse_are_those_of_a_ladder() -> None:
    advice = _what_to_try(ladder_module())
    assert "kl=per_level with kl.free_nats=[…], a number for each level, or beta_schedule=capacity" in advice
    assert "gaussian_shared" not in advice  # a logistic weighs the pixels already
    assert "kl.free_nats" not in _what_to_try(ladder_module("kl.free_nats=[3,0]"))


# ---- the KL by level


def test_levels_are_drawn_over_the_training() -> None:
    """A level without KL lies at the lower edge, and an epoch that is not validated yet has no dots."""
    rows = [{"epoch": 1.0, "step": float(step), "train/kl_nats_2x2": 0.0, "train/kl_nats_4x4": 5.0} for step in (1, 2)]
    rows.append({"epoch": 1.0, "step": 3.0, "val/kl_nats_2x2": 0.1, "val/kl_nats_4x4": 700.0, "val/kl_nats": 700.1})
    curves = curves_of(["2x2", "4x4"], rows)
    assert curves["4x4"]["train"].tolist() == [[1, 5], [2, 5]]
    assert curves["2x2"]["val"].tolist() == [[3, 0.1]]
    pictures = [draw_kl_per_level(curves_of(["2x2", "4x4"], part), "epoch 1") for part in (rows, rows[:2], [])]
    assert all(picture.shape == (450, 900, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def custom_scalars(run: Path) -> str:
    events = EventAccumulator(str(run)).Reload()
    return str(events.SummaryMetadata("custom_scalars__config__")) + str(events.Tensors("custom_scalars__config__"))


def test_a_run_shows_its_levels_and_gives_the_same_images_when_it_is_loaded(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, decoded = torch.randn(2, 24, generator=torch.Generator().manual_seed(0)), []
    original = VAEModule.on_fit_end

    def spy(self: VAEModule) -> None:
        original(self)
        with torch.no_grad():
            decoded.append(self.model.eval().decode(latents))

    monkeypatch.setattr(VAEModule, "on_fit_end", spy)
    settings = ["callbacks=[checkpoint,kl_per_latent,loss_curves,posterior_collapse]", "logger=[csv,tensorboard]"]
    run = run_training("run", *TINY_LADDER, "trainer.max_epochs=1", "trainer.precision=bf16-mixed", *settings)
    assert [path.name for path in (run / "images" / "kl_per_level").iterdir()] == ["epoch=0001.png"]
    assert not (run / "images" / "kl_per_latent").exists()
    (row,) = (row for row in read_metrics(run / "metrics.csv") if "val/loss" in row)
    assert row["val/kl_nats_2x2"] + row["val/kl_nats_4x4"] == pytest.approx(row["val/kl_nats"], rel=1e-4)
    model = load_run(run, "last").model
    with torch.no_grad():
        torch.testing.assert_close(model.decode(latents), decoded[0], rtol=0, atol=1e-5)  # in another memory layout
    shown = custom_scalars(run)
    for split in ("train", "val"):
        assert all(f"{split}/kl_nats_{level}$" in shown for level in ("2x2", "4x4"))


def test_levels_need_the_metrics_as_a_file(run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vae_lightning"):
        run_training("run", *TINY_LADDER, "trainer.max_epochs=1", "callbacks=[kl_per_latent]", "logger=[]")
    assert "draws levels from metrics.csv, and logger=[…] has no csv" in caplog.text


@pytest.mark.slow
def test_every_callback_works_on_a_ladder(run_training: Callable[..., Path]) -> None:
    """The default ones, and those that are added."""
    added = "+callbacks=[ema,projector,gradient_outliers,evaluation]"
    settings = ["kl.free_nats=[3,0]", "optimizer=adamax", "lr_schedule=decay", "beta_schedule=warmup"]
    run = run_training("run", *TINY_LADDER, *settings, added, "trainer.max_epochs=2", fixed=WHOLE_RUN)
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    assert metrics["train/images_per_second"] > 0
    assert metrics["test/kl_nats"] == pytest.approx(metrics["test/kl_nats_2x2"] + metrics["test/kl_nats_4x4"])
    rows = read_metrics(run / "metrics.csv")
    assert any("evaluation/active_units" in row for row in rows)
    assert rows[-1]["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert np.loadtxt(run / "projector" / "step=000012.tsv").shape == (6, 24)
    for kind in ("reconstruction", "interpolation", "temperature", "kl_per_level"):
        assert (run / "images" / kind / "epoch=0002.png").is_file(), kind
    faces = load_run(run).sample(2, seed=0)
    assert to_uint8(faces, (0.0, 1.0)).float().std() > 0
