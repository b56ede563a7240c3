"""Disks that are full, that fill up meanwhile, that are read-only: one clear line, and nothing half-written."""

import errno
import logging
import pickle
import re
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import write_celeba
from processes import SMALL, start_training, train, wait_for
from small_disks import SmallDisk, small_disk
from tiny_runs import write_run
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from callbacks import WholeCheckpoints, quieten_event_writer
from vae_lightning.cli.app import app
from vae_lightning.data import DataError, FaceDataModule
from vae_lightning.data.rendering.dataset import render_faces
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.launch.command_line import check_place
from vae_lightning.runs.fitted import statistics_file
from vae_lightning.runs.status import read_status, state_of
from vae_lightning.system.terminal import LogFile
from vae_lightning.system.whole_files import (
    StorageError,
    check_writable,
    replacing,
    storage_error,
    write_bytes,
    write_json,
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "128k") as mounted:
        yield mounted


@pytest.mark.parametrize("write", [write_bytes, lambda path, content: write_json(path, content.decode())])
def test_what_is_there_stays_where_there_is_no_room_for_more(
    write: Callable[[Path, bytes], None], disk: SmallDisk
) -> None:
    place = disk.folder / "new" / "file"
    write(place, b"good")
    before = place.read_bytes()
    with pytest.raises(
        StorageError, match=r"new/file cannot be written: no space left, 0\.1 MB free there\. Make room"
    ):
        write(place, bytes(200_000))
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == ["file"]


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: SmallDisk) -> None:
    place = disk.folder / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"weights": torch.ones(10)}, place)
    with pytest.raises(StorageError, match=r"last\.ckpt cannot be written: no space left"):
        WholeCheckpoints().save_checkpoint({"weights": torch.ones(100_000)}, place)
    assert torch.equal(torch.load(place, weights_only=True)["weights"], torch.ones(10))
    file = statistics_file(place)
    with pytest.raises(StorageError, match=r"last\.latents\.pt cannot be written: no space left"):
        file.write(LatentStatistics(*(torch.zeros(20_000) for _ in range(3))))
    assert [path.name for path in disk.folder.iterdir()] == ["last.ckpt"]


def test_a_limit_of_file_sizes_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="larger than its file system or `ulimit -f` allows"):
            write_bytes(tmp_path / "file", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_place_is_refused_before_anything_is_computed(disk: SmallDisk) -> None:
    disk.remount("ro")
    for folder in (disk.folder, disk.folder / "a" / "b"):
        with pytest.raises(StorageError, match=rf"{folder} cannot be written: the file system is read-only"):
            check_writable(folder)
    with pytest.raises(StorageError, match="read-only; choose another place"):
        check_place([f"hydra.run.dir='{disk.folder / 'run'}'"])
    check_place([f"hydra.run.dir='{disk.folder / 'run'}'", "--cfg", "job"])  # writes nothing
    with pytest.raises(StorageError, match="read-only"), replacing(disk.folder / "file") as unfinished:
        unfinished.touch()


def test_a_full_disk_is_refused_before_anything_is_computed(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(StorageError, match=r"no space left, 0\.0 MB free"):
        check_place([f"hydra.sweep.dir={disk.folder}/sweep", "-m"])
    assert [path.name for path in disk.folder.iterdir()] == ["filling"]


def test_the_first_of_a_chain_of_errors_is_told(tmp_path: Path) -> None:
    """While the run ends because a checkpoint could not be written, its status cannot be written either."""
    with pytest.raises(OSError, match="space") as caught:  # noqa: PT012
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "tmp", None, "checkpoints/best.ckpt")
        except OSError:
            raise StorageError(errno.ENOSPC, "No space left on device", "status.json") from None
    told = storage_error(caught.value, tmp_path)
    assert str(told).startswith("checkpoints/best.ckpt cannot be written: no space left")
    assert str(pickle.loads(pickle.dumps(told))) == str(told)  # as Ray brings it
    assert str(storage_error(OSError(errno.EDQUOT, "quota"), tmp_path)).startswith(f"{tmp_path} cannot be written")
    assert storage_error(FileNotFoundError(errno.ENOENT, "nothing there"), tmp_path) is None
    assert storage_error(ValueError("no number"), tmp_path) is None


def test_lines_that_are_missing_in_the_log_are_mentioned_once(
    disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.Logger("full")
    file = LogFile(str(disk.folder / "train.log"), encoding="utf-8")
    log.addHandler(file)
    log.warning("first")
    filling = disk.fill()
    for _ in range(50):
        log.warning("more" * 1000)
    filling.unlink()
    file.close()
    assert "first" in (disk.folder / "train.log").read_text()
    assert capsys.readouterr().err == f"{disk.folder}/train.log: No space left on device, so lines are missing in it\n"


def test_events_that_cannot_be_written_end_the_training_without_a_second_word(
    disk: SmallDisk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard writes in a thread of its own, whose errors Python would print as a traceback."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    quieten_event_writer()
    writer = SummaryWriter(str(disk.folder))
    disk.fill()
    with pytest.raises(OSError, match="space") as caught:  # noqa: PT012
        for step in range(100):
            writer.add_text("much", "x" * 1000, step)
            writer.flush()
    assert storage_error(caught.value, disk.folder) is not None
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "RUN"],
        ["reconstruct", "RUN", "PICTURE"],
        pytest.param(["export", "RUN", "DISK/exported"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_verbs_end_with_one_line(words: list[str], disk: SmallDisk, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (picture,) = (write_celeba(tmp_path / "celeba", 1) / "img_align_celeba").iterdir()
    places = {"RUN": str(run), "PICTURE": str(picture), "DISK/exported": str(disk.folder / "exported")}
    command = [places.get(word, word) for word in words]
    if "export" not in words:
        command += ["--out", str(disk.folder / "picture.png")]
    disk.fill()
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 1
    (line,) = ended.stderr.strip().splitlines()
    assert "cannot be written: no space left, 0.0 MB free" in line
    assert [path.name for path in disk.folder.iterdir()] == ["filling"]


def test_data_that_do_not_fit_leave_nothing(disk: SmallDisk, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="space") as caught:
        render_faces(disk.folder / "faces", count=40, num_workers=1)
    assert str(storage_error(caught.value, tmp_path)).startswith(f"{disk.folder}/faces cannot be written: no space")
    root = write_celeba(tmp_path / "celeba", 30)
    with pytest.raises(DataError, match=r"no space left in .* for the decoded images"):
        FaceDataModule("celeba", str(root), data_dir=str(disk.folder)).prepare_data()
    assert not [path for path in disk.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


QUICK = [*SMALL, "trainer.precision=32-true", "trainer.enable_progress_bar=false", "trainer.max_epochs=2"]


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return weights


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = write_celeba(tmp_path_factory.mktemp("celeba"), 60)
    return [*QUICK, f"data.root={root}", f"data.data_dir={root / 'data'}"]


@pytest.fixture(scope="module")
def uninterrupted(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(*quick, "hydra.run.dir=run", cwd=folder)
    return last_weights(folder / "run")


def assert_same(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.nightly
@pytest.mark.process
@pytest.mark.parametrize(
    ("size", "what"),
    [
        ("90k", r"run.* cannot be written"),  # TensorBoard's events
        ("6m", r"checkpoints/last\.ckpt cannot be written"),
        ("10200k", r"run.* cannot be written"),  # pictures of the second epoch
    ],
)
def test_training_ends_with_one_line_and_goes_on_when_there_is_room(
    size: str, what: str, quick: list[str], uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        run = disk.folder / "run"
        command = [*quick, f"hydra.run.dir={run}"]
        errors = train(*command, cwd=tmp_path, expect=1).stderr
        assert re.search(rf"{what}: no space left, \d\.\d MB free there\. Make room", errors), errors
        assert "Traceback" not in errors
        assert disk.hidden_files() == []
        for checkpoint in run.glob("checkpoints/*"):
            torch.load(checkpoint, weights_only=True)
        disk.remount("size=40m")
        train(*command, cwd=tmp_path)
        assert state_of(run) == "done"
        assert_same(uninterrupted, last_weights(run))


@pytest.mark.nightly
@pytest.mark.process
def test_a_disk_that_fills_up_under_way_costs_no_checkpoint(quick: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "60m") as disk:
        run = disk.folder / "run"
        command = [*quick, f"hydra.run.dir={run}", "trainer.max_epochs=100000", "callbacks=[checkpoint]"]
        process = start_training(*command, cwd=tmp_path)
        wait_for((run / "checkpoints" / "last.ckpt").is_file)
        filling = disk.fill()
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 1, output
        assert "cannot be written: no space left" in output
        assert f"Then resume it with: vae train ckpt_path=last hydra.run.dir={run}\n" in output
        assert "Traceback" not in output
        assert state_of(run) in ("failed", "interrupted")
        epoch = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
        filling.unlink()
        how = ["ckpt_path=last", f"hydra.run.dir={run}", f"trainer.max_epochs={epoch + 3}"]
        train(*how, cwd=tmp_path)
        assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == epoch + 2


@pytest.mark.nightly
@pytest.mark.process
def test_a_sweep_stops_on_a_full_disk_and_goes_on(quick: list[str], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        sweep = disk.folder / "sweep"
        command = ["-m", "beta=1,4", f"hydra.sweep.dir={sweep}", *quick, "callbacks=[checkpoint]", "logger=[csv]"]
        errors = train(*command, cwd=tmp_path, expect=1).stderr
        assert "cannot be written: no space left" in errors
        assert "not started  beta=4" in errors
        assert "Traceback" not in errors
        assert "no space left" in read_status(sweep / "beta=1")["reason"]
        disk.remount("size=60m")
        assert "2 done" in train(*command, cwd=tmp_path).stderr
