"""Two processes that share each batch train the same model as one process that has it all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import SMALL, train

from vae_lightning.metrics_csv import read_metrics

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    "objective",
    [
        ["reconstruction=gaussian_shared", "kl=free_bits", "+callbacks=[ema,evaluation]", "lr_schedule=decay"],
        ["beta_schedule=capacity", "beta_schedule.unit=step", "beta_schedule.duration=8", "model.norm=group"],
    ],
    ids=["gaussian_shared, free_bits, ema, evaluation, decay", "capacity"],
)
def test_two_processes_equal_one(objective: list[str], tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    small = [word for word in SMALL if not word.startswith("data.batch_size")]
    shared = [*small, *objective, f"data.root='{tiny_celeba(90)}'", "trainer.precision=32-true"]
    shared += ["trainer.max_epochs=2", "trainer.log_every_n_steps=2", "data.eval_batch_size=4", "trainer=ddp"]
    train(*shared, "trainer.devices=1", "data.batch_size=16", "hydra.run.dir=one", cwd=tmp_path)
    other_way = ["trainer.devices=2", "data.batch_size=8", "data.residence=device"]
    train(*shared, *other_way, "hydra.run.dir=two", cwd=tmp_path)
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert len(one) == len(two)
    for row, other in zip(one, two, strict=True):
        row.pop("train/images_per_second", None)
        other.pop("train/images_per_second", None)
        assert other == pytest.approx(row, rel=2e-4, abs=1e-5)
    states = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("one", "two")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=2e-4, msg=name)


def test_batch_norm_over_cpu_processes_is_refused_at_the_start(tmp_path: Path) -> None:
    command = [*SMALL, "data=faces", "model.norm=batch", "trainer=ddp", "trainer.devices=2"]
    refused = train(*command, cwd=tmp_path, expect=1)
    assert "batch normalisation over 2 CPU processes" in refused.stderr
    assert not (tmp_path / "data").exists()
