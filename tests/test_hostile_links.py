"""Links, pipes and folders of others in a run folder: nothing is written outside of it, and nothing is waited for."""

import os
from pathlib import Path

import pytest
from tiny_runs import checkpoint, write_run
from written_sweeps import measured, write_job

from vae_lightning.evaluation.evaluate import evaluate_run
from vae_lightning.evaluation.request import Request
from vae_lightning.launch.command_line import prepare_command_line
from vae_lightning.launch.configuration import CONF_DIR
from vae_lightning.report import write_report
from vae_lightning.runs.layout import EDITS, EVALUATION, IMAGES, RunError, results_folder

IN_A_RUN = [
    *("checkpoints", ".hydra", "images", "images/reconstruction", "evaluation", "edits/attribute", "new"),
    *(
        "train.log",
        "metrics.csv",
        ".lock",
        "status.json",
        "hparams.yaml",
        "checkpoints/best.ckpt",
        ".hydra/config.yaml",
    ),
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another run, whose files must stay as they are."""
    write_run(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "metrics.csv").write_text("step\n1\n")
    return tmp_path / "elsewhere"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_link(link: Path, target: Path | str) -> None:
    """A link in the place of whatever is there."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists():
        link.rename(link.with_name("before"))
    link.symlink_to(target)


@pytest.mark.parametrize("name", IN_A_RUN)
def test_a_link_out_of_a_run_folder_is_refused_before_training(
    name: str, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    target = elsewhere / "metrics.csv" if "." in Path(name).name else elsewhere / "checkpoints"
    put_link(run / name, target)
    before = contents(elsewhere)
    with pytest.raises(SystemExit):
        prepare_command_line([f"hydra.run.dir={run}", "beta=4"], CONF_DIR)
    said = capsys.readouterr().err
    assert f"{run / name} leads out of {run}, to {target}" in said
    assert said.count("\n") == 1
    assert contents(elsewhere) == before


@pytest.mark.parametrize("target", ["../elsewhere", "../not/there/yet", "checkpoints/../../elsewhere"])
def test_no_way_of_writing_a_link_leads_out(target: str, elsewhere: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    put_link(run / "images", target)
    with pytest.raises(RunError, match="leads out of"):
        results_folder(checkpoint(run), IMAGES)
    assert elsewhere.is_dir()


def test_links_within_a_run_and_to_a_run_are_allowed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    put_link(run / "checkpoints" / "again.ckpt", "best.ckpt")
    put_link(run / "loop", "loop")
    (tmp_path / "newest").symlink_to(run)
    assert prepare_command_line([f"hydra.run.dir={tmp_path / 'newest'}"], CONF_DIR)
    assert results_folder(checkpoint(tmp_path / "newest"), EDITS, "swap") == tmp_path / "newest" / "edits" / "swap"


@pytest.mark.parametrize("name", ["metrics.csv", "train.log", ".hydra/overrides.yaml"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    (run / ".hydra").mkdir()
    os.mkfifo(run / name)
    with pytest.raises(SystemExit):
        prepare_command_line([f"hydra.run.dir={run}"], CONF_DIR)
    assert f"{run / name} is a pipe, a socket or a device" in capsys.readouterr().err


def test_verbs_write_their_results_into_the_run_only(elsewhere: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    before = contents(elsewhere)
    for names in ([EVALUATION], [IMAGES], [EDITS], [EDITS, "attribute"]):
        put_link(Path(run, names[0]), elsewhere)
        with pytest.raises(RunError, match=f"{names[-1]} leads out of"):
            results_folder(checkpoint(run), *names)
        if names == [EVALUATION]:
            with pytest.raises(ValueError, match="evaluation leads out of"):
                evaluate_run(run, Request(metrics=("latents",)))
        Path(run, names[0]).unlink()
    assert contents(elsewhere) == before


def test_a_sweep_writes_its_report_and_its_jobs_into_itself(
    elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    write_job(sweep, ["beta=1"], measured(-100.0, 0.02), beta=1.0)
    before = contents(elsewhere)
    put_link(sweep / "report", elsewhere)
    with pytest.raises(RunError, match="report leads out of"):
        write_report(sweep)
    (sweep / "report").unlink()
    put_link(sweep / "beta=4", elsewhere)
    with pytest.raises(SystemExit):
        prepare_command_line(["-m", "beta=4", f"hydra.sweep.dir={sweep}"], CONF_DIR)
    assert "beta=4 leads out of" in capsys.readouterr().err
    assert contents(elsewhere) == before
