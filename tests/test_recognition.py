"""Networks that read attributes or factors off faces: trained by train.py, loaded, and held against scikit-learn."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import WHOLE_RUN, train_tiny, write_celeba
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from torchvision.models import resnet18

from vae_lightning.data import DataError, FaceDataModule
from vae_lightning.launch import train
from vae_lightning.launch.configuration import first_cause, to_plain
from vae_lightning.recognition import ResNet18Recognizer
from vae_lightning.recognition.load import load_recognizer
from vae_lightning.recognition.network import WEIGHTS
from vae_lightning.recognition.readings import ReadSplit, attribute_means, attribute_table, factor_table
from vae_lightning.runs.data_record import data_settings
from vae_lightning.runs.layout import RunError, checkpoint_file, newest_run
from vae_lightning.runs.load import load_run
from vae_lightning.runs.metrics_csv import read_metrics

FIXED = [override for override in WHOLE_RUN if "latent_dim" not in override]
RunTraining = Callable[..., Path]


@pytest.fixture
def train_classifier(tiny_celeba: Callable[..., Path], tmp_path: Path) -> RunTraining:
    root = tiny_celeba(60)

    def run(name: str, *overrides: str) -> Path:
        settings = ["experiment=attribute_classifier", "trainer.max_epochs=2", *overrides]
        return train_tiny(root, tmp_path / "data", tmp_path / name, *settings, fixed=FIXED)

    return run


def open_data(run_dir: Path) -> FaceDataModule:
    content = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    data = FaceDataModule(**data_settings(content["run_record"]))
    data.prepare_data()
    return data


def build(*overrides: str) -> Any:
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        config = compose("config", ["run_dir=/tmp/run", "trainer=cpu", *overrides])
    return train.build(config, to_plain(config))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    settings = ["experiment=attribute_classifier", "trainer.max_epochs=1", "data.train_size=16", "logger=[csv]"]
    return train_tiny(write_celeba(folder / "celeba", 60), folder / "data", folder / "run", *settings, fixed=FIXED)


def test_a_classifier_is_trained_written_and_loaded(trained: Path) -> None:
    """What was logged is what the loaded network reads, computed by other libraries."""
    run_dir = trained
    network = load_recognizer(run_dir)
    data = open_data(run_dir)
    images = data.split("test").images
    labels = data.split("test").attributes
    assert labels is not None
    with torch.no_grad():
        log_odds = network(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2) / 255)
    logged = [row for row in read_metrics(run_dir / "metrics.csv") if "test/loss" in row][-1]
    nats = F.binary_cross_entropy_with_logits(log_odds, torch.from_numpy(labels).float(), reduction="none").sum(1)
    assert logged["test/loss"] == pytest.approx(nats.mean().item(), rel=1e-4)
    both = [c for c in range(40) if len(set(labels[:, c])) == 2]
    auc = np.mean([roc_auc_score(labels[:, c], log_odds[:, c]) for c in both])
    balanced = np.mean([balanced_accuracy_score(labels[:, c], log_odds[:, c] > 0) for c in both])
    assert logged["test/auc"] == pytest.approx(auc, abs=1e-5)
    assert logged["test/balanced_accuracy"] == pytest.approx(balanced, abs=1e-5)
    assert logged["test/accuracy"] == pytest.approx(((log_odds.numpy() > 0) == labels).mean(), abs=1e-5)
    with (run_dir / "recognition_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["attribute"] for row in rows} == {data.attribute_names[c] for c in both}
    assert (run_dir / "images" / "recognition" / "test.png").is_file()
    assert network.names == tuple(data.attribute_names)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
def test_a_resumed_classifier_equals_an_uninterrupted_one(train_classifier: RunTraining) -> None:
    settings = ["lr_schedule=constant", "logger=[csv]", "callbacks=[checkpoint]", "~callbacks.best_checkpoint"]
    settings += ["test=false", "data.train_size=16"]
    whole = train_classifier("whole", *settings)
    train_classifier("parts", "trainer.max_epochs=1", *settings)
    parts = train_classifier("parts", "ckpt_path=last", *settings)
    first, second = (torch.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (whole, parts))
    assert all(tensor.equal(second[name]) for name, tensor in first.items())


@pytest.mark.slow
def test_what_can_be_seen_is_learned(train_classifier: RunTraining) -> None:
    run_dir = train_classifier(
        "run",
        "data.train_size=8",
        "trainer.max_epochs=25",
        "trainer.check_val_every_n_epoch=25",
        "test=false",
        "callbacks=[]",
    )
    losses = [row["train/loss"] for row in read_metrics(run_dir / "metrics.csv") if "train/loss" in row]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_a_factor_regressor_reads_rendered_faces(tmp_path: Path) -> None:
    settings = ["experiment=factor_regressor", "data.faces_count=40", "trainer.max_epochs=1", "logger=[csv]"]
    with initialize_config_dir(str(train.CONF_DIR), version_base="1.3"):
        fixed = [f"run_dir='{tmp_path / 'run'}'", f"data.data_dir='{tmp_path / 'data'}'"]
        config = compose("config", [*FIXED, *fixed, *settings])
    plain = to_plain(config)
    metrics = train.run(config, plain, *train.build(config, plain))
    network = load_recognizer(tmp_path / "run")
    data = open_data(tmp_path / "run")
    train_factors, test_factors = data.factors("train"), data.factors("test")
    assert train_factors is not None
    assert test_factors is not None
    names, values = test_factors
    truth = (values - train_factors[1].mean(0)) / np.maximum(train_factors[1].std(0, ddof=1), 1e-6)
    with torch.no_grad():
        read = network(torch.from_numpy(np.array(data.split("test").images)).permute(0, 3, 1, 2) / 255).numpy()
    assert network.names == names
    assert metrics["test/loss"] == pytest.approx(((read - truth) ** 2).sum(1).mean() / 2, rel=1e-3)
    with (tmp_path / "run" / "recognition_test.csv").open() as file:
        table = {row["factor"]: float(row["r_squared"]) for row in csv.DictReader(file)}
    column = names.index("skin_tone")
    assert table["skin_tone"] == pytest.approx(r2_score(truth[:, column], read[:, column]), abs=1e-3)


def test_scores_of_a_split_by_hand() -> None:
    """Two of three attributes have both classes; one is told perfectly, one the wrong way round."""
    log_odds = np.array([[2.0, -1.0, 3.0], [-2.0, 1.0, 3.0], [1.0, -3.0, 3.0], [-1.0, 2.0, -3.0]])
    labels = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]], np.float64)
    read = ReadSplit(log_odds, labels, np.arange(4))
    assert attribute_means(read) == pytest.approx({"accuracy": 7 / 12, "balanced_accuracy": 0.5, "auc": 0.5})
    rows = attribute_table(read, ["first", "second", "third"], np.arange(4), resamples=20)
    assert [(row["attribute"], row["auc"], row["majority"]) for row in rows] == [("first", 1, 0.5), ("second", 0, 0.5)]
    expected = F.binary_cross_entropy_with_logits(torch.tensor(log_odds), torch.tensor(labels), reduction="none")
    assert read.attribute_nats() == pytest.approx(expected.sum(1).numpy())
    one_class = ReadSplit(log_odds, np.ones((4, 3)), np.arange(4))
    assert np.isnan(attribute_means(one_class)["auc"])
    assert attribute_table(one_class, ["first", "second", "third"], np.arange(4)) == []
    shares = {row["factor"]: row["r_squared"] for row in factor_table(ReadSplit(labels, log_odds, read.rows), "abc")}
    assert shares == pytest.approx({name: r2_score(log_odds[:, c], labels[:, c]) for c, name in enumerate("abc")})
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_it_starts_from_imagenets_weights_where_they_are(torch_home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recognizer\.weights=imagenet: there is no file .*checkpoints"):
        ResNet18Recognizer(32, weights="imagenet")
    torch.manual_seed(1)
    stand_in = resnet18()
    file = torch_home / "hub" / "checkpoints" / WEIGHTS.url.rpartition("/")[2]
    torch.save(stand_in.state_dict(), file)
    try:
        for weights in ("imagenet", "auto", str(file)):
            network = ResNet18Recognizer(32, weights=weights)
            assert network.backbone.conv1.weight.equal(stand_in.conv1.weight)
        assert not ResNet18Recognizer(32, weights="none").backbone.conv1.weight.equal(stand_in.conv1.weight)
        torch.save({"conv1.weight": torch.zeros(1)}, file)
        with pytest.raises(ValueError, match="does not hold torchvision's ResNet18 weights"):
            ResNet18Recognizer(32)
    finally:
        file.unlink()


def test_gray_images_are_read_as_three_equal_channels() -> None:
    torch.manual_seed(0)
    gray = ResNet18Recognizer(32, color="gray", weights="none").eval()
    images = torch.rand(2, 1, 32, 32)
    assert gray(images).allclose(gray(images.expand(-1, 3, -1, -1)), atol=1e-5)
    assert gray.embed(images).shape == (2, 512)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=attribute_classifier", "model=conv"], r"model=… are parts of a VAE"),
        (["recognizer=resnet18"], "choose experiment=attribute_classifier"),
        (["experiment=attribute_classifier", "data=folder", "data.root=/x"], "has no attributes; data=celeba and"),
        (["experiment=factor_regressor", "data=celeba"], "only data=faces has known factors"),
        (["experiment=attribute_classifier", "recognizer.target=ages"], "allowed are attributes, factors"),
        (["experiment=attribute_classifier", "callbacks=[checkpoint,traversal]"], "not for an attribute classifier"),
        (["callbacks=[checkpoint,recognition_scores]"], "not for a VAE"),
        (["experiment=attribute_classifier", "data.image_size=16"], "needs 32 pixels or more"),
        (["~model"], "model=null: a VAE needs one"),
        (
            ["experiment=attribute_classifier", "optimized_metric=val/elbo_nats"],
            "allowed are val/loss, val/accuracy",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_start(overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, InstantiationException)) as caught:
        build(*overrides)
    assert re.search(message, first_cause(caught.value))


def test_a_vae_is_no_recognizer_and_the_other_way_round(trained: Path, run_training: RunTraining) -> None:
    vae = run_training("vae", "trainer.max_epochs=1", "test=false", "callbacks=[checkpoint]")
    with pytest.raises(RunError, match=r"attribute classifier.*not an autoencoder"):
        load_run(trained)
    with pytest.raises(ValueError, match="holds an autoencoder"):
        load_recognizer(vae)
    data = load_run(vae).config["data"]
    load_recognizer(trained, sees=data)
    with pytest.raises(ValueError, match=r"data\.crop=148 instead of 178.*data\.crop=178"):
        load_recognizer(trained, sees=data | {"crop": 178})


def test_data_without_factors_are_refused_when_they_are_open(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    """data=auto may find CelebA where rendered faces were meant."""
    settings = ["experiment=factor_regressor", "data.source=auto", "trainer.max_epochs=1"]
    with pytest.raises((ValueError, DataError), match="celeba images have no factors"):
        train_tiny(tiny_celeba(30), tmp_path / "data", tmp_path / "run", *settings, fixed=FIXED)


def test_last_is_the_newest_run_of_its_kind(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that was trained after the VAE does not take its place."""
    monkeypatch.chdir(tmp_path)
    vae, classifier = tmp_path / "outputs" / "vae", tmp_path / "outputs" / "classifier"
    for age, (run, config) in enumerate(
        ((classifier, (trained / "config.yaml").read_text()), (vae, "recognizer: null\n"))
    ):
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(config)
        for name in ("best.ckpt", "last.ckpt"):
            (run / "checkpoints" / name).touch()
            os.utime(run / "checkpoints" / name, (2_000 - age, 2_000 - age))
    assert newest_run() == Path("outputs/classifier")
    assert checkpoint_file(Path("last")) == Path("outputs/vae/checkpoints/best.ckpt")
    assert checkpoint_file(Path("last"), recognizer=True) == Path("outputs/classifier/checkpoints/best.ckpt")
    (vae / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(RunError, match="no run of an autoencoder"):
        checkpoint_file(Path("last"))
