"""Every choice beside every other one: each pair builds, or is refused before any data is read."""

import random
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from test_combinations import FLAT, NARROW

from vae_lightning.launch import train
from vae_lightning.launch.configuration import first_cause, to_plain
from vae_lightning.runs.metrics_csv import read_metrics

Row = dict[str, str]


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (train.CONF_DIR / group).glob("*.yaml"))


def added(names: list[str]) -> list[str]:
    return ["", *(f"+callbacks={name}" for name in names)]


def of_group(group: str) -> list[str]:
    return [f"{group}={choice}" for choice in choices(group)]


TAKEN = [*("checkpoint", "loss_curves", "non_finite_loss", "throughput"), "recognition_scores"]  # or not of VAEs
ANYWHERE = {
    "optimizer": of_group("optimizer"),
    "lr_schedule": of_group("lr_schedule"),
    "trainer": ["trainer=cpu", "trainer=default", "trainer=ddp trainer.devices=2", "trainer=ddp trainer.devices=1"],
    "logger": ["logger=[csv]", "logger=[csv,tensorboard]"],
    "debug": ["", "debug=smoke"],
    "compile": ["compile=off", "compile=default"],
    "precision": ["trainer.precision=auto", "trainer.precision=32-true", "trainer.precision=bf16-mixed"],
    "accumulate": ["", "trainer.accumulate_grad_batches=3"],
    "clip": ["", "trainer.gradient_clip_val=1.0"],
    "flip": ["data.horizontal_flip=false", "data.horizontal_flip=true"],
    "residence": ["data.residence=auto", "data.residence=host", "data.residence=device"],
    "color": ["data.color=rgb", "data.color=gray"],
}
OF_A_VAE = {
    **{name: of_group(name) for name in ("model", "reconstruction", "kl", "beta_schedule", "perceptual")},
    **ANYWHERE,
    "callback": added([name for name in choices("callbacks") if name not in TAKEN]),
    "data": [*of_group("data")],
    "posterior": ["posterior=gaussian", "posterior=deterministic"],
    "output": ["model.output_activation=sigmoid", "model.output_activation=tanh"],
}
RECOGNIZER = "experiment=attribute_classifier"
OF_A_RECOGNIZER = {
    **ANYWHERE,
    "trainer": ["trainer=cpu", "trainer=ddp trainer.devices=1"],  # its batch normalisation is not for two CPU processes
    "callback": added(["ema", "profile", "batch_size_finder"]),
    "data": ["data=auto", "data=celeba", "data=faces"],
    "weights": ["recognizer.weights=auto", "recognizer.weights=none"],
}
# what cannot be, and the words with which it is refused
REFUSED_VAES = {
    ("kl=free_bits", "beta_schedule=capacity"): "kl=FreeBits",
    ("reconstruction=bce", "model.output_activation=tanh"): "set model.output_activation=sigmoid",
    ("model=patch", "trainer=ddp trainer.devices=2"): "trainer.sync_batchnorm=false",
    **{("kl=per_level", f"model={model}"): "set model=ladder" for model in FLAT},
    **{("+callbacks=levels", f"model={model}"): "model=ladder" for model in FLAT},
    ("kl=per_level", "posterior=deterministic"): "set model=ladder",  # of the default model
    ("+callbacks=levels", "posterior=deterministic"): "model=ladder",
    ("model=ladder", "posterior=deterministic"): "set posterior=gaussian",
}


def words(row: Row) -> list[str]:
    return [word for value in row.values() for word in value.split()]


def composed(row: Row, tmp_path: Path, *fixed: str) -> list[str]:
    place = [f"run_dir='{tmp_path}'", f"data.data_dir='{tmp_path / 'data'}'", "data.image_size=32"]
    root = ["data.root=/somewhere"] if {"data=folder", "data=celeba"} & set(words(row)) else []
    return [*fixed, *words(row), *place, *root, "trainer.accelerator=cpu"]


def build(overrides: list[str]) -> None:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", overrides)
    train.build(config, to_plain(config))


def is_refused(row: Row, refused: dict[tuple[str, str], str]) -> bool:
    return any(set(pair) <= set(row.values()) for pair in refused)


def rows_with_every_pair(
    factors: dict[str, list[str]], refused: dict[tuple[str, str], str], seed: int = 0
) -> Iterator[Row]:
    """Few rows in which each two choices stand together once at least, but for those that are refused."""
    random_numbers = random.Random(seed)
    names = list(factors)
    missing = {
        frozenset({(one, first), (other, second)})
        for one, other in combinations(names, 2)
        for first in factors[one]
        for second in factors[other]
        if not is_refused({one: first, other: second}, refused)
    }
    while missing:
        row = dict(sorted(next(iter(sorted(missing, key=sorted)))))
        for name in random_numbers.sample(names, len(names)):
            if name in row:
                continue
            allowed = [choice for choice in factors[name] if not is_refused({**row, name: choice}, refused)]
            random_numbers.shuffle(allowed)
            row[name] = max(allowed, key=lambda choice: _newly_covered({**row, name: choice}, name, missing))
        missing -= {frozenset(pair) for pair in combinations(row.items(), 2)}
        yield {name: row[name] for name in names}


def _newly_covered(row: Row, name: str, missing: set[frozenset[tuple[str, str]]]) -> int:
    return sum(frozenset({(name, row[name]), other}) in missing for other in row.items() if other[0] != name)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("factors", "refused", "fixed"),
    [(OF_A_VAE, REFUSED_VAES, []), (OF_A_RECOGNIZER, {}, [RECOGNIZER])],
    ids=["VAE", "recognizer"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_pair_of_choices_builds(
    factors: dict[str, list[str]], refused: dict[tuple[str, str], str], fixed: list[str], tmp_path: Path
) -> None:
    rows = list(rows_with_every_pair(factors, refused))
    assert len(rows) < 200
    for row in rows:
        overrides = composed(row, tmp_path, *fixed)
        try:
            build(overrides)
        except (ValueError, InstantiationException) as error:
            pytest.fail(f"{' '.join(overrides)}: {first_cause(error)}")


@pytest.mark.parametrize(("pair", "message"), REFUSED_VAES.items())
def test_pairs_that_cannot_be_are_refused_in_words(pair: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, InstantiationException)) as caught:
        build(composed({"one": pair[0], "other": pair[1]}, tmp_path))
    assert re.search(message, first_cause(caught.value))


TRAINED = [
    *("trainer.max_epochs=2", "trainer.limit_val_batches=2", "trainer.enable_progress_bar=false"),
    *("data.image_size=32", "data.batch_size=8", "logger=[csv]", "trainer=cpu"),
]
SLOW = "+callbacks=batch_size_finder"  # has its own test
LEFT_OUT = ("trainer", "data", "logger", "debug", "compile")  # of the tests of processes, data, loggers and compilers


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_choices_at_random_train(seed: int, tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    """Three and more choices together, drawn by a seed."""
    random_numbers = random.Random(f"choices {seed}")  # neighbouring numbers would give neighbouring choices
    row = {"kl": "kl=free_bits", "beta_schedule": "beta_schedule=capacity"}
    while is_refused(row, REFUSED_VAES) or SLOW in row.values():
        row = {name: random_numbers.choice(given) for name, given in OF_A_VAE.items() if name not in LEFT_OUT}
    narrow = NARROW[row["model"].removeprefix("model=")].split()
    places = [f"run_dir='{tmp_path / 'run'}'", f"data.data_dir='{tmp_path / 'data'}'", f"data.root='{tiny_celeba(60)}'"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*TRAINED, *places, *words(row), *narrow])
    plain = to_plain(config)
    train.run(config, plain, *train.build(config, plain))
    losses = [each["val/loss"] for each in read_metrics(tmp_path / "run" / "metrics.csv") if "val/loss" in each]
    assert len(losses) == 2
    assert torch.tensor(losses).isfinite().all()
