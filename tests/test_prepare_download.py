"""`vae prepare --download`: what arrives, what is kept, and what is said when Google Drive does not give it."""

import hashlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from test_celeba import to_zip
from test_prepare import run
from torchvision.datasets import CelebA

from vae_lightning.data.preparation.download import FOLDERS


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


class NoAccessError(Exception):
    """Stands for gdown's FileURLRetrievalError."""


class Drive:
    """Google Drive as gdown shows it: files by id, some of which it does not give."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.exceptions = types.SimpleNamespace(FileURLRetrievalError=NoAccessError, DownloadError=NoAccessError)

    def download(self, *, id: str, output: str, **_: object) -> str:
        self.asked.append(id)
        if id in self.failures:
            raise self.failures[id]
        Path(output).write_bytes(self.files[id])
        return output


@pytest.fixture
def drive(tiny_celeba: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Drive:
    """It has a tiny CelebA, whose checksums are taken for the official ones."""
    origin = to_zip(tiny_celeba(30, name="origin"))
    contents = {name: (origin / name).read_bytes() for name in FOLDERS}
    monkeypatch.setattr(CelebA, "file_list", [(n, hashlib.md5(c).hexdigest(), n) for n, c in contents.items()])
    drive = Drive(contents)
    monkeypatch.setitem(sys.modules, "gdown", drive)
    return drive


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.is_file() else b"" for path in folder.iterdir()}


def test_a_download_brings_all_and_a_second_one_nothing(drive: Drive) -> None:
    output = run(0, "--download", "--no-cache")
    assert output.index("non-commercial research only") < output.index("30 images that were decoded are whole")
    assert output.count("same as the official file") == 4
    assert files_in(Path("data/celeba")) == drive.files
    assert "Train on it:\n  vae train\n" in output
    drive.asked.clear()
    assert "already: nothing to download" in run(0, "--download", "--no-cache")
    assert drive.asked == []
    Path("data/celeba/identity_CelebA.txt").unlink()
    run(0, "--download", "--no-cache")
    assert drive.asked == ["identity_CelebA.txt"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (NoAccessError("Too many users have viewed"), "so many downloads of a file per day"),
        (ConnectionError("no route to host"), "Is there a connection to the internet?"),
    ],
)
def test_a_failed_download_ends_with_the_steps_by_hand(drive: Drive, failure: Exception, said: str) -> None:
    drive.failures["img_align_celeba.zip"] = failure
    output = run(1, "there", "--download")
    assert said in output
    assert str(failure) in output
    steps = output[output.index("By hand") :]
    assert "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in steps
    assert "img_align_celeba.zip   from the folder Img/" in steps
    assert "list_attr_celeba.txt" not in steps
    assert files_in(Path("there")) == {name: drive.files[name] for name in list(FOLDERS)[:-1]}


def test_what_arrives_damaged_is_removed(drive: Drive) -> None:
    drive.files = {**drive.files, "list_attr_celeba.txt": b"<html>Quota exceeded</html>"}
    assert "list_attr_celeba.txt arrived with a wrong checksum and was removed" in run(1, "there", "--download")
    assert set(files_in(Path("there"))) == {"list_eval_partition.txt"}


def test_another_file_of_that_name_is_not_touched(drive: Drive) -> None:
    Path("there").mkdir()
    Path("there/list_attr_celeba.txt").write_text("my own")
    assert "Move it away" in run(1, "there", "--download")
    assert files_in(Path("there")) == {"list_attr_celeba.txt": b"my own"}
    assert drive.asked == []


def test_without_gdown_it_says_how_to_install_it(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    output = run(1, "there", "--download")
    assert "pip install -e '.[download]'" in output
    assert "uv sync --extra download" in output
    assert "By hand" in output
    assert not Path("there").exists()
