"""Metrics of `vae evaluate` while training goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from stand_ins import noise_images, subject_of, tiny_ladder

from callbacks import Evaluation
from vae_lightning.evaluation.evaluate import measure
from vae_lightning.evaluation.metrics.samplers import Samplers
from vae_lightning.losses import Logistic, Objective
from vae_lightning.models import LinearVAE
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule


@pytest.mark.slow
def test_the_callback_logs_numbers_and_draws(run_training: Callable[..., Path]) -> None:
    overrides = ["callbacks=[checkpoint,ema,evaluation]", "callbacks.evaluation.metrics=[likelihood,latents]"]
    run_dir = run_training(
        "run", "trainer.max_epochs=3", "callbacks.evaluation.every_n_epochs=2", "test=false", *overrides
    )
    rows = [row for row in read_metrics(run_dir / "metrics.csv") if "evaluation/active_units" in row]
    assert [row["epoch"] for row in rows] == [2.0, 3.0]  # the second and the last
    logged = next(
        row for row in read_metrics(run_dir / "metrics.csv") if row["step"] == rows[-1]["step"] and "val/kl_nats" in row
    )
    assert rows[-1]["evaluation/kl_nats"] == pytest.approx(logged["val/kl_nats"], rel=1e-4)  # the averaged weights, too
    assert (run_dir / "images" / "evaluation" / "kl_per_latent" / "epoch=0003.png").is_file()


def test_a_flow_can_be_fitted_within_a_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.latents.priors.flow.MOST_STEPS", 30)
    subject = subject_of(LinearVAE(image_size=8, color="gray", latent_dim=2, hidden_dim=4), noise_images(60))
    with torch.inference_mode():  # as in Lightning's validation
        found = measure(Samplers(("flow",)), subject)
    assert {value.name for value in found.values if value.value is not None} == {
        "flow_rate_nats",
        "flow_elbo_gain_nats",
    }


def test_levels_that_the_model_does_not_have_are_refused_before_training() -> None:
    module = VAEModule(tiny_ladder(), Objective(Logistic()), torch.optim.Adam)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    Evaluation("run", levels=["2x2"]).setup(trainer, module, "fit")
    with pytest.raises(ValueError, match=r"callbacks\.evaluation\.levels=4x4: allowed are .*2x2 or 2x2,4x4"):
        Evaluation("run", levels=["4x4"]).setup(trainer, module, "fit")


@pytest.mark.parametrize("setting", [{"metrics": ["likelyhood"]}, {"metrics": []}, {"every_n_epochs": 0}])
def test_the_callback_refuses_what_it_cannot_do(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.evaluation"):
        Evaluation("run", **setting)
