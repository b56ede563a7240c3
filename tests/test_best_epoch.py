"""The best epoch of a run that is resumed, moved, or given another objective: best.ckpt and metrics.json agree."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_lightning.runs.layout import RECORD_KEY, RunError
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.training.resuming import changes_of_the_loss, moved
from vae_lightning.training.vae_module import VAEModule

Train = Callable[..., Path]
OTHER_OBJECTIVE = ["kl=free_bits", "kl.nats_per_latent=20"]


def best_of(run_dir: Path) -> tuple[int, float, float]:
    """The epoch in best.ckpt, counted from 1 as in metrics.json, and what metrics.json says of the best."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return saved(run_dir, "best")["epoch"] + 1, metrics["val/best_epoch"], metrics["val/loss"]


def saved(run_dir: Path, name: str) -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def losses(run_dir: Path) -> list[float]:
    return [row["val/loss"] for row in read_metrics(run_dir / "metrics.csv") if "val/loss" in row]


def loss_in_a_new_test(run_dir: Path, train: Train, *settings: str) -> float:
    """What the test of a run's own best.ckpt says, by a run of its own that only tests."""
    (run_dir.parent / "tested" / "checkpoints").mkdir(parents=True)
    for name in ("best", "last"):
        shutil.copy(run_dir / "checkpoints" / f"{name}.ckpt", run_dir.parent / "tested" / "checkpoints")
    again = train("tested", "ckpt_path=last", *settings)
    return float(json.loads((again / "metrics.json").read_text())["test/loss"])


@pytest.fixture
def later_epochs_are_worse(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    log_now = VAEModule.log_now

    def worse(self: VAEModule, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        return log_now(self, {name: value + 1000 if name == "val/loss" else value for name, value in values.items()})

    return lambda: monkeypatch.setattr(VAEModule, "log_now", worse)


@pytest.mark.parametrize("place", ["moved", pytest.param("copied", marks=pytest.mark.slow)])
def test_a_folder_that_was_moved_keeps_its_best_epoch(
    place: str, run_training: Train, later_epochs_are_worse: Callable[[], None]
) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1")
    (shutil.move if place == "moved" else shutil.copytree)(run_dir, run_dir.with_name("there"))
    first = (run_dir.with_name("there") / "checkpoints" / "best.ckpt").read_bytes()
    before = best_of(run_dir.with_name("there"))
    later_epochs_are_worse()
    there = run_training("there", "trainer.max_epochs=2", "ckpt_path=last")
    assert losses(there)[1] > losses(there)[0] + 500
    assert (there / "checkpoints" / "best.ckpt").read_bytes() == first
    assert best_of(there) == before == (1, 1, losses(there)[0])
    paths = [state["best_model_path"] for state in saved(there, "last")["callbacks"].values() if "dirpath" in state]
    assert {Path(path).parent for path in paths} == {there / "checkpoints"}
    assert run_dir.exists() == (place == "copied")


@pytest.mark.slow
def test_a_run_resumed_from_a_file_of_its_own_folder_keeps_its_best_epoch(
    run_training: Train, later_epochs_are_worse: Callable[[], None]
) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1")
    later_epochs_are_worse()
    run_training("run", "trainer.max_epochs=2", f"ckpt_path={run_dir}/checkpoints/last.ckpt")
    assert best_of(run_dir) == (1, 1, losses(run_dir)[0])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["last", "a file of another run"])
def test_another_objective_has_a_best_epoch_of_its_own(
    start: str, run_training: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """The new loss is larger by far than the old one ever was."""
    run_dir = run_training("run", "trainer.max_epochs=1")
    before = best_of(run_dir)[2]
    checkpoint = "last" if start == "last" else f"{run_dir}/checkpoints/last.ckpt"
    name = "run" if start == "last" else "another"
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_dir = run_training(name, "test=true", *OTHER_OBJECTIVE, "trainer.max_epochs=2", f"ckpt_path={checkpoint}")
    assert "The best epoch is searched from here on: " in caplog.text
    assert best_of(run_dir) == (2, 2, losses(run_dir)[-1])
    assert losses(run_dir)[-1] > before + 20
    assert saved(run_dir, "best")[RECORD_KEY]["config"]["kl"]["nats_per_latent"] == 20
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test/loss"] == loss_in_a_new_test(
        run_dir, run_training, "test=true", *OTHER_OBJECTIVE, "trainer.max_epochs=2"
    )


@pytest.mark.slow
def test_the_best_of_another_objective_is_not_tested(run_training: Train) -> None:
    """No epoch follows: what there is of the new objective are the last weights, and nothing is known of a best."""
    run_dir = run_training("run", "trainer.max_epochs=1")
    old = (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    run_training("run", "test=true", *OTHER_OBJECTIVE, "trainer.max_epochs=1", "ckpt_path=last")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert "test/loss" in metrics
    assert not any(name.startswith("val/") for name in metrics)
    assert (run_dir / "checkpoints" / "best.ckpt").read_bytes() == old


@pytest.mark.slow
def test_where_the_best_file_is_gone_another_becomes_it(
    run_training: Train, later_epochs_are_worse: Callable[[], None]
) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1")
    (run_dir / "checkpoints" / "best.ckpt").unlink()
    later_epochs_are_worse()
    run_training("run", "trainer.max_epochs=2", "ckpt_path=last")
    assert best_of(run_dir) == (2, 2, losses(run_dir)[-1])


CONFIG = {
    "model": {"latent_dim": 6, "norm": "none"},
    "posterior": "gaussian",
    "reconstruction": {"_target_": "vae_lightning.losses.SquaredError"},
    "beta": 4.0,
    "beta_schedule": {"_target_": "vae_lightning.losses.Warmup", "duration": 10},
    "kl": {"_target_": "vae_lightning.losses.AnalyticKL"},
    "perceptual": {"weight": 0.1, "weights_path": "/here"},
    "recognizer": None,
    "trainer": {"max_epochs": 3},
    "optimizer": {"lr": 0.1},
}
DATA = {"content": {"train": "a", "val": "b", "test": "c"}, "annotation": "d", "root": "/here"}
RECOGNIZER = {"recognizer": {"target": "attributes", "weights": "/here"}}


@pytest.mark.parametrize(
    ("settings", "data", "changes"),
    [
        ({"beta": 4}, {}, []),
        ({"beta": 1.0}, {}, ["beta"]),
        ({"beta_schedule": {"_target_": "vae_lightning.losses.Warmup", "duration": 20}}, {}, []),
        ({"beta_schedule": {"capacity_nats": 25.0}}, {}, ["beta_schedule.capacity_nats"]),
        ({"perceptual": {"weight": 0.1, "weights_path": "/there"}}, {}, []),
        ({"perceptual": None}, {}, ["perceptual"]),
        ({"trainer": {"max_epochs": 9}, "optimizer": {"lr": 1.0}}, {"root": "/there", "annotation": "e"}, []),
        ({"trainer": {"limit_val_batches": 1}}, {}, ["trainer.limit_val_batches"]),
        ({}, {"content": {"train": "x", "val": "b", "test": "c"}}, []),
        ({}, {"content": {"train": "a", "val": "x", "test": "c"}}, ["validation images"]),
        (RECOGNIZER, {}, ["recognizer.target", "annotation"]),
    ],
)
def test_what_changes_the_meaning_of_a_validation_loss(
    settings: dict[str, Any], data: dict[str, Any], changes: list[str]
) -> None:
    before = {"config": CONFIG, "data": DATA}
    assert changes_of_the_loss(before, {"config": {**CONFIG, **settings}, "data": {**DATA, **data}}) == changes


def test_a_classifier_is_measured_by_its_annotation() -> None:
    before = {"config": {**CONFIG, **RECOGNIZER}, "data": DATA}
    elsewhere = {"recognizer": {"target": "attributes", "weights": "/there"}}
    assert not changes_of_the_loss(before, {"config": {**CONFIG, **elsewhere}, "data": DATA})
    assert changes_of_the_loss(before, {**before, "data": {**DATA, "annotation": "e"}}) == ["annotation"]


def test_files_that_lie_elsewhere_are_forgotten() -> None:
    """A stranger's checkpoint names files; Lightning would delete those that are no longer among the best."""
    state = {
        "dirpath": "/theirs/checkpoints",
        "best_model_path": "/theirs/checkpoints/epoch=1.ckpt",
        "kth_best_model_path": "/theirs/checkpoints/../../home/me",
        "last_model_path": "/home/me/last.ckpt",
        "best_k_models": {
            "/theirs/checkpoints/a/epoch=1.ckpt": 1.0,
            "/home/me/precious.ckpt": 2.0,
            "/theirs/checkpoints/..": 3.0,
        },
        "best_model_score": 1.0,
    }
    assert moved(state, "/mine") == {
        "dirpath": "/mine",
        "best_model_path": "/mine/epoch=1.ckpt",
        "kth_best_model_path": "",
        "last_model_path": "",
        "best_k_models": {"/mine/a/epoch=1.ckpt": 1.0},
        "best_model_score": 1.0,
    }


DAMAGE: list[Callable[[dict[str, Any]], object]] = [
    lambda content: content.update(callbacks=[1]),
    lambda content: [content["callbacks"].update({key: 5}) for key in list(content["callbacks"])],
    lambda content: [state.update(best_model_path=5) for state in content["callbacks"].values()],
    lambda content: [state.update(best_k_models=5) for state in content["callbacks"].values()],
    lambda content: [state.clear() for state in content["callbacks"].values()],
]


@pytest.mark.slow
def test_a_damaged_account_of_the_best_is_refused_in_words(run_training: Train) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1")
    last = run_dir / "checkpoints" / "last.ckpt"
    for damage in DAMAGE:
        content = saved(run_dir, "last")
        damage(content)
        torch.save(content, last.with_name("damaged.ckpt"))
        with pytest.raises(RunError, match=r"damaged\.ckpt is damaged: its entries about the best checkpoints"):
            run_training("run", "trainer.max_epochs=2", f"ckpt_path={last.with_name('damaged.ckpt')}")
