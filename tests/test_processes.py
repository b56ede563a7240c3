"""Two processes that share each batch train the same model as one process that has it all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_LADDER, WHOLE_RUN, key_of, train_tiny
from hydra import compose, initialize_config_dir
from processes import train

from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.train import CONF_DIR, build
from vae_lightning.runs.metrics_csv import read_metrics

pytestmark = pytest.mark.process


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        ["reconstruction=gaussian_shared", "kl=free_bits", "+callbacks=[ema,evaluation]", "lr_schedule=decay"],
        [
            *(*TINY_LADDER, "kl.free_nats=[20,5]", "optimizer=adamax", "+callbacks=[ema,gradient_outliers,projector]"),
            *("callbacks.gradient_outliers.spreads=0.5", "callbacks.gradient_outliers.warmup_steps=2"),
            *("lr_schedule=decay", "+trainer.max_time=00:01:00:00", "trainer.gradient_clip_val=100"),
        ],
        pytest.param(
            ["beta_schedule=capacity", "beta_schedule.unit=step", "beta_schedule.duration=8", "model.norm=group"],
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["gaussian_shared, free_bits, ema, evaluation, decay", "ladder, outliers, max_time", "capacity"],
)
def test_two_processes_equal_one(objective: list[str], tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    root = tiny_celeba(90)
    objective = [*objective, "trainer.max_epochs=2", "data.eval_batch_size=4"]
    train_tiny(root, tmp_path / "data", tmp_path / "one", *objective, "data.batch_size=16", fixed=WHOLE_RUN)
    two = ["trainer=ddp", "trainer.devices=2", "data.residence=device", "hydra.run.dir=two", f"data.root='{root}'"]
    given = {key_of(override) for override in objective}
    common = [override for override in WHOLE_RUN if key_of(override) not in given]
    train(*common, *objective, *two, cwd=tmp_path)
    rows, others = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        row.pop("train/images_per_second", None)
        other.pop("train/images_per_second", None)
        assert other == pytest.approx(row, rel=2e-4, abs=1e-5)
    states = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("one", "two")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=2e-4, msg=name)


def test_batch_norm_over_cpu_processes_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WHOLE_RUN, "data=faces", "model.norm=batch", "trainer=ddp", "trainer.devices=2", "run_dir=run"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("config", words)
    with pytest.raises(ValueError, match="batch normalisation over 2 CPU processes"):
        build(config, to_plain(config))
    assert not (tmp_path / "data").exists()
