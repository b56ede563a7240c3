"""Everything that reads files from elsewhere, with thousands of files that are nearly right.

    FUZZ_INPUTS=100000 python -m pytest -n 0 tests/test_fuzz.py

Only the errors that a reader documents may come out, and no input may take a GiB of memory. Each input follows from a
number, which hypothesis prints when one fails. Where a decoder written in C brings the process down, the file that
did it is the newest in pytest's temporary folder.
"""

import io
import json
import os
import resource
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import write_celeba
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated, mutated_plain, mutated_text, mutated_torch_file
from PIL import Image
from safetensors.torch import save
from tiny_runs import checkpoint, fit_everything, write_run
from written_sweeps import measured, write_job

from vae_lightning import load_run
from vae_lightning.checkpoint_keys import BEST_KEY, RECORD_KEY
from vae_lightning.checkpoints import EXPORT_FORMAT
from vae_lightning.command_line import explain_unknown_key, name_jobs_by_what_is_swept
from vae_lightning.configuration import CONF_DIR
from vae_lightning.data import DataError
from vae_lightning.data.celeba import read_celeba
from vae_lightning.data.faces import read_factors
from vae_lightning.data.image_files import jpeg_size
from vae_lightning.data.preprocessing import Preprocessing, load_jpeg_decoder
from vae_lightning.data.zip_store import ZipStore
from vae_lightning.directions import DirectionError
from vae_lightning.evaluation.card import Card, Section, read_card, to_markdown
from vae_lightning.evaluation.measured import Value
from vae_lightning.fitted import direction_file, prior_file, statistics_file
from vae_lightning.latent_statistics import LatentStatisticsError
from vae_lightning.metrics_csv import read_metrics
from vae_lightning.photographs import open_photographs
from vae_lightning.priors import PriorError
from vae_lightning.priors.file import PriorFileError
from vae_lightning.report.evaluations import evaluations_html, read_evaluations
from vae_lightning.report.markup import table_html
from vae_lightning.report.summary import summarise
from vae_lightning.report.sweep import read_sweep
from vae_lightning.report.table import make_table
from vae_lightning.run_folders import RunError
from vae_lightning.run_status import read_plan, read_status, state_of
from vae_lightning.stored_overrides import TARGET, read_overrides
from vae_lightning.sweep.progress import look, time_left

INPUTS = int(os.environ.get("FUZZ_INPUTS", "12"))
MOST_MEMORY = 2**30
LINEAR = {"_target_": "vae_lightning.models.LinearVAE", "image_size": 8, "hidden_dim": 4, "latent_dim": 6}


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    bounded = settings(
        max_examples=INPUTS, deadline=None, database=None, derandomize=INPUTS < 1000, suppress_health_check=HealthCheck
    )
    return bounded(given(number=st.integers(0, 2**64 - 1))(test))


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Decoders warn of much that they can still read; these tests are about what they cannot."""
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < MOST_MEMORY


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_celeba(tmp_path_factory.mktemp("celeba"), 4)
    names = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
    return {"root": root, **{name: (root / name).read_bytes() for name in names}}


@fuzzed
def test_annotation_files(celeba: dict[str, Any], number: int) -> None:
    root, names = celeba["root"], [name for name in celeba if name != "root"]
    name = names[number % 3]
    content = celeba[name]
    if number % 2:
        content = content.replace(b"\n", (b"\r\n", b"\r", b"\n")[number % 5 % 3])
    try:
        (root / name).write_bytes(mutated(content, number))
        source = read_celeba(root)
        assert all(Path(filename).name == filename for filename in source.filenames)
        source.fingerprint(np.arange(len(source.filenames)))
    except DataError as error:
        check_words(error)
    finally:
        (root / name).write_bytes(celeba[name])


@fuzzed
def test_tables_of_factors(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    content = b"filename,identity,yaw,smile\n000001.jpg,3,0.5,-1\n000002.jpg,3,1e-3,2.25\n"
    (_folder(tmp_path_factory) / "factors.csv").write_bytes(mutated(content, number))
    try:
        names, values = read_factors(_folder(tmp_path_factory))
        assert values.shape[1] == len(names)
    except DataError as error:
        check_words(error)


def check_words(error: Exception) -> None:
    """One line that a terminal can show."""
    assert str(error).isprintable()
    assert 10 < len(str(error)) < 2_000


_folders: dict[int, Path] = {}


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all inputs: hypothesis runs many in one test."""
    return _folders.setdefault(id(tmp_path_factory), tmp_path_factory.mktemp("fuzz"))


@cache
def zipped() -> tuple[bytes, ...]:
    archives = []
    for method, large in ((zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_DEFLATED, True)):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", method) as archive:
            for name in ("img_align_celeba/000001.jpg", "../000002.jpg", "/000003.jpg"):
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=large) as entry:
                    entry.write(bytes(range(200)) * 3)
        archives.append(written.getvalue())
    return tuple(archives)


@fuzzed
def test_zip_files(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = _folder(tmp_path_factory) / "images.zip"
    path.write_bytes(mutated(zipped()[number % 3], number))
    try:
        store = ZipStore(path)
        for name in store.names:
            store.read(name)
        store.fingerprint([])
    except DataError as error:
        check_words(error)


@cache
def pictures() -> tuple[bytes, ...]:
    chance = np.random.default_rng(0)
    image = Image.fromarray(chance.integers(0, 255, (19, 17, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette, gray = image.quantize(20), Image.fromarray(chance.integers(0, 65535, (19, 17), np.uint16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "jpeg", {}),
        (image, "jpeg", {"progressive": True, "exif": exif}),
        (image.convert("CMYK"), "jpeg", {}),
        (image.convert("L"), "jpeg", {"icc_profile": b"profile" * 30, "comment": "text"}),
        (image, "png", {"exif": exif}),
        (palette, "png", {"transparency": 3}),
        (gray, "png", {}),
        (image, "png", frames),
        (image, "webp", {"quality": 50}),
        (image, "webp", {"lossless": True, **frames}),
        (image, "bmp", {}),
        (palette, "bmp", {}),
        (palette, "gif", {}),
        (image, "gif", frames),
        (image, "tiff", {"exif": exif}),
        (gray, "tiff", {"compression": "tiff_deflate"}),
        (image, "ppm", {}),
    ]
    return tuple(_encoded(image, kind, options) for image, kind, options in kinds)


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


@fuzzed
def test_pictures_of_a_data_set(number: int) -> None:
    encoded = mutated(pictures()[number % len(pictures())], number)
    try:
        assert Preprocessing(None, 8)(encoded).shape == (8, 8, 3)
    except DataError as error:
        check_words(error)
        return
    claimed, decode = jpeg_size(encoded), load_jpeg_decoder()
    if claimed is not None and decode is not None:  # what was held against the limit is what was decoded
        decoded = decode(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), 3, False)
        assert (decoded.shape[2], decoded.shape[1]) == claimed


@fuzzed
def test_photographs(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = _folder(tmp_path_factory) / "photograph"
    path.write_bytes(mutated(pictures()[number % len(pictures())], number))
    try:
        (image,) = open_photographs([path])
        assert image.mode == "RGB"
    except DataError as error:
        check_words(error)


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
    path = _folder(tmp_path_factory) / "some.ckpt"
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
    path = _folder(tmp_path_factory) / "said.ckpt"
    torch.save({**content, RECORD_KEY: mutated_plain(content[RECORD_KEY], number)}, path)
    _use(path)


@fuzzed
def test_exported_models(tmp_path_factory: pytest.TempPathFactory, trained: bytes, number: int) -> None:
    folder = _folder(tmp_path_factory) / "exported"
    folder.mkdir(exist_ok=True)
    content = torch.load(io.BytesIO(trained))
    described = {"format": EXPORT_FORMAT, "record": content[RECORD_KEY], "epoch": 3, BEST_KEY: None}
    weights = save(content["state_dict"])
    (folder / "model.safetensors").write_bytes(mutated(weights, number) if number % 2 else weights)
    (folder / "config.json").write_bytes(
        json.dumps(described).encode() if number % 2 else mutated_text(described, number)
    )
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
    except (PriorFileError, PriorError, DirectionError, LatentStatisticsError) as error:
        check_words(error)
    finally:
        file.path.write_bytes(whole)


@fuzzed
def test_metrics(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = _folder(tmp_path_factory) / "metrics.csv"
    path.write_bytes(mutated(b"step,epoch,val/loss,train/loss\n10,0,3.5,\n20,1,,2.5\n30,1,1e-3,nan\n", number))
    try:
        assert all(isinstance(value, float) for row in read_metrics(path) for value in row.values())
    except ValueError as error:
        check_words(error)


def plain_files() -> dict[str, Any]:
    """What a sweep folder holds, as plain data by path."""
    status = {"state": "done", "identity": "ab", "session": "s", "process": 3, "host": "here", "attempt": 1}
    config = {
        "beta": 4.0,
        "posterior": "gaussian",
        "model": {"_target_": "vae_lightning.models.ConvVAE", "latent_dim": 16, "posterior": "gaussian"},
        "reconstruction": {"_target_": "vae_lightning.losses.SquaredError"},
        "recognizer": None,
        "data": {"image_size": 32, "color": "rgb", "crop": 148},
        "trainer": {"max_epochs": 3, "max_steps": -1},
    }
    job = {"name": "beta=9", "identity": "cd", "overrides": ["beta=9", "data=faces"]}
    plan = {"session": "s", "started": 1.0, "trials": None, "in_session": ["beta=4"], "jobs": [job], "engine": "basic"}
    return {
        "beta=4/status.json": {**status, "changed": ["a"], "made_with": {"libraries": {"torch": "2"}}},
        "beta=4/config.yaml": config,
        "beta=4/metrics.json": measured(-90.0, 0.01),
        "beta=4/data.json": {"source": "celeba", "fingerprint": "01", "test_count": 3},
        "beta=4/.hydra/overrides.yaml": ["beta=4", "data=faces", "+model.width=3"],
        "beta=4/evaluation/card.json": json.loads(json.dumps(_card())),
        "sweep.json": {**plan, "work_at_start": 1.0},
    }


def _card() -> dict[str, Any]:
    value = Value("bits_per_dim", 3.5, "of 256 levels", (3.4, 3.6), "lower")
    section = Section("likelihood", "Likelihood", [value], {"seed": 0}, ["Fine."], {"rows": [{"a": 1}]}, ["a.png"], 1.5)
    return {
        "format": 1,
        "about": {"split": "test", "count": 10, "seed": 0},
        "sections": [vars(section) | _plain(value)],
    }


def _plain(value: Value) -> dict[str, Any]:
    return {"values": [vars(value)]}


@fuzzed
def test_sweep_folders(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    sweep = _folder(tmp_path_factory) / "sweep"
    files = plain_files()
    if not sweep.exists():
        write_job(sweep, ["beta=1"], measured(-95.0, 0.02))
        for path, content in files.items():
            (sweep / path).parent.mkdir(parents=True, exist_ok=True)
            (sweep / path).write_text(_writer(path)(content))
    path = list(files)[number % len(files)]
    (sweep / path).write_bytes(mutated_text(files[path], number, _writer(path)))
    try:
        _report(sweep)
    finally:
        (sweep / path).write_text(_writer(path)(files[path]))


def _writer(path: str) -> Callable[[Any], str]:
    return json.dumps if path.endswith(".json") else yaml.safe_dump


def _report(sweep: Path) -> None:
    read = read_sweep(sweep)
    table = make_table(read)
    evaluations_html(read_evaluations(table))
    assert "<script>" not in table_html(table, "x") + str(summarise(read, table)).replace("<script>", "")
    time_left(sweep, look(sweep))


@fuzzed
def test_states_and_plans(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    folder, files = _folder(tmp_path_factory), plain_files()
    (folder / "status.json").write_bytes(mutated_text(files["beta=4/status.json"], number))
    (folder / "sweep.json").write_bytes(mutated_text(files["sweep.json"], number))
    read_status(folder)
    state_of(folder)
    for job in read_plan(folder).get("jobs", []):
        assert Path(job["name"]).name == job["name"]


@fuzzed
def test_cards(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    path = _folder(tmp_path_factory) / "card.json"
    path.write_bytes(mutated_text(_card(), number))
    try:
        card: Card = read_card(path)
    except ValueError:
        return
    assert all(Path(picture).name == picture for picture in card.pictures)
    assert card.values is not None
    if {"checkpoint", "data"} <= card.about.keys():
        to_markdown(card)


@fuzzed
def test_settings_of_a_folder(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    folder = _folder(tmp_path_factory)
    (folder / ".hydra").mkdir(exist_ok=True)
    stored = ["beta=4", "+callbacks.x={_target_: callbacks.EMA, decay: 0.9}", "model=conv", "~callbacks.ema", "seed=1"]
    (folder / ".hydra" / "overrides.yaml").write_bytes(mutated_text(stored, number, yaml.safe_dump))
    try:
        kept = read_overrides(folder, CONF_DIR, {"seed"})
    except RunError as error:
        check_words(error)
        return
    for override in kept:
        assert not override.startswith(("-", "hydra", "+hydra"))
        assert "${" not in override
        assert "_target_" not in override or TARGET.search(override)


@fuzzed
def test_command_lines(number: int) -> None:
    line = b"-m beta=1,4,10 model.latent_dim=range(3,9) +callbacks.x._target_=callbacks.EMA 'data.root=/a b' sweep=name"
    arguments = mutated(line, number).decode(errors="replace").split(" ")
    explain_unknown_key(arguments, CONF_DIR)
    assert name_jobs_by_what_is_swept(arguments)[: len(arguments)] == arguments
