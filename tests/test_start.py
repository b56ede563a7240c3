"""What a training may resume from: refused in one line before data are read, and said where it begins."""

import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from test_sweep import composed

from vae_lightning.launch.building import build_module
from vae_lightning.launch.configuration import to_plain
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.runs.layout import RunError
from vae_lightning.training.resuming import Position, Start, check_architecture, check_start

SMALL = [
    "model.widths=[4,4]",
    *("data.image_size=16", "model.latent_dim=4", "trainer=cpu", "trainer.precision=32-true", "run_dir=anywhere"),
]
SETTINGS: dict[str, Any] = {
    "trainer": {"max_epochs": 10, "max_steps": -1},
    "data": {"seed": 0, "batch_size": 8, "train_size": 100, "subset_seed": 0, "source": "faces", "faces_count": 200},
}


def start_of(settings: dict[str, Any], weights: dict[str, torch.Tensor] | None = None, **others: Any) -> Start:
    position = others.pop("position", Position(3, None))
    return Start(Path("run/last.ckpt"), position, others.pop("step", 36), settings, {}, 1, weights or {})


@pytest.mark.parametrize(
    "other",
    [
        *("model.latent_dim=5", "data.image_size=32", "data.color=gray", "model.norm=batch", "model.activation=elu"),
        *("posterior=deterministic", "reconstruction=gaussian_per_pixel", "reconstruction=gaussian_shared"),
        *("model.widths=[8,8]", "model.output_activation=tanh", "model=linear"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(other: str) -> None:
    then, weights = first_run()
    check_architecture(start_of(then, weights), then, weights)
    own = SMALL[1:] if other == "model=linear" else SMALL  # which has no widths
    now = to_plain(without_hydra(*own, other))
    key = {"model=linear": "model._target_", "data.image_size=32": "model.image_size"}.get(other)
    key = key or {"data.color=gray": "model.color", "posterior=deterministic": "model.posterior"}.get(other)
    key = key or other.split("=")[0]
    with pytest.raises(RunError, match=rf"last\.ckpt: .*{re.escape(key)}\S* is .* in the checkpoint and .* asked for"):
        check_architecture(start_of(then, weights), now, build_module(now).state_dict())


@cache
def first_run() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    settings = to_plain(without_hydra(*SMALL))
    return settings, build_module(settings).state_dict()


def without_hydra(*overrides: str) -> Any:
    config = composed(*overrides)
    return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])


def test_what_has_no_weights_may_change() -> None:
    start = start_of(*first_run())
    for other in ("reconstruction=bce", "beta=4", "optimizer=adamw", "perceptual=vgg16", "model.logvar_clamp=[-4,4]"):
        now = to_plain(without_hydra(*SMALL, other))
        check_architecture(start, now, build_module(now).state_dict())


@pytest.mark.parametrize(
    ("name", "now"),
    [
        *(("seed", 1), ("batch_size", 16), ("train_size", None), ("subset_seed", 3), ("source", "celeba")),
        ("faces_count", 300),
    ],
)
def test_the_rest_of_an_epoch_is_drawn_as_its_beginning_was(name: str, now: Any) -> None:
    changed = {**SETTINGS, "data": {**SETTINGS["data"], name: now}}
    was = SETTINGS["data"][name]
    place = "after 5 batches of 8 images in epoch 4"
    message = rf"data\.{name}={now}: .*{place}, drawn with data\.{name}={was}.*max_epochs=4\)"
    for is_own in (True, False):
        with pytest.raises(RunError, match=message):
            check_start(start_of(SETTINGS, position=Position(3, 5)), changed, is_own=is_own, num_processes=1)
        check_start(start_of(SETTINGS), changed, is_own=is_own, num_processes=1)  # at the end of an epoch


def test_the_rest_of_an_epoch_is_drawn_by_as_many_processes() -> None:
    with pytest.raises(RunError, match=r"number of processes=2: .*drawn with number of processes=1"):
        check_start(start_of(SETTINGS, position=Position(3, 5)), SETTINGS, is_own=True, num_processes=2)
    check_start(start_of(SETTINGS), SETTINGS, is_own=True, num_processes=2)


@pytest.mark.parametrize(
    ("trainer", "is_own", "message"),
    [
        ({"max_epochs": 2}, True, r"max_epochs=2: .*finished 3 epochs"),
        ({"max_steps": 35}, True, r"max_steps=35: .*finished 36 steps"),
        ({"max_epochs": 3}, False, r"3 epochs and 36 steps.*max_epochs=3.*nothing would be trained"),
        ({"max_epochs": -1, "max_steps": 36}, False, "nothing would be trained"),
        ({"max_epochs": 3}, True, None),  # only the test is left
        ({"max_epochs": None, "max_steps": 36}, True, None),
        ({"max_epochs": 4}, False, None),
        ({"max_epochs": -1, "max_steps": -1}, False, None),
    ],
)
def test_another_run_does_not_start_where_nothing_is_left(
    trainer: dict[str, Any], is_own: bool, message: str | None
) -> None:
    settings = {**SETTINGS, "trainer": trainer}
    if message is None:
        check_start(start_of(SETTINGS), settings, is_own=is_own, num_processes=1)
        return
    with pytest.raises(RunError, match=message):
        check_start(start_of(SETTINGS), settings, is_own=is_own, num_processes=1)


@pytest.mark.parametrize(
    ("position", "trainer", "words"),
    [
        (Position(3, None), {"max_epochs": 10}, "in epoch 4 of 10 (36 steps done)"),
        (Position(0, 5), {"max_epochs": -1}, "in epoch 1, after 5 of its batches (36 steps done)"),
        (Position(3, None), {"max_epochs": 3}, "at its end, after epoch 3: nothing is left to train (36 steps done)"),
        (Position(3, 2), {"max_steps": 36}, "at its end, after epoch 4: nothing is left to train (36 steps done)"),
    ],
)
def test_a_resumed_run_says_where_it_begins(position: Position, trainer: dict[str, Any], words: str) -> None:
    assert start_of(SETTINGS, position=position).in_words(trainer) == f"Resuming run/last.ckpt {words}"


@pytest.mark.parametrize("setting", ["max_epochs=0", "max_steps=0", "limit_train_batches=0", "limit_train_batches=0.0"])
def test_a_run_that_would_train_nothing_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{setting}: nothing would be trained"):
        to_plain(without_hydra(*SMALL, f"trainer.{setting}"))


@pytest.mark.filterwarnings("ignore")
def test_a_run_without_a_step_is_not_done(run_training: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing was trained"):
        run_training("run", "+trainer.max_time=00:00:00:00")
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert '"state": "failed"' in (tmp_path / "run" / "status.json").read_text()


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_only_tests(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run_training("run", "trainer.max_epochs=1")
    run = run_training("run", "trainer.max_epochs=1", "ckpt_path=last")
    assert "at its end, after epoch 1: nothing is left to train (6 steps done)" in caplog.text
    assert '"state": "done"' in (run / "status.json").read_text()
    with pytest.raises(RunError, match="nothing would be trained"):
        run_training("other", "trainer.max_epochs=1", f"ckpt_path={run}/checkpoints/last.ckpt")
