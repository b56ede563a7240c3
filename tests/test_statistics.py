import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from callbacks import TrainingMetric
from vae_lightning.losses import ObjectiveTerms
from vae_lightning.models.distributions import DiagonalGaussian
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.statistics import BatchSums, ObjectiveStatistics, batch_sums
from vae_lightning.training.vae_module import Evaluated


def batch_of(rows: slice) -> tuple[ObjectiveTerms, DiagonalGaussian, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, nats, mse = (torch.randn(size, generator=generator) for size in ((100, 6), (100,), (100,)))
    mean[:, 3:] *= 0.01  # three latents whose mean hardly moves
    posterior = DiagonalGaussian(mean[rows], torch.zeros_like(mean[rows]))
    nats = nats[rows].abs() * 100
    terms = ObjectiveTerms((nats + 2 * posterior.kl_per_latent().sum(1)).mean(), nats)
    return terms, posterior, mse[rows].abs()


def sums_of(rows: slice) -> BatchSums:
    terms, posterior, mse = batch_of(rows)
    return batch_sums(terms, posterior.kl_per_latent(), posterior.mean, mse)


@pytest.mark.parametrize("batch_size", [7, 33, 100])
def test_means_do_not_depend_on_how_images_are_batched(batch_size: int) -> None:
    statistics = ObjectiveStatistics(latent_dim=6, num_pixels=10)
    for start in range(0, 100, batch_size):
        statistics.update(sums_of(slice(start, start + batch_size)))
        statistics.update_likelihood(torch.tensor(1.0), torch.tensor(1.0))
    values = statistics.compute()
    terms, posterior, mse = batch_of(slice(0, 100))
    kl_nats = posterior.kl_per_latent().sum(1).mean()
    torch.testing.assert_close(values["loss"], terms.loss)
    torch.testing.assert_close(values["reconstruction_nats"], terms.reconstruction_nats.mean())
    torch.testing.assert_close(values["kl_nats"], kl_nats)
    torch.testing.assert_close(values["elbo_nats"], -terms.reconstruction_nats.mean() - kl_nats)
    torch.testing.assert_close(values["mse"], mse.mean())
    torch.testing.assert_close(values["kl_nats_per_latent"], posterior.kl_per_latent().mean(0))


def test_active_units_counts_latents_that_say_something() -> None:
    statistics = ObjectiveStatistics(latent_dim=6, num_pixels=10)
    statistics.update(sums_of(slice(0, 100)))
    statistics.update_likelihood(torch.tensor(1.0), torch.tensor(1.0))
    assert statistics.compute()["active_units"] == 3


def test_bits_per_dim_adds_the_kl() -> None:
    statistics = ObjectiveStatistics(latent_dim=2, num_pixels=10)
    posterior = DiagonalGaussian(torch.ones(4, 2), torch.zeros(4, 2))
    terms = ObjectiveTerms(torch.tensor(1.0), torch.ones(4))
    statistics.update(batch_sums(terms, posterior.kl_per_latent(), posterior.mean, torch.ones(4)))
    statistics.update_likelihood(torch.tensor(4.0), torch.tensor(20.0))
    assert statistics.compute()["bits_per_dim"].item() == pytest.approx((5.0 + 1.0) / (10 * 0.693147), rel=1e-5)


class ErrorAgain(TrainingMetric):
    """`mse` by another way."""

    name = "error_again"

    def measure(self, evaluated: Evaluated) -> Float[Tensor, " batch"]:
        return (evaluated.prediction.mean - evaluated.pixels).square().mean(dim=(1, 2, 3))


def test_a_training_metric_is_logged_beside_the_loss(run_training: Callable[..., Path]) -> None:
    """Also where a run resumes within a logging window."""
    settings = ["+callbacks.again._target_=test_statistics.ErrorAgain", "trainer.log_every_n_steps=4"]
    run_training("run", *settings, "trainer.max_steps=2")
    run_dir = run_training("run", *settings, "trainer.max_epochs=2", "ckpt_path=last", "test=true")
    rows = read_metrics(run_dir / "metrics.csv")
    logged = [(split, row) for row in rows for split in ("train", "val", "test") if f"{split}/mse" in row]
    assert {split for split, _ in logged} == {"train", "val", "test"}
    for split, row in logged:
        assert row[f"{split}/error_again"] == pytest.approx(row[f"{split}/mse"], rel=1e-5)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for split in ("val", "test"):
        assert metrics[f"{split}/error_again"] == pytest.approx(metrics[f"{split}/mse"], rel=1e-5)
