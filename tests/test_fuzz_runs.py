"""Checkpoints, exported models and fitted files that are nearly right: tests/fuzzing.py."""

import io
from pathlib import Path

import pytest
import torch
from fuzzing import check_words, folder_of_all, fuzzed
from mutations import mutated, mutated_plain, mutated_text, mutated_torch_file
from PIL import Image
from tiny_runs import checkpoint, fit_everything, write_exported, write_run

from vae_lightning import load_run
from vae_lightning.data import DataError
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.layout import EXPORTED_CONFIG, EXPORTED_WEIGHTS, RECORD_KEY, RunError

LINEAR = {"_target_": "vae_lightning.models.LinearVAE", "image_size": 8, "hidden_dim": 4, "latent_dim": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run") / "run", **LINEAR)
    fit_everything(folder)
    return folder


@pytest.fixture(scope="module")
def trained(run: Path) -> bytes:
    return checkpoint(run).read_bytes()


@fuzzed
def test_checkpoints(tmp_path_factory: pytest.TempPathFactory, trained: bytes, number: int) -> None:
    path = folder_of_all(tmp_path_factory) / "some.ckpt"
    path.write_bytes(mutated_torch_file(trained, number))
    _use(path)


def _use(path: Path) -> None:
    try:
        run = load_run(path)
        run.sample(1, seed=0)
        run.encode(Image.new("RGB", (200, 300)))
    except (RunError, DataError) as error:
        check_words(error)


@fuzzed
def test_what_checkpoints_say_of_themselves(
    tmp_path_factory: pytest.TempPathFactory, trained: bytes, number: int
) -> None:
    content = torch.load(io.BytesIO(trained))
    path = folder_of_all(tmp_path_factory) / "said.ckpt"
    torch.save({**content, RECORD_KEY: mutated_plain(content[RECORD_KEY], number)}, path)
    _use(path)


@fuzzed
def test_exported_models(tmp_path_factory: pytest.TempPathFactory, run: Path, number: int) -> None:
    folder = folder_of_all(tmp_path_factory) / "exported"
    described = write_exported(folder, run)
    weights = folder / EXPORTED_WEIGHTS
    if number % 2:
        weights.write_bytes(mutated(weights.read_bytes(), number))
    else:
        (folder / EXPORTED_CONFIG).write_bytes(mutated_text(described, number))
    _use(folder)


@fuzzed
def test_what_was_fitted_to_latents(run: Path, number: int) -> None:
    files = (prior_file(checkpoint(run)), direction_file(checkpoint(run)), statistics_file(checkpoint(run)))
    file = files[number % 3]
    whole = file.path.read_bytes()
    try:
        file.path.write_bytes(mutated_torch_file(whole, number))
        if file is files[0]:
            for name in ("gaussian", "gmm"):
                prior = files[0].read(name)
                if prior is not None:
                    prior.sample(2, torch.Generator().manual_seed(0))
        elif file is files[1]:
            directions = files[1].read()
            if directions is not None:
                directions.direction(directions.names[0], orthogonal_to=directions.names[1:])
        elif (statistics := files[2].read()) is not None:
            statistics.most_active(3)
    except ValueError as error:
        check_words(error)
    finally:
        file.path.write_bytes(whole)
