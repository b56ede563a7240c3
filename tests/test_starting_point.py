"""Where a run begins: anew, at a checkpoint that is named, or where it was stopped; and whose folder it writes to."""

from pathlib import Path
from typing import Any

import pytest
from test_sweep import composed
from written_sweeps import write_status

from vae_lightning.launch import train
from vae_lightning.runs.identity import identity_of
from vae_lightning.runs.layout import RunError


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The checkpoint of each training that would have begun."""
    started: list[str | None] = []

    def begin(config: Any) -> dict[str, float]:
        started.append(config.ckpt_path)
        return {"val/loss": 1.0}

    monkeypatch.setattr(train, "train", begin)
    return started


def test_what_started_from_a_named_checkpoint_goes_on_from_its_own(tmp_path: Path, starts: list[str | None]) -> None:
    command = [f"run_dir={tmp_path}", "ckpt_path=elsewhere.ckpt"]
    train.train_unless_done(composed(*command), in_sweep=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    write_status(tmp_path, "running", identity=identity_of(composed(*command)))
    train.train_unless_done(composed(*command), in_sweep=False)
    (tmp_path / "metrics.json").write_text('{"val/loss": 1.0}')
    train.train_unless_done(composed(*command), in_sweep=False)
    assert starts == ["elsewhere.ckpt", "last"]  # and at last it was done


@pytest.mark.parametrize("other", ["beta=7", "ckpt_path=another.ckpt", "beta=7 ckpt_path=another.ckpt"])
def test_another_run_is_not_overwritten_by_one_that_starts_from_a_checkpoint(
    other: str, tmp_path: Path, starts: list[str | None]
) -> None:
    write_status(tmp_path, "done", identity=identity_of(composed("ckpt_path=elsewhere.ckpt")))
    with pytest.raises(RunError, match="holds a run with other settings"):
        train.train_unless_done(composed(f"run_dir={tmp_path}", *other.split()), in_sweep=False)
    assert not starts


@pytest.mark.parametrize("name", ["last", "{folder}/checkpoints/best.ckpt"])
def test_a_run_goes_on_from_its_own_checkpoints_with_other_settings(
    name: str, tmp_path: Path, starts: list[str | None]
) -> None:
    write_status(tmp_path, "done", identity="another")
    named = name.format(folder=tmp_path)
    train.train_unless_done(composed(f"run_dir={tmp_path}", "beta=7", f"ckpt_path={named}"), in_sweep=False)
    assert starts == [named]
