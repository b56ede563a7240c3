"""`vae export --push`, against a hub on this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_hub import ORGANISATION, OWNER, TOKEN, StandInHub, stand_in_hub
from tiny_runs import PRIVATE, write_run
from typer.testing import CliRunner

from vae_lightning.cli.app import app
from vae_lightning.runs.layout import EXPORTED_WEIGHTS

huggingface_hub = pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.extra


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    with stand_in_hub() as there:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield there
        huggingface_hub.close_session()


def vae(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_all_files_go_up_in_one_private_commit(hub: StandInHub, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    output = vae("export", write_run(tmp_path / "run"), folder, "--push", f"{OWNER}/faces")
    repository = hub.repositories[f"{OWNER}/faces"]
    assert repository["private"] is True
    (files,) = repository["commits"]
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert f'load_run(snapshot_download("{OWNER}/faces"))'.encode() in files["README.md"]
    assert not any(PRIVATE.encode() in content for content in files.values())
    assert "non-commercial" in output
    assert f"{hub.address}/{OWNER}/faces" in output


def test_what_is_pushed_again_is_a_second_commit_as_public_as_before(hub: StandInHub, tmp_path: Path) -> None:
    run, name = write_run(tmp_path / "run"), f"{ORGANISATION}/faces"
    vae("export", run, tmp_path / "first", "--push", name, "--public")
    assert hub.repositories[name]["private"] is False
    assert "say --public" in vae("export", run, tmp_path / "second", "--push", name, code=2)
    assert not (tmp_path / "second").exists()
    vae("export", run, tmp_path / "second", "--push", name, "--public")
    assert len(hub.repositories[name]["commits"]) == 2
    hub.repositories[name]["private"] = True
    assert "private: leave out --public" in vae("export", run, tmp_path / "third", "--push", name, "--public", code=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("faces", "needs OWNER/NAME"),
        ("a/b/c", "needs OWNER/NAME"),
        ("stranger/faces", f"may write to {OWNER}, {ORGANISATION}"),
    ],
)
def test_where_one_may_not_write_nothing_is_exported(hub: StandInHub, tmp_path: Path, name: str, message: str) -> None:
    output = vae("export", write_run(tmp_path / "run"), tmp_path / "exported", "--push", name, code=2)
    assert message in output.replace("\n", " ")
    assert not (tmp_path / "exported").exists()
    assert not hub.repositories


def test_tokens_are_looked_at_first(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("export", write_run(tmp_path / "run"), tmp_path / "exported", "--push", f"{OWNER}/faces")
    hub.role = "read"
    assert "may only read" in vae(*arguments, code=2)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "token is not valid" in vae(*arguments, code=2)
    monkeypatch.delenv("HF_TOKEN")
    assert "set HF_TOKEN" in vae(*arguments, code=2)
    assert not (tmp_path / "exported").exists()


def test_what_the_hub_refuses_in_the_end_stays_exported(hub: StandInHub, tmp_path: Path) -> None:
    hub.may_create = False
    arguments = ("export", write_run(tmp_path / "run"), tmp_path / "exported", "--push", f"{OWNER}/faces")
    output = vae(*arguments, code=2).replace("\n", " ")
    assert "no right to write there" in output
    assert "rights to create a model" in output
    assert (tmp_path / "exported" / EXPORTED_WEIGHTS).is_file()


def test_no_network(hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        run = write_run(tmp_path / "run")
        assert "cannot be reached" in vae("export", run, tmp_path / "exported", "--push", f"{OWNER}/faces", code=2)
    assert not hub.requests
