"""What TensorBoard is given beside scalars and grids: the projector, the order of its charts, and who says where."""

import json
import logging
import shlex
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ATTRIBUTE_NAMES, train_tiny, write_celeba
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

import callbacks.projector
from callbacks import Projector, tensorboard_command
from callbacks.dashboard import order_charts
from callbacks.loss_curves import EpochMeans, draw_rate_distortion
from callbacks.projector import draw_sprite
from vae_lightning import load_run
from vae_lightning.launch import train
from vae_lightning.launch.building import build_module
from vae_lightning.launch.configuration import to_plain

pytestmark = pytest.mark.slow

WATCHED = "logger=[tensorboard,csv]"
FACES = 4  # of six in the validation split


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two epochs, the second of which was trained after a resume, and with one of no KL.

    Beside it a checkpoint of each of the two epochs.
    """
    folder = tmp_path_factory.mktemp("projector")
    root = write_celeba(folder / "celeba", 60)
    settings = ["callbacks=[checkpoint,throughput,ema,projector,loss_curves]", "callbacks.ema.decay=0.5", WATCHED]
    settings.append(f"callbacks.projector.num_faces={FACES}")
    parts = {6: ["trainer.max_epochs=1"], 12: ["trainer.max_epochs=2", "ckpt_path=last"]}
    parts[12].append("callbacks.projector.every_n_epochs=1")  # the first part ends with it all the same
    for step, more in parts.items():
        run_dir = train_tiny(root, folder / "data", folder / "runs" / "vae", *settings, *more)
        shutil.copy(run_dir / "checkpoints" / "last.ckpt", folder / f"{step}.ckpt")
    autoencoder = ["posterior=deterministic", "trainer.max_epochs=1", "callbacks=[checkpoint,loss_curves]", WATCHED]
    train_tiny(root, folder / "data", folder / "runs" / "autoencoder", *autoencoder)
    return folder / "runs"


@pytest.fixture(scope="module")
def context(logdir: Path) -> TBContext:
    """What `tensorboard --logdir` gives its pages."""
    events = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
    return TBContext(logdir=str(logdir), data_provider=MultiplexerDataProvider(events, str(logdir)))


@pytest.fixture
def ask(context: TBContext) -> Callable[..., bytes]:
    """`ask("tensor", name="…")` is what the projector's page fetches for the VAE's run."""
    apps = ProjectorPlugin(context).get_plugin_apps()

    def get(route: str, **query: str) -> bytes:
        answer = Client(apps[f"/{route}"]).get(query_string={"run": "vae", **query})
        assert answer.status_code == 200, answer.text
        return answer.data

    return get


def test_the_projector_has_the_latents_of_validation_faces(ask: Callable[..., bytes], logdir: Path) -> None:
    assert json.loads(ask("runs")) == ["vae"]
    embeddings = json.loads(ask("info"))["embeddings"]
    names = ["posterior means, step 12", "posterior means, step 6"]  # the first part of the run is still there
    assert [each["tensorName"] for each in embeddings] == names
    assert embeddings[0]["tensorShape"] == [FACES, 6]
    for step, name in ((12, names[0]), (6, names[1])):
        latents = np.frombuffer(ask("tensor", name=name), np.float32).reshape(FACES, 6)
        run = load_run(logdir.parent / f"{step}.ckpt")  # a checkpoint holds the mean of the weights
        expected = run.encode(run.held_out_faces("val", FACES)).mean
        np.testing.assert_allclose(latents, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_projector_shows_the_faces_and_what_is_known_of_them(ask: Callable[..., bytes], logdir: Path) -> None:
    embedding = json.loads(ask("info"))["embeddings"][0]
    size = embedding["sprite"]["singleImageDim"][0]
    assert ask("sprite_image", name=embedding["tensorName"]).startswith(b"\x89PNG")
    with Image.open(logdir / "vae" / "projector" / "faces.png") as picture:
        sprite = np.asarray(picture)
    faces = load_run(logdir / "vae").held_out_faces("val", FACES).permute(0, 2, 3, 1).numpy()
    for number, face in enumerate(faces):
        top, left = size * (number // 2), size * (number % 2)
        assert np.array_equal(sprite[top : top + size, left : left + size], face)
    header, *lines = (line.split("\t") for line in ask("metadata", name=embedding["tensorName"]).decode().splitlines())
    assert header == ["file", "split", "person", *ATTRIBUTE_NAMES]
    celeba = logdir.parent / "celeba"
    listed = dict(line.split(maxsplit=1) for line in (celeba / "list_attr_celeba.txt").read_text().splitlines()[2:])
    people = dict(line.split() for line in (celeba / "identity_CelebA.txt").read_text().splitlines())
    assert [line[0] for line in lines] == ["000009.jpg", "000029.jpg", "000039.jpg", "000059.jpg"]
    for file, split, person, *attributes in lines:
        assert (split, person) == ("val", people[file])
        assert ["1" if word == "yes" else "-1" for word in attributes] == listed[file].split()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sprite_is_no_larger_than_browsers_take(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks.projector, "MOST_SPRITE_PIXELS", 12)
    faces = (torch.arange(7, dtype=torch.uint8) * 30)[:, None, None, None].expand(7, channels, 16, 16)
    sprite = draw_sprite(faces.clone())
    assert sprite.shape == (12, 12, 3)
    levels = np.array([[0, 30, 60], [90, 120, 150], [180, 0, 0]])  # seven in a square of nine
    assert np.array_equal(sprite[2::4, 2::4], levels[:, :, None].repeat(3, axis=2))


@pytest.mark.parametrize("setting", [{"num_faces": 0}, {"every_n_epochs": 0}])
def test_a_projector_of_nothing_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"callbacks\.projector\.{next(iter(setting))}=0"):
        Projector(**setting)


def compose_plain(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        return to_plain(compose("config", ["run_dir=run", "trainer.accelerator=cpu", *overrides]))


def test_a_network_that_reads_faces_has_no_projector() -> None:
    plain = compose_plain("experiment=attribute_classifier", "+callbacks=projector")
    with pytest.raises(ValueError, match=r"callbacks=\[projector\]: not for an attribute classifier"):
        train.make_callbacks(plain, build_module(plain))


def layout_of(*run_dirs: Path) -> dict[str, list[str]]:
    """Category -> charts, as TensorBoard's page of these runs has them; each chart is of training and validation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated")  # which TensorBoard carries with it
        from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
    events = EventMultiplexer({run_dir.name: str(run_dir) for run_dir in run_dirs}).Reload()
    page = CustomScalarsPlugin(TBContext(data_provider=MultiplexerDataProvider(events, "")))
    layout = json.loads(page.layout_impl(RequestContext(), ""))
    for chart in (chart for category in layout["category"] for chart in category["chart"]):
        assert chart["multiline"]["tag"] == [f"{split}/{chart['title']}$" for split in ("train", "val")]
    return {category["title"]: [chart["title"] for chart in category["chart"]] for category in layout["category"]}


def test_charts_begin_with_rate_and_distortion(logdir: Path) -> None:
    layout = layout_of(logdir / "vae")
    assert [*layout.items()] == [
        ("Rate and distortion", ["kl_nats", "reconstruction_nats"]),
        ("Objective", ["loss", "elbo_nats", "bits_per_dim"]),
        ("Latents, pixels, speed", ["active_units", "beta", "mse", "images_per_second"]),
    ]
    tags = EventAccumulator(str(logdir / "vae")).Reload().Tags()
    wanted = {f"{split}/{name}" for split in ("train", "val") for names in layout.values() for name in names}
    assert wanted - {*tags["scalars"]} == {"val/images_per_second"}
    assert min(tags["images"]) == "curves/rate_distortion"  # the page sorts them


def test_a_model_without_prior_has_no_charts_of_a_kl(logdir: Path) -> None:
    charts = [["reconstruction_nats"], ["loss"], ["active_units", "mse", "images_per_second"]]
    assert [*layout_of(logdir / "autoencoder").values()] == charts
    assert not (logdir / "autoencoder" / "rate_distortion.png").exists()


def test_runs_that_differ_share_their_charts(logdir: Path) -> None:
    charts = layout_of(logdir / "autoencoder", logdir / "vae")
    assert [sorted(names) for names in charts.values()] == [
        ["kl_nats", "reconstruction_nats"],
        ["bits_per_dim", "elbo_nats", "loss"],
        ["active_units", "beta", "images_per_second", "mse"],
    ]


def test_a_ladder_shows_its_coarse_latents_and_charts_of_its_levels(logdir: Path, tmp_path: Path) -> None:
    root = logdir.parent / "celeba"
    lists = ["sides=[4,32]", "widths=[8,8]", "blocks=[1,1]", "latent_channels=[2,1]"]
    ladder = [
        "model=ladder",
        "kl=per_level",
        "reconstruction=logistic",
        *(f"model.{each}" for each in lists),
        "model.latent_dim=null",
    ]
    settings = [*ladder, "callbacks=[loss_curves,projector]", WATCHED, "trainer.max_epochs=1"]
    run_dir = train_tiny(root, logdir.parent / "data", tmp_path / "ladder", *settings)
    assert layout_of(run_dir)["KL of each level"] == ["kl_nats_4x4", "kl_nats_32x32"]
    config = (run_dir / "projector_config.pbtxt").read_text()
    assert "posterior means of 4x4, step" in config
    (latents,) = (run_dir / "projector").glob("step=*.tsv")
    assert np.loadtxt(latents, delimiter="\t").shape[1] == 32


def test_a_network_that_reads_faces_has_charts_of_its_own(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    order_charts([logger], build_module(compose_plain("experiment=factor_regressor")))
    logger.finalize("success")
    assert layout_of(tmp_path) == {"Reading": ["r_squared"], "Objective and speed": ["loss", "images_per_second"]}


def test_rate_and_distortion_are_means_of_an_epochs_windows() -> None:
    values = [(1, 8.0, 100.0), (1, 10.0, 60.0), (2, 12.0, 50.0), (3, 13.0, float("nan")), (3, 14.0, 40.0)]
    steps = (3, 4, 8, 11, 12)  # the last windows of an epoch are shorter
    rows = [
        {"epoch": epoch, "step": step, "train/kl_nats": kl, "train/reconstruction_nats": nats}
        for step, (epoch, kl, nats) in zip(steps, values, strict=True)
    ]
    means, nothing = EpochMeans("train"), EpochMeans("val").with_rows(rows)
    means.add(rows[:2])
    curve = means.with_rows(rows[2:])
    assert curve.tolist() == [[1, 8.5, 90], [2, 12, 50], [3, 14, 40]]
    assert means.with_rows([]).tolist() == [[1, 8.5, 90]]
    pictures = [draw_rate_distortion({"train": nothing, "val": points}) for points in (curve, curve[:1], curve[:2])]
    assert pictures[0].shape == (550, 700, 3)
    assert all((one != other).any() for one, other in pairwise(pictures))


def test_a_run_says_how_to_watch_it(run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_dir = run_training("my runs/beta=1", "trainer.max_epochs=1", WATCHED)
    (at_the_start,) = (line for line in caplog.messages if line.startswith("Watch it with: "))
    last_words = dict(line.split(maxsplit=1) for line in caplog.messages[-1].strip().splitlines())
    words = shlex.split(last_words["Dashboard"])
    assert words == ["tensorboard", "--logdir", str(run_dir.parent)]
    assert shlex.split(at_the_start.removeprefix("Watch it with: ")) == words
    assert shlex.split(last_words["Use"])[3] == str(run_dir)
    assert caplog.messages.index(at_the_start) < len(caplog.messages) - 1


def test_without_tensorboard_nobody_is_sent_there(
    run_training: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    settings = ["trainer.max_epochs=1", "callbacks=[checkpoint,projector]"]
    with caplog.at_level(logging.INFO, "vae_lightning"):
        run_dir = run_training("run", *settings, "callbacks.projector.every_n_epochs=1")
    assert caplog.text.count("callbacks=[projector]: nothing to write to") == 1
    assert "--logdir" not in caplog.text
    assert "Dashboard   none: logger=[…] is without tensorboard" in caplog.text
    assert not list(run_dir.glob("*projector*"))


def test_the_command_names_the_folder_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "multirun" / "my sweep" / "beta=1"
    assert tensorboard_command(job) == "tensorboard --logdir 'multirun/my sweep'"
    assert tensorboard_command(Path("run")) == "tensorboard --logdir ."
