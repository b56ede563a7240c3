"""One seed is one run: whatever the process, the folder, the locale or the number of workers."""

import ast
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny_runs import write_run
from torch import Tensor

from vae_lightning import load_run
from vae_lightning.data import FaceDataModule
from vae_lightning.evaluation.card import read_card
from vae_lightning.evaluation.evaluate import evaluate_run
from vae_lightning.evaluation.request import Request
from vae_lightning.launch import train
from vae_lightning.launch.configuration import to_plain
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.runs.parts import build_part

ROOT = Path(__file__).parents[1]
CLOCKED = ("train/images_per_second",)  # the only column that tells the time
RECOGNIZER = {"_target_": "vae_lightning.recognition.ResNet18Recognizer", "image_size": 32, "weights": "none"}


def tensors_in(content: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield path, content
    elif isinstance(content, dict):
        for name, child in content.items():
            yield from tensors_in(child, f"{path}.{name}")
    elif isinstance(content, list | tuple):
        for number, child in enumerate(content):
            yield from tensors_in(child, f"{path}.{number}")


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, curve and pictures, bit by bit."""
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (torch.load(run / "checkpoints" / name) for run in (one, other))
        for part in ("state_dict", "optimizer_states", "loops"):
            pairs = zip(tensors_in(first[part]), tensors_in(second[part]), strict=True)
            for (path, tensor), (same_path, same) in pairs:
                assert path == same_path
                assert torch.equal(tensor, same), f"{name}: {part}{path}"
    rows, same_rows = (
        [{key: value for key, value in row.items() if key not in CLOCKED} for row in read_metrics(run / "metrics.csv")]
        for run in (one, other)
    )
    assert rows == same_rows
    pictures, same_pictures = (pictures_of(run) for run in (one, other))
    assert pictures == same_pictures
    for picture in pictures:
        assert (one / picture).read_bytes() == (other / picture).read_bytes(), picture


def pictures_of(run: Path) -> list[Path]:
    """Without the copies that an evaluation keeps under the hash of the checkpoint, which tells the time."""
    return sorted(path.relative_to(run) for path in run.rglob("*.png") if "measured" not in path.parts)


def measured(card: Path) -> list[dict[str, Any]]:
    """What a card says, but for how long it took."""
    return [asdict(replace(section, seconds=0.0)) for section in read_card(card).sections]


TRAINING = [
    *processes.SMALL,
    "data=faces",
    "data.faces_count=120",
    "data.horizontal_flip=true",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    "beta_schedule=warmup",
]
METRICS = "likelihood,iwae,reconstructions,latents,disentanglement,probes,samplers,pictures"


@pytest.mark.nightly
@pytest.mark.process
def test_a_seed_is_one_run_in_any_process(tmp_path: Path) -> None:
    """Another hash seed, working directory, run folder, time zone, locale, progress bar and number of cores."""
    one, other = tmp_path / "ünd so", tmp_path / "a folder" / "below"
    surroundings = [
        {"PYTHONHASHSEED": "1", "TZ": "UTC"},
        {"PYTHONHASHSEED": "2", "TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ]
    some_core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    for number, (folder, environment) in enumerate(zip((one, other), surroundings, strict=True)):
        folder.mkdir(parents=True)
        place = ["run_dir=run", f"data.data_dir={'' if number else '../'}data"]
        before = os.sched_getaffinity(0) if some_core is not None else set()
        try:
            if number and some_core is not None:
                os.sched_setaffinity(0, {some_core})
            shows = f"trainer.enable_progress_bar={'true' if number else 'false'}"
            environment["OMP_NUM_THREADS"] = "1"
            processes.train(*TRAINING, *place, shows, "hydra.run.dir=run", cwd=folder, **environment)
            vae = str(Path(sys.executable).with_name("vae"))
            processes.run(vae, "evaluate", "run", "--metrics", METRICS, cwd=folder, **environment)
        finally:
            if before:
                os.sched_setaffinity(0, before)
    assert_same_run(one / "run", other / "run")
    cards = [folder / "run" / "evaluation" / "card.json" for folder in (one, other)]
    assert measured(cards[0]) == measured(cards[1])


def test_another_seed_is_another_run(run_training: Callable[..., Path]) -> None:
    weights = {}
    for name, seed in (("zero", 0), ("one", 1)):
        short = ["trainer.max_epochs=1", "callbacks=[checkpoint]", "logger=[]", "test=false"]
        run = run_training(name, f"seed={seed}", *short)
        weights[name] = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    matrices = [name for name, tensor in weights["zero"].items() if name.startswith("model.") and tensor.ndim > 1]
    assert matrices
    assert not [name for name in matrices if torch.equal(weights["zero"][name], weights["one"][name])]


def host_states() -> tuple[bytes, bytes]:
    """Of the random numbers that everybody shares. (Python's own are drawn by the checks of shapes in these tests.)"""
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()


EVERY_CALLBACK = (
    "callbacks=[checkpoint,throughput,non_finite_loss,posterior_collapse,reconstruction,interpolation,traversal,"
    "temperature,kl_per_latent,loss_curves,projector,ema]"
)


def test_a_fit_leaves_the_shared_random_numbers_alone(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    """What draws none of them cannot be disturbed by what somebody's callback draws."""
    root = tiny_celeba(60)
    places = [f"run_dir='{tmp_path / 'run'}'", f"data.data_dir='{tmp_path / 'data'}'", f"data.root='{root}'"]
    short = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "data.horizontal_flip=true"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", [*processes.SMALL, *places, *short, EVERY_CALLBACK])
    plain = to_plain(config)
    built = train.build(config, plain)
    before = host_states()
    train.run(config, plain, *built)
    assert host_states() == before


def test_loading_and_using_a_run_leaves_the_shared_random_numbers_alone(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    before = host_states()
    run = load_run(run_dir)
    run.interpolate(run.sample(2), run.reconstruct(run.sample(2, seed=0)))
    build_part(Recognizer, RECOGNIZER)
    assert host_states() == before


@pytest.mark.slow
def test_measuring_leaves_the_shared_random_numbers_alone(run_training: Callable[..., Path]) -> None:
    run_dir = run_training("run", "trainer.max_epochs=1", "callbacks=[checkpoint]", "test=false")
    before = host_states()
    evaluate_run(run_dir, Request(metrics=tuple(METRICS.split(",")), device="cpu"))
    assert host_states() == before


def test_nothing_of_ours_draws_from_pythons_random_numbers() -> None:
    """`import random` stands nowhere: everything has a generator of its own."""
    for file in [*(ROOT / "vae_lightning").rglob("*.py"), *(ROOT / "callbacks").glob("*.py"), ROOT / "train.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "random" not in names, file
            assert not (isinstance(node, ast.ImportFrom) and node.module == "random"), file


def batches_of(data: FaceDataModule) -> list[tuple[list[int], bytes]]:
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
    return [(batch["index"].tolist(), batch["images"].contiguous().numpy().tobytes()) for batch in loader]


@pytest.mark.parametrize("cores", [1, 5])
def test_the_same_batches_from_a_cache_of_any_number_of_threads(
    cores: int, tiny_celeba: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(150)
    settings: dict[str, Any] = {"source": "celeba", "root": str(root), "image_size": 32, "batch_size": 8}
    expected = batches_of(FaceDataModule(**settings, data_dir=str(tmp_path / "here")))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    for residence in ("host", "device"):
        data = FaceDataModule(**settings, data_dir=str(tmp_path / f"there {residence}"), residence=residence)
        assert batches_of(data) == expected
