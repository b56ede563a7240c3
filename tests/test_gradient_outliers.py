"""Steps whose gradient is far out are skipped, and nothing but the weights stands still."""

import copy
import logging
import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from callbacks import GradientOutliers, NonFiniteLossError
from vae_lightning.launch import train
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.losses import Objective, ObjectiveTerms
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.vae_module import VAEModule

OPTIMIZERS = sorted(path.stem for path in (train.CONF_DIR / "optimizer").glob("*.yaml"))


def usual_norms(count: int, seed: int = 0) -> list[float]:
    numbers = random.Random(seed)
    return [math.exp(numbers.gauss(3.0, 0.4)) for _ in range(count)]


def test_the_running_mean_and_spread_are_those_of_the_logarithms() -> None:
    callback, norms = GradientOutliers(), usual_norms(90)
    assert not any(map(callback.is_far_out, norms))
    logarithms = torch.tensor(norms, dtype=torch.float64).log()
    assert callback.mean == pytest.approx(logarithms.mean().item())
    assert callback.variance == pytest.approx(logarithms.var(correction=0).item())
    for norm in [math.e] * 1_000:
        callback.is_far_out(norm)
    assert (callback.mean, callback.variance) == pytest.approx((1.0, 0.0), abs=1e-3)


@pytest.mark.parametrize(("factor", "is_skipped"), [(100.0, True), (1.5, False), (1e-6, False), (math.inf, True)])
def test_only_much_larger_norms_are_far_out(factor: float, is_skipped: bool) -> None:
    callback = GradientOutliers()
    for norm in usual_norms(300):
        assert not callback.is_far_out(norm)
    assert callback.is_far_out(math.exp(3.0) * factor) == is_skipped
    assert not any(map(callback.is_far_out, usual_norms(100, seed=1)))


def test_no_finite_norm_is_far_out_before_there_are_others_to_compare_it_with() -> None:
    callback = GradientOutliers(warmup_steps=10)
    assert [callback.is_far_out(norm) for norm in (*[1.0] * 8, 1e6, 1.0, 1e30)] == [False] * 10 + [True]


def test_norms_that_hardly_differ_make_no_narrow_limit() -> None:
    callback = GradientOutliers(warmup_steps=10)
    for _ in range(50):
        callback.is_far_out(7.0)
    assert not callback.is_far_out(7.5)
    assert not callback.is_far_out(0.0)


def test_the_limit_follows_where_gradients_have_become_larger_for_good() -> None:
    callback = GradientOutliers()
    for norm in usual_norms(300):
        callback.is_far_out(norm)
    skipped = [callback.is_far_out(1_000 * norm) for norm in usual_norms(300, seed=1)]
    assert skipped[0]
    assert sum(skipped) < 40
    assert not any(skipped[50:])


def test_a_state_goes_on_where_it_was_saved() -> None:
    norms = [*usual_norms(150), 1e5, *usual_norms(30), math.nan, 1e4, *usual_norms(50)]
    whole, first, second = (GradientOutliers(spreads=1.5) for _ in range(3))
    expected = [whole.is_far_out(norm) for norm in norms]
    decisions = [first.is_far_out(norm) for norm in norms[:152]]
    second.load_state_dict(first.state_dict())
    assert decisions + [second.is_far_out(norm) for norm in norms[152:]] == expected
    assert second.state_dict() == whole.state_dict()


class Weights(L.LightningModule):
    """Of which one has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))


def step(optimizer: torch.optim.Optimizer, module: Weights, callback: GradientOutliers, size: float) -> None:
    """As Lightning does it: gradients, the callback, the optimizer."""
    optimizer.zero_grad()
    (module.weight.square().sum() * size).backward()
    callback.on_before_optimizer_step(Mock(spec=L.Trainer), module, optimizer)
    optimizer.step()


@pytest.mark.parametrize("name", [*OPTIMIZERS, "sgd with momentum"])
def test_a_skipped_step_moves_neither_weights_nor_moments(name: str) -> None:
    module = Weights()
    if name in OPTIMIZERS:
        with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
            optimizer = instantiate(compose("config", [f"optimizer={name}"]).optimizer)(module.parameters())
    else:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    callback = GradientOutliers(warmup_steps=2)
    for _ in range(4):
        step(optimizer, module, callback, 1.0)
    before = copy.deepcopy([module.state_dict(), optimizer.state_dict()["state"]])
    step(optimizer, module, callback, 1e4)
    assert callback.num_skipped == 1
    after = [module.state_dict(), optimizer.state_dict()["state"]]
    assert torch.equal(before[0]["weight"], after[0]["weight"])
    assert before[1]
    for index, moments in before[1].items():
        assert all(torch.equal(value, after[1][index][moment]) for moment, value in moments.items())
    step(optimizer, module, callback, 1.0)
    assert not torch.equal(before[0]["weight"], module.weight)


def enlarge_the_loss(monkeypatch: pytest.MonkeyPatch, at_call: int) -> None:
    original, calls = Objective.forward, [0]

    def enlarged(self: Objective, *arguments: Any) -> ObjectiveTerms:
        terms = original(self, *arguments)
        calls[0] += self.training
        factor = 1e6 if self.training and calls[0] == at_call else 1.0
        return ObjectiveTerms(terms.loss * factor, terms.reconstruction_nats)

    monkeypatch.setattr(Objective, "forward", enlarged)


@pytest.mark.parametrize(
    ("per_step", "logged"), [(1, [0, 1, 1]), pytest.param(2, [0, 0, 1, 1], marks=pytest.mark.slow)]
)
def test_a_training_goes_on_after_a_skipped_step(
    per_step: int,
    logged: list[int],
    run_training: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The fourth step is skipped: step count, schedule and mean of the weights go on, and the log says so."""
    enlarge_the_loss(monkeypatch, at_call=4 * per_step)
    seen: list[tuple[int, float, torch.Tensor]] = []
    original = VAEModule.on_train_batch_end

    def spy(self: VAEModule, *arguments: Any) -> None:
        original(self, *arguments)
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        seen.append((self.global_step, rate, next(self.model.parameters()).detach().clone()))

    monkeypatch.setattr(VAEModule, "on_train_batch_end", spy)
    algorithm = {1: "norm", 2: "value"}[per_step]
    settings = [
        *("lr_schedule=decay", f"trainer.accumulate_grad_batches={per_step}"),
        *("trainer.gradient_clip_val=10", f"+trainer.gradient_clip_algorithm={algorithm}"),
    ]
    callback = ["+callbacks=[ema,gradient_outliers]", "callbacks.gradient_outliers.warmup_steps=2"]
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run = run_training(
            "run",
            *settings,
            *callback,
            f"trainer.max_epochs={per_step}",
            "optimizer=adamax",
            "trainer.precision=bf16-mixed",
        )
    steps = seen[per_step - 1 :: per_step]
    assert [number for number, *_ in steps] == [1, 2, 3, 4, 5, 6]
    moved = [not torch.equal(one[2], other[2]) for one, other in pairwise(steps)]
    assert moved == [True, True, False, True, True]
    assert len({rate for _, rate, _ in steps}) == 6
    skipped = [row["train/skipped_steps"] for row in read_metrics(run / "metrics.csv") if "train/skipped_steps" in row]
    assert skipped == logged
    assert "1 of 6 steps were skipped" in caplog.text
    content = torch.load(run / "checkpoints" / "last.ckpt")
    assert content["callbacks"]["GradientOutliers"]["num_skipped"] == 1
    assert content["averaging_state"]["n_averaged"] == 6
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())


def test_norms_that_are_no_numbers_are_not_skipped_for_ever(
    run_training: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loss is finite and its gradient is not, in the first step and from the fourth on."""

    def overflow(self: VAEModule) -> None:
        if self.global_step == 0 or self.global_step >= 3:
            next(self.model.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]

    monkeypatch.setattr(VAEModule, "on_after_backward", overflow)
    settings = ["callbacks=[checkpoint,non_finite_loss,gradient_outliers]", "trainer.max_epochs=2"]
    with pytest.raises(NonFiniteLossError, match=r"gradient is inf in epoch 1, at step 5, .* 2 steps before it"):
        run_training("run", *settings, "callbacks.gradient_outliers.most_non_finite=2")
    kept = torch.load(tmp_path / "run" / "checkpoints" / "before_non_finite_loss.ckpt")
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())


@pytest.mark.parametrize("precision", ["16-mixed", "16"])
def test_scaled_gradients_are_refused_at_the_start(precision: str, tmp_path: Path) -> None:
    """Also where a sweep is planned whose jobs run elsewhere."""
    words = ["+callbacks=gradient_outliers", f"trainer.precision={precision}", f"run_dir='{tmp_path}'"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", words)
    with pytest.raises(ConfigError, match=r"gradient_outliers.*the scaler skips steps itself; take bf16-mixed"):
        train.check(config, runs_here=False)


@pytest.mark.parametrize(
    "setting", [{"spreads": 0.0}, {"spreads": math.inf}, {"warmup_steps": 1}, {"most_non_finite": -1}]
)
def test_bad_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"gradient_outliers.{next(iter(setting))}="):
        GradientOutliers(**setting)
