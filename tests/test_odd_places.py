"""Folders with names that shells and hydra take for something else, home folders, clocks that lie."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processes import ROOT, SMALL, run, start_training, train, wait_for
from small_disks import SmallDisk, small_disk
from tiny_runs import write_run
from typer.testing import CliRunner

from callbacks import Events
from vae_lightning.cli.app import app
from vae_lightning.data import FaceDataModule
from vae_lightning.launch import command_line
from vae_lightning.launch.command_line import prepare_command_line, resume_last_run
from vae_lightning.launch.configuration import CONF_DIR
from vae_lightning.launch.overrides import path_override, quote_paths, typed_path
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.sweep.progress import read_progress, time_left
from vae_lightning.runs.fitted import digest_of
from vae_lightning.runs.layout import newest_run, newest_sweep
from vae_lightning.system.terminal import make_output_safe

ODD = "o d=d, [é] 'q' %s $HOME #x e\N{COMBINING ACUTE ACCENT} 顔 (2) {a} \"z\" & ; 100%"
PATHS = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=("Cs",)), min_size=1)


@settings(max_examples=25, deadline=None)
@given(PATHS)
@example(ODD)
@example("a\\'b\\")
@example("2024")
@example("true")
@example(" space ")
def test_hydra_reads_any_path_as_it_was_typed(path: str) -> None:
    if "${" in path or path == "null" or path.startswith("~") or (path[0] == path[-1] and path[0] in "'\""):
        return
    if re.search(r"^(choice|range|interval|glob|sort|shuffle|tag)\(.*\)$", path):
        return
    (quoted,) = quote_paths([f"data.root={path}"], sweeps=False)
    read = OverridesParser.create().parse_overrides([quoted, path_override("data.data_dir", path)])
    assert [override.value() for override in read] == [path, path]
    assert str(typed_path(quoted)) == str(Path(path))
    assert quote_paths([quoted], sweeps=False) == [quoted]


def test_home_and_lists_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo e")
    monkeypatch.chdir(tmp_path)

    def quoted(argument: str, *, sweeps: bool = False) -> str:
        return quote_paths([argument], sweeps=sweeps)[0]

    assert quoted("hydra.run.dir=~/x") == "hydra.run.dir=/home/jo e/x"
    assert quoted("hydra.run.dir='~/é'") == "hydra.run.dir='/home/jo e/é'"
    assert quoted("data.root=~/é,b", sweeps=True) == "data.root='/home/jo e/é',b"
    assert quoted("data.root='a','b'", sweeps=True) == "data.root='a','b'"
    assert quoted("data.root=a,b") == "data.root='a,b'"
    (tmp_path / "a,b").mkdir()
    assert quoted("data.root=a,b", sweeps=True) == "data.root='a,b'"
    for kept in ("data.root=null", "data.root=${x}/é", "data.root=glob(*)", "ckpt_path=last", "beta=1,2", "-m"):
        assert quoted(kept, sweeps=True) == kept
    with pytest.raises(
        ConfigError, match=r"there is no user nobody_here here; a folder of that name is ./~nobody_here"
    ):
        quoted("data.root=~nobody_here/x")


def test_the_folder_of_a_run_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "keep_settings", lambda run_dir, kept, *others: kept)
    folder = tmp_path / ODD
    for part in ("checkpoints", ".hydra"):
        (folder / part).mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / ".hydra" / "overrides.yaml").write_text("- beta=4\n")
    command = ["ckpt_path=last", f"hydra.run.dir={folder}"]
    prepared = prepare_command_line(command, CONF_DIR)
    assert prepared[0] == "beta=4"
    assert typed_path(prepared[-1]) == folder
    sweep = "u\N{COMBINING DIAERESIS}bung"  # as macOS writes it
    words = prepare_command_line(["-m", "beta=1,4", f"sweep={sweep}"], CONF_DIR)
    assert f"sweep='{sweep}'" in words
    shutil.copytree(folder, tmp_path / "outputs" / "it's")
    assert typed_path(resume_last_run(["ckpt_path=last"])[-1]) == Path("outputs/it's")


LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    "words", [[f"data.root={LATIN}"], [f"hydra.run.dir=a/{LATIN}/b"], ["-m", "beta=1,4", f"sweep={LATIN}"]]
)
def test_a_training_refuses_names_that_are_not_utf_8(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / LATIN).mkdir()
    for folder, arguments in ((tmp_path, words), (tmp_path / LATIN, ["beta=1"])):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit, match="2"):
            prepare_command_line(arguments, CONF_DIR)
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(r"caf\\xe9.*: this name is not UTF-8.*convmv -r -f latin1 -t utf8", line)
        assert list(folder.iterdir()) == ([tmp_path / LATIN] if folder == tmp_path else [])


@pytest.mark.parametrize("arguments", [[LATIN], [ODD, LATIN, "b.png"], [ODD, "--out", LATIN]])
def test_verbs_refuse_names_that_are_not_utf_8(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / ODD)
    refused = CliRunner().invoke(app, ["reconstruct", *arguments])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("caf\\xe9: this name is not UTF-8")


def test_the_flag_of_a_sweep_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["beta=1,4", "-m"], ["-m", "beta=1,4"], ["seed=0", "--multirun", "beta=1,4"]):
        prepared = prepare_command_line([*words, "sweep=s"], CONF_DIR)
        assert prepared[0] in ("-m", "--multirun")
        assert sorted(words) == sorted(word for word in prepared if word in words)


def test_events_lie_in_the_run_folder_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VARIABLE", "elsewhere")
    for name in ("$VARIABLE", "~", "a b"):
        assert Path(Events(str(tmp_path / name)).log_dir) == tmp_path / name


def test_verbs_know_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells replace `~` at the start of a word, and not in `--out=~/x`."""
    write_run(tmp_path / ODD)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    drawn = CliRunner().invoke(app, ["sample", f"~/{ODD}", "--out=~/new/é.png", "--count", "2"])
    assert drawn.exit_code == 0, drawn.stderr
    assert (tmp_path / "new" / "é.png").is_file()
    refused = CliRunner().invoke(app, ["sample", "~nobody_here/run"])
    assert (refused.exit_code, refused.stderr.strip()) == (
        2,
        "~nobody_here/run: there is no user nobody_here here; a folder of that name is ./~nobody_here",
    )


def test_a_relative_or_linked_folder_of_data_is_decoded_once(
    tiny_celeba: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(20)
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "below").mkdir()
    for here, place in ((tmp_path, str(root)), (tmp_path / "below", "../celeba"), (tmp_path, "link")):
        monkeypatch.chdir(here)
        FaceDataModule("celeba", place, image_size=32, data_dir=str(tmp_path / "data")).prepare_data()
    assert len(list((tmp_path / "data" / "cache").glob("*/images.npy"))) == 3  # one of each split


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "100m") as mounted:
        yield mounted


def test_data_that_can_only_be_read_are_enough(
    disk: SmallDisk, tiny_celeba: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(tiny_celeba(20), disk.folder / "celeba"))
    in_cache = FaceDataModule("celeba", str(root), image_size=32, data_dir=str(disk.folder / "data"))
    in_cache.prepare_data()
    disk.remount("ro")
    elsewhere = FaceDataModule("celeba", str(root), image_size=32, data_dir=str(tmp_path / "data"))
    again = FaceDataModule("celeba", str(root), image_size=32, data_dir=str(disk.folder / "data"))
    for data in (elsewhere, again):
        data.prepare_data()
        assert (data.split("train").images == in_cache.split("train").images).all()
    with pytest.raises(OSError, match=r"[Rr]ead-only"):
        FaceDataModule("celeba", str(root), image_size=64, data_dir=str(disk.folder / "data")).prepare_data()


def test_last_is_named_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where clocks lie nothing can tell which run is the last; so the program says which it took."""
    monkeypatch.chdir(tmp_path)
    for name in ("b", "c", "a"):
        checkpoints, hydra = Path("outputs", name, "checkpoints"), Path("multirun", name, "job", ".hydra")
        for file in (checkpoints / "last.ckpt", hydra / "overrides.yaml"):
            file.parent.mkdir(parents=True)
            file.touch()
            os.utime(file, (1000, 1000))
    assert newest_run() == Path("outputs/c")
    assert newest_sweep() == Path("multirun/c")
    tomorrow = time.time() + 86_400  # written while the clock was a day ahead
    os.utime("outputs/a/checkpoints/last.ckpt", (tomorrow, tomorrow))
    assert newest_run() == Path("outputs/a")
    assert capsys.readouterr().err == "last: outputs/c\nlast: multirun/c\nlast: outputs/a\n"


def test_a_clock_that_was_set_back_gives_no_time_left(tmp_path: Path) -> None:
    names = ["a", "b"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "status.json").write_text('{"state": "done"}')
    started = time.time() + 86_400
    plan = {"in_session": names, "trials": None, "jobs": [], "work_at_start": 2.0, "started": started}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    assert time_left(tmp_path, read_progress(tmp_path)) == ""


def test_another_file_of_the_same_moment_has_another_digest(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / content).write_text(content)
        (tmp_path / content).replace(tmp_path / "best.ckpt")
        os.utime(tmp_path / "best.ckpt", (1000, 1000))
        digest = digest_of(tmp_path / "best.ckpt")
        (tmp_path / f"{content}.digest").write_text(digest)
    assert (tmp_path / "one.digest").read_text() != (tmp_path / "two.digest").read_text()


def through_bash(line: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return run("bash", "-c", line, cwd=cwd, PATH=path).stdout


@pytest.mark.nightly
@pytest.mark.process
def test_what_the_program_prints_works_when_pasted(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    place = tmp_path / ODD
    root = Path(shutil.move(tiny_celeba(60), place / "celeba"))
    command = [*SMALL, f"data.root={root}", f"data.data_dir={place / 'data'}", "trainer.max_epochs=100000"]
    process = start_training(*command, f"hydra.run.dir={place}/it's", "callbacks=[checkpoint]", cwd=place)
    wait_for((place / "it's" / "checkpoints" / "last.ckpt").is_file)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert {path.name for path in tmp_path.iterdir()} == {ODD}  # nothing lies elsewhere
    epochs = sum("val" in line for line in (place / "it's" / "metrics.csv").read_text().splitlines())
    (resume,) = re.findall(r"Resume it with: (.*)", output)
    finished = run("bash", "-c", f"{resume} trainer.max_epochs={epochs + 100} >&2", cwd=place, PATH=bash_path())
    (uses,) = re.findall(r"Use it      (.*)", finished.stderr)
    sample, evaluate, _ = uses.split("  and  ")
    assert (place / through_bash(sample, place).strip()).is_file()
    assert "card.md" in through_bash(f"{evaluate} --metrics likelihood", place)
    (dashboard,) = re.findall(r"Dashboard   (.*)", finished.stderr)
    assert_serves(f"{dashboard} --port 0", place)


def bash_path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def assert_serves(command: str, cwd: Path) -> None:
    """TensorBoard, on a port that it finds itself."""
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": bash_path()},
    )
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        if "http://" in line:
            break
    server.terminate()
    server.communicate(timeout=60)
    assert re.search(r"http://localhost:\d+/", said), said


@pytest.mark.nightly
@pytest.mark.process
def test_a_clone_in_an_odd_folder_trains_and_sweeps(tiny_celeba: Callable[..., Path], tmp_path: Path) -> None:
    """With a home that cannot be written to, where matplotlib and torch keep their caches."""
    clone = tmp_path / ODD
    clone.mkdir()
    for name in ("train.py", "conf", "callbacks", "vae_lightning"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, clone / name)
    root = tiny_celeba(60)
    quick = [*SMALL, f"data.root={root}", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    with small_disk(tmp_path / "home", "1m") as home:
        home.remount("ro")
        places = {"HOME": str(home.folder), "TORCH_HOME": str(home.folder / "torch"), "TMPDIR": str(tmp_path)}
        for words in (["hydra.run.dir=outputs/é"], ["-m", "beta=1,4", "sweep=zwei é"]):
            run(sys.executable, str(clone / "train.py"), *quick, *words, cwd=clone, **places)
    assert (clone / "outputs" / "é" / "loss_curves.png").is_file()
    assert (clone / "multirun" / "zwei é" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.process
def test_a_read_only_folder_is_refused_with_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        disk.remount("ro")
        for words in ([], ["-m", "beta=1,4"], [f"hydra.run.dir={disk.folder}/run"]):
            (line,) = train(*words, cwd=disk.folder, expect=1).stderr.splitlines()
            assert "cannot be written: the file system is read-only; choose another place" in line
        assert "model: conv" in train("--help", cwd=disk.folder).stdout


def test_a_closed_output_takes_words_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python starts with None where a shell has closed an output: `train.py --help >&-`."""
    for name in ("stdout", "stderr"):
        with monkeypatch.context() as closed:
            closed.setattr(sys, name, None)
            make_output_safe()
            with getattr(sys, name) as output:
                assert output.write("é") == 1
