"""The data of one run: which source, which rows, which batches."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_celeba, write_images
from lightning.pytorch import LightningModule, Trainer
from omegaconf import ListConfig
from torch import Tensor

from vae_lightning.data import SPLITS, DataError, FaceDataModule, sources
from vae_lightning.data.sources.noise import read_noise
from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.runs.data_record import check_record, data_settings

Celeba = Callable[..., Path]


@pytest.fixture(scope="module")
def celeba_of_100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_celeba(tmp_path_factory.mktemp("data") / "celeba", 100)


def open_data(root: Path | None, directory: Path | None = None, **arguments: Any) -> FaceDataModule:
    directory = directory or (root or Path()).parent
    arguments = {"image_size": 16, "batch_size": 8, **arguments}
    data = FaceDataModule(root=None if root is None else str(root), data_dir=str(directory), **arguments)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "celebA"}, r"data\.source=celebA.*celeba\?.* auto, celeba, faces, folder, noise"),
        ({"color": "grey"}, r"data\.color=grey.*gray\?"),
        ({"crop": [1, 2, 3]}, r"data\.crop=\[1, 2, 3\]"),
        ({"batch_size": 0}, r"data\.batch_size=0: expected 1 or more"),
        ({"eval_batch_size": 0}, r"data\.eval_batch_size=0"),
        ({"residence": "gpu"}, r"data\.residence=gpu.* auto, device, host"),
        ({"val_size": 0}, r"data\.val_size=0"),
        ({"seed": -1}, r"data\.seed=-1"),
        ({"faces_count": 0}, r"data\.faces_count=0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FaceDataModule(**arguments)


def test_constructor_reads_and_writes_nothing(tmp_path: Path) -> None:
    data = FaceDataModule(source="celeba", root="/nowhere", data_dir=str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"call prepare_data\(\) and setup\(\) first"):
        data.train_dataloader()


def test_a_crop_box_from_yaml(celeba_of_100: Path) -> None:
    data = open_data(celeba_of_100, crop=ListConfig([15, 40, 163, 188]), color="gray")
    assert data.record()["crop"] == [15, 40, 163, 188]
    assert data.channels == 1
    assert next(iter(data.val_dataloader()))["images"].shape == (10, 1, 16, 16)


def test_record_is_plain_and_complete(celeba_of_100: Path) -> None:
    record = open_data(celeba_of_100, train_size=20).record()
    assert [len(record.pop(name)) for name in ("fingerprint", "annotation")] == [32, 32]
    assert {split: len(content) for split, content in record.pop("content").items()} == dict.fromkeys(SPLITS, 32)
    assert record == {
        "source": "celeba",
        "root": str(celeba_of_100),
        "crop": 148,
        "image_size": 16,
        "color": "rgb",
        "train_count": 20,
        "val_count": 10,
        "test_count": 10,
        "partition": "as listed",
        "subset_seed": 0,
        "horizontal_flip": False,
    }


def pixels_of(data: FaceDataModule, split: str) -> list[bytes]:
    return [image.tobytes() for image in data.split(split).images]


def test_splits_are_celebas_and_disjoint(celeba_of_100: Path) -> None:
    data = open_data(celeba_of_100)
    train, val, test = (pixels_of(data, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (80, 10, 10)
    assert len({*train, *val, *test}) == 100
    validated = torch.cat([batch["images"] for batch in data.val_dataloader()])
    assert [image.permute(1, 2, 0).numpy().tobytes() for image in validated] == val  # in order, and no test image


def test_attributes_go_with_their_images(celeba_of_100: Path) -> None:
    data = open_data(celeba_of_100, train_size=30)
    source = data.image_source
    assert data.attribute_names == source.attribute_names
    rows = data._select_rows(source, "train")
    for batch in data.train_dataloader():
        np.testing.assert_array_equal(batch["attributes"].numpy(), source.attributes[rows[batch["index"].numpy()]])


def test_subsets_are_seeded_sorted_and_nested(celeba_of_100: Path) -> None:
    def rows(**arguments: int) -> list[int]:
        data = open_data(celeba_of_100, **arguments)
        return data._select_rows(data.image_source, "train").tolist()

    assert rows(train_size=6) == [1, 41, 47, 51, 53, 61]  # known answer
    assert set(rows(train_size=6)) <= set(rows(train_size=20))
    assert rows(train_size=20) == sorted(rows(train_size=20))
    assert rows(train_size=20, subset_seed=1) != rows(train_size=20)
    assert rows(train_size=20, seed=1) == rows(train_size=20)


def test_more_than_there_are(celeba_of_100: Path) -> None:
    with pytest.raises(DataError, match=r"data\.val_size=11: .* has 10 val images"):
        open_data(celeba_of_100, val_size=11)


def test_held_out_faces_are_evenly_spaced_and_the_same_in_every_run(celeba_of_100: Path) -> None:
    data = open_data(celeba_of_100, seed=1)
    faces = data.held_out_faces("test", 4)
    assert [face.permute(1, 2, 0).numpy().tobytes() for face in faces] == [
        pixels_of(data, "test")[row] for row in (0, 3, 6, 9)
    ]
    assert torch.equal(faces, open_data(celeba_of_100, seed=2, batch_size=3).held_out_faces("test", 4))
    assert len(data.held_out_faces("val", 99)) == 10
    with pytest.raises(DataError, match="val or test"):
        data.held_out_faces("train", 1)


def test_source_celeba_needs_to_know_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs to know where CelebA is: set CELEBA_ROOT=.* or data\.root="):
        open_data(None, tmp_path, source="celeba")


@pytest.mark.parametrize("source", ["auto", "celeba"])
@pytest.mark.parametrize("how", ["root", "environment", "data_dir"])
def test_celeba_is_found_where_somebody_said(
    celeba_of_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("CELEBA_ROOT", str(celeba_of_100))
    root, directory = celeba_of_100 if how == "root" else None, celeba_of_100.parent if how == "data_dir" else tmp_path
    data = open_data(root, directory, source=source)
    assert data.record()["source"] == "celeba"
    assert data.record()["root"] == str(celeba_of_100)


@pytest.mark.parametrize("how", ["root", "environment", "data_dir"])
def test_auto_does_not_fall_back_from_a_damaged_celeba(
    tiny_celeba: Celeba, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    root = tiny_celeba(10)
    (root / "list_eval_partition.txt").unlink()
    if how == "environment":
        monkeypatch.setenv("CELEBA_ROOT", str(root))
    with pytest.raises(DataError, match=r"has no list_eval_partition\.txt"):
        open_data(root if how == "root" else None, tmp_path if how == "data_dir" else tmp_path / "elsewhere")


def test_auto_with_a_plain_folder_points_to_data_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(DataError, match=r"data=folder data\.root="):
        open_data(tmp_path / "images")


def test_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"{number}.jpg" for number in range(10)])
    data = open_data(tmp_path / "images", source="folder", crop=None)
    assert data.attribute_names == ()
    assert data.record()["source"] == "folder"
    assert data.record()["partition"] == "at random, seeded 80/10/10"
    assert "attributes" not in next(iter(data.train_dataloader()))
    with pytest.raises(DataError, match=r"say which: data\.root="):
        open_data(None, tmp_path, source="folder")


def test_noise_has_celebas_proportions(tmp_path: Path) -> None:
    data = open_data(None, tmp_path, source="noise", noise_count=200)
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [160, 20, 20]
    assert data.split("train").images.std() > 20
    assert not np.array_equal(data.split("train").images[0], data.split("train").images[1])
    whole = read_noise(202_599)
    assert [len(whole.split_rows(split)) for split in ("train", "val", "test")] == [162_770, 19_867, 19_962]


def loud_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(scope="module")
def faces_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faces")


def test_rendered_faces_are_used_aloud_when_nobody_said_where_celeba_is(
    faces_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_data(None, faces_dir, faces_count=20)
    data.setup("fit")
    data.setup("test")
    (line,) = loud_lines(caplog)
    assert "RENDERED" in line
    assert "CELEBA_ROOT=" in line
    assert data.record()["source"] == "faces"
    assert "Smiling" in data.attribute_names
    assert next(iter(data.train_dataloader()))["images"].shape == (8, 3, 16, 16)


def test_faces_asked_for_are_used_silently(faces_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_data(None, faces_dir, source="faces", faces_count=20).record()["source"] == "faces"
    assert loud_lines(caplog) == []
    open_data(faces_dir / "unused", faces_dir, source="faces", faces_count=20)
    assert "is ignored" in loud_lines(caplog)[0]


SQUARES = """
import numpy as np
from pathlib import Path
from vae_lightning.data.sources.noise import NoiseStore
from vae_lightning.data.sources.source import DataSource, ImageSource, SourceSettings

def read(settings: SourceSettings) -> ImageSource:
    names = tuple(f"{number}.jpg" for number in range(30))
    return ImageSource("KIND", settings.required_root(), names, np.arange(30, dtype=np.int8) % 3, NoiseStore())

SOURCE = DataSource("squares", read, has_root=True)
"""


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One file more among the data sources."""
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "more")])
    (tmp_path / "more").mkdir()
    data_sources.cache_clear()
    yield tmp_path / "more" / "squares.py"
    data_sources.cache_clear()
    sys.modules.pop("vae_lightning.data.sources.squares", None)


def test_a_file_among_the_sources_is_all_that_a_source_needs(squares: Path, tmp_path: Path) -> None:
    squares.write_text(SQUARES.replace("KIND", "squares"))
    data = open_data(tmp_path, tmp_path, source="squares")
    assert data.record()["source"] == "squares"
    assert len(data.split("test")) == 10
    record = {"config": {"data": {"crop": 148, "image_size": 16, "color": "rgb"}}, "data": data.record()}
    check_record(record, tmp_path / "best.ckpt")
    assert data_settings(record)["root"] == str(tmp_path)


def test_images_that_name_another_source_are_refused(squares: Path, tmp_path: Path) -> None:
    squares.write_text(SQUARES.replace("KIND", "circles"))
    with pytest.raises(DataError, match=r"squares.*'circles'"):
        open_data(tmp_path, tmp_path, source="squares")


class Recorder(LightningModule):
    """Writes down what it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[int]]] = {"train": [], "val": [], "test": []}
        self.mirrored: dict[str, list[bool]] = {"train": [], "val": [], "test": []}

    def record(self, split: str, batch: dict[str, Tensor]) -> None:
        assert "flip" not in batch
        index = batch["index"]
        self.seen[split].append(index.tolist())
        originals = self.trainer.datamodule.split(split).gather(index.numpy())
        for image, original in zip(batch["images"], originals, strict=True):
            self.mirrored[split].append(not torch.equal(image, original))
            assert torch.equal(image, original) or torch.equal(image, original.flip(-1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.record("train", batch)
        return self.weight * 1.0

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.record("val", batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.record("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def quiet_trainer(epochs: int, **arguments: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **arguments,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 with torch 2.15
@pytest.mark.parametrize("residence", ["host", "device"])
def test_a_lightning_run_is_fed_as_promised(celeba_of_100: Path, residence: str) -> None:
    data = FaceDataModule(root=str(celeba_of_100), data_dir=str(celeba_of_100.parent), image_size=16, batch_size=8,
                          horizontal_flip=True, eval_batch_size=4, seed=5, residence=residence)  # fmt: skip
    recorder, trainer = Recorder(), quiet_trainer(epochs=2)
    trainer.fit(recorder, datamodule=data)
    trainer.test(recorder, datamodule=data, verbose=False)
    first, second = recorder.seen["train"][:10], recorder.seen["train"][10:]
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(80))
    assert first != second  # set_epoch was called
    assert 40 < sum(recorder.mirrored["train"]) < 120
    assert recorder.seen["val"] == 2 * [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert recorder.seen["test"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert not any(recorder.mirrored["val"] + recorder.mirrored["test"])
    again = Recorder()
    quiet_trainer(epochs=2).fit(again, datamodule=data)
    assert (again.seen["train"], again.mirrored["train"]) == (recorder.seen["train"], recorder.mirrored["train"])


@pytest.mark.celeba
def test_the_real_sample(celeba_root: Path, tmp_path: Path) -> None:
    data = open_data(celeba_root, tmp_path, image_size=64, train_size=500, val_size=100, test_size=100)
    batch = next(iter(data.train_dataloader()))
    assert batch["images"].shape == (8, 3, 64, 64)
    assert 80 < batch["images"].float().mean() < 180
    assert data.held_out_faces("val", 8).shape == (8, 3, 64, 64)


def test_image_names_are_those_of_the_batch(celeba_of_100: Path) -> None:
    data = open_data(celeba_of_100, train_size=20, subset_seed=3)
    whole = data.image_source
    for batch in data.train_dataloader():
        for name, image in zip(data.image_names("train", batch["index"]), batch["images"], strict=True):
            from_file = data.preprocessing((celeba_of_100 / "img_align_celeba" / name).read_bytes())
            assert torch.equal(from_file.permute(2, 0, 1), image)
            assert whole.partition[whole.filenames.index(name)] == 0


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*overfit")
def test_overfit_batches_is_refused(celeba_of_100: Path) -> None:
    data = FaceDataModule(root=str(celeba_of_100), data_dir=str(celeba_of_100.parent), image_size=16, batch_size=8)
    with pytest.raises(DataError, match=r"overfit_batches: .* use data\.train_size"):
        quiet_trainer(1, overfit_batches=2).fit(Recorder(), datamodule=data)
