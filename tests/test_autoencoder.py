"""posterior=deterministic: the same models, callbacks and commands, without what needs a prior."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import WHOLE_RUN

from callbacks import TraversalGrid
from vae_lightning import load_run
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.models import ConvVAE
from vae_lightning.models.pixels import to_pixel_range
from vae_lightning.runs.layout import RunError
from vae_lightning.runs.metrics_csv import read_metrics

AUTOENCODER = ["posterior=deterministic", "trainer.max_epochs=2"]


def test_an_autoencoders_run_has_and_does_all_but_what_needs_a_prior(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_dir = run_training("run", *AUTOENCODER, fixed=WHOLE_RUN)
    kinds = sorted(path.name for path in (run_dir / "images").iterdir())
    assert kinds == ["interpolation", "reconstruction", "traversal"]
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "left out posterior_collapse, temperature, kl_per_latent" in said
    assert "has no effect" not in said
    assert f"vae reconstruct {run_dir}" in said
    metrics = json.loads((run_dir / "metrics.json").read_text())
    measured = {name for name in metrics if name.startswith("val/")} - {"val/best_epoch"}
    assert measured == {f"val/{name}" for name in ("loss", "reconstruction_nats", "mse", "active_units")}
    assert metrics["val/loss"] == pytest.approx(metrics["val/reconstruction_nats"])
    assert metrics["val/loss"] == pytest.approx(metrics["val/mse"] * 3 * 32 * 32, rel=1e-4)
    assert (run_dir / "loss_curves.png").is_file()
    run = load_run(run_dir)
    faces = run.held_out_faces("test", 3)
    assert run.reconstruct(faces).shape == faces.shape
    assert run.interpolate(faces[:1], faces[1:2]).shape == (1, 9, 3, 32, 32)
    with pytest.raises(RunError, match="plain autoencoder, which has no prior"):
        run.sample(2)


def test_beta_changes_nothing_and_says_so(run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    one = run_training("one", *AUTOENCODER)
    with caplog.at_level(logging.WARNING, "vae_lightning"):
        other = run_training("other", *AUTOENCODER, "beta=10", "kl=free_bits", "beta_schedule=warmup")
    assert "has no KL, so this has no effect: beta=10, kl (FreeBits), beta_schedule (LinearWarmup)" in caplog.text
    for row, other_row in zip(*(read_metrics(run / "metrics.csv") for run in (one, other)), strict=True):
        assert row["train/loss"] == other_row["train/loss"]


def test_what_it_does_not_measure_cannot_be_searched_by(run_training: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="allowed are val/loss, val/reconstruction_nats"):
        run_training("run", *AUTOENCODER, "optimized_metric=val/elbo_nats")


def test_traversal_goes_by_the_spread_of_the_codes() -> None:
    torch.manual_seed(0)
    model = ConvVAE(image_size=32, latent_dim=6, posterior="deterministic").eval().requires_grad_(False)
    faces = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    codes = model.encode(to_pixel_range(faces, model.pixel_range)).mean
    grid = TraversalGrid("run", num_dimensions=1, num_steps=3, limit=2).draw(model, faces)
    spread = codes.std(0, correction=0)
    widest = int(spread.argmax())
    assert grid.row_labels == [f"z[{widest}]\n{spread[widest]:.2f} std"]
    by_hand = codes[0].clone()
    by_hand[widest] = codes[:, widest].mean() + 2 * spread[widest]
    expected = model.decode(by_hand[None])[0].mul(255).round()
    assert (grid.images[0, -1] - expected).abs().max() <= 1
