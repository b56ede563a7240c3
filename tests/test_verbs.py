"""What all verbs share, and the short ones, on models with random weights."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_celeba
from explored_runs import write_explored_run
from PIL import Image
from tiny_runs import write_run
from typer.testing import CliRunner, Result

from vae_lightning import load_run
from vae_lightning.cli import faces as cli
from vae_lightning.cli.app import app
from vae_lightning.cli.arguments import as_typed
from vae_lightning.cli.edit import edit
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs import checkpoints
from vae_lightning.runs.fitted import statistics_file
from vae_lightning.system.tensor_files import read_tensors


def completions(line: str) -> list[str]:
    """What bash is offered for the last word of a line, in the protocol of its completion script."""
    words = line.split(" ")
    environment = {"_VAE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(app, [], prog_name="vae", env=environment).output.split()


def test_tab_knows_runs_and_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("outputs/first", "outputs/second", "multirun/beta/beta=4"):
        write_run(tmp_path / run)
    (tmp_path / "multirun" / "beta" / "beta=4" / ".hydra").mkdir()
    monkeypatch.chdir(tmp_path)
    assert set(completions("vae sample ")) == {"last", "outputs/first", "outputs/second", "multirun/beta/beta=4"}
    assert completions("vae traverse outputs/f") == ["outputs/first"]
    assert completions("vae report m") == ["multirun/beta"]
    assert "multirun/beta" in completions("vae evaluate mul")
    assert completions("vae sample last --checkpoint b") == ["best"]
    assert set(completions("vae tra")) == {"train", "traverse"}
    assert {"model=conv", "model=residual"} <= set(completions("vae train model="))
    assert "beta=" in completions("vae train -m bet")


def test_traverse_sets_the_latents_that_are_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path)
    Image.effect_noise((90, 120), 80).save(tmp_path / "me.png")
    run, photograph = str(tmp_path), str(tmp_path / "me.png")
    command = ["traverse", run, photograph, "--steps", "3", "--range", "2", "--out", str(tmp_path)]
    vae = load_run(tmp_path)
    latents = vae.encode(Image.open(photograph)).mean.repeat(3, 1)
    latents[:, 4] = torch.tensor([-2.0, 0.0, 2.0])
    row = torch.cat([vae.preprocess(Image.open(photograph)), (vae.decode(latents) * 255).round().byte()])
    statistics = LatentStatistics(torch.zeros(6), torch.ones(6), torch.tensor([0.0, 0.1, 0.2, 0.3, 2.5, 0.4]))
    statistics_file(vae.path).write(statistics)
    labels = (["z[4]\n2.50 nats"], ["original", "-2", "0", "+2"], "Traversals of single latents: me")
    for chosen in (["--dimensions", "4"], ["--top", "1"]):
        result = CliRunner().invoke(app, [*command, *chosen])
        assert result.stdout.strip() == str(tmp_path / "traverse_me.png")
        drawn = np.asarray(Image.open(tmp_path / "traverse_me.png").convert("RGB"))
        np.testing.assert_array_equal(drawn, labelled_grid(row[None], *labels))
    refused = CliRunner().invoke(app, [*command, "--dimensions", "6"])
    assert refused.exit_code == 2
    assert "0 to 5" in refused.stderr


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        (["sample", "{run}", "-n", "2"], "sample_t=1_seed=0"),
        (["reconstruct", "{run}", "a.png"], "reconstruct_a"),
        (["traverse", "{run}", "a.png", "--dimensions", "1"], "traverse_a"),
    ],
)
def test_pictures_of_before_are_kept(
    verb: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same picture again stays one file; another one gets a number; a place that a person names is not taken."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    command = [word.format(run=tmp_path / "run") for word in verb]
    statistics_file(tmp_path / "run" / "checkpoints" / "best.ckpt").write(
        LatentStatistics(torch.zeros(6), torch.ones(6), torch.ones(6))
    )
    Image.effect_noise((90, 120), 80).save("a.png")
    places = [typed(*command).stdout.strip() for _ in range(2)]
    first = (tmp_path / "run" / "images" / f"{name}.png").read_bytes()
    (tmp_path / "run" / "images" / f"{name}.png").write_bytes(b"drawn over by hand")
    places.append(typed(*command).stdout.strip())
    assert [Path(place).name for place in places] == [f"{name}.png", f"{name}.png", f"{name}_2.png"]
    assert Path(places[2]).read_bytes() == first
    assert (tmp_path / "run" / "images" / f"{name}.png").read_bytes() == b"drawn over by hand"
    if verb[0] == "traverse":
        return  # its --out is a folder, in which names get a number too
    refused = typed(*command, "--out", "a.png")
    assert refused.exit_code == 2
    assert refused.stderr.strip().startswith("--out a.png: a.png is there already")


def test_the_name_of_many_reconstructions_says_that_there_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    for name in "abcde":
        Image.effect_noise((90, 120), 80).save(f"{name}.png")
    place = typed("reconstruct", "run", *(f"{name}.png" for name in "abcde")).stdout.strip()
    assert Path(place).name == "reconstruct_a_b_c_and_2_more.png"


@pytest.mark.parametrize(
    ("name", "message", "words"),
    [
        ("guide", "num_steps=0: at least 1 step", "--steps 0: at least 1 step"),
        ("guide", "distance_weight=-1: expected 0 or more", "--distance-weight -1: expected 0 or more"),
        ("guide", "posterior=deterministic has none", "posterior=deterministic has none"),
        ("amplify", "by=kl: take by=variance", "--by kl: take --by variance"),
        ("amplify", "limit=0.0: needs more", "--range 0.0: needs more"),
        ("amplify", "count_images=1: at least 2", "--images 1: at least 2"),
        ("score", "target=Smilng: allowed are Smiling", "Smilng: allowed are Smiling"),
        ("score", "train one: python train.py seed=1", "train one: python train.py seed=1"),
        ("sample", "prior=flw: allowed", "--prior flw: allowed"),
        ("sample", "data.seed=1: no", "data.seed=1: no"),
        ("reconstruct", "checkpoint=b: there is no such file", "--checkpoint b: there is no such file"),
        ("prepare", "data.crop=x: expected", "--crop x: expected"),
    ],
)
def test_errors_are_in_the_words_that_were_typed(name: str, message: str, words: str) -> None:
    verbs = {each.callback.__name__: each.callback for each in (*app.registered_commands, *edit.registered_commands)}
    assert as_typed(message, verbs[name]) == words


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"})


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (MemoryError(), "a smaller --count is needed (MemoryError)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried 3 TB"), "a smaller --count or --device cpu is needed (CUDA"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator\nframe 1"), "--count is needed ([enf"),
    ],
)
def test_too_little_memory_ends_in_one_line(
    error: BaseException, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_load", fail)
    result = typed("sample", tmp_path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "not enough memory: " in result.stderr
    assert fix in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample run --out run", "is a directory"),
        ("sample run --out file/x.png", "file is a file, not a folder"),
        ("traverse run --out file", "is a file"),
        ("edit amplify run --out file", "is a file"),
        ("evaluate run --out file", "is a file"),
        ("bench --out run", "is a directory"),
        ("prepare --faces --data-dir file", "is a file"),
        ("prepare --faces --data-dir file/x", "file is a file, not a folder"),
        ("prepare --faces --image-size ²", "--image-size ²: expected pixels"),
        ("interpolate run --frames 100000000", "--frames"),
        ("traverse run --steps 100000", "--steps"),
        ("sample run --temperature inf", "--temperature inf: a finite number is expected"),
        ("traverse run --range inf", "--range inf: a finite number is expected"),
        ("edit amplify run --steps 0", "--steps"),
        ("edit amplify run --images 0", "--images"),
        ("edit amplify run --range nan", "--range"),
        ("bench data=noise --sharing abc", "--sharing abc: allowed are whole numbers"),
    ],
)
def test_what_cannot_be_is_refused_by_the_name_that_was_typed(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no run: nothing is loaded before the refusal."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("mine")
    result = typed(*words.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_other_errors_of_torch_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli, "_load", fail)
    assert "mat1" in str(typed("sample", tmp_path).exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        *("sample run", "reconstruct run me.png", "traverse run me.png --steps 2", "interpolate run me.png you.png"),
        *(
            "edit attribute run Attribute_07 me.png --unit std",
            "edit directions run",
            "edit amplify run -n 1 --steps 3",
        ),
        *("evaluate run --metrics latents", "export run exported", "reconstruct run -n 2"),
    ],
)
def test_each_verb_reads_the_checkpoint_once(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_explored_run(tmp_path / "run", write_celeba(tmp_path / "celeba", 30), tmp_path / "data")
    for name in ("me.png", "you.png"):
        Image.effect_noise((90, 120), 80).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    reads: list[Path] = []

    def read(file: Path) -> object:
        reads.append(file)
        return read_tensors(file)

    monkeypatch.setattr(checkpoints, "read_tensors", read)
    ended = typed(*words.split(), "--device", "cpu") if "export" not in words else typed(*words.split())
    assert ended.exit_code == 0, ended.output
    assert [file.resolve() for file in reads] == [run / "checkpoints" / "best.ckpt"]


@pytest.mark.parametrize(
    "words",
    [
        ["sample", ""],
        ["sample", "last", "--out="],
        ["reconstruct", "last", "a.png", " "],
        ["evaluate", "x", "--metrics", ""],
    ],
)
def test_an_empty_shell_variable_is_not_the_working_folder(words: list[str]) -> None:
    result = typed(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "if a shell variable stands there, is it set?" in result.stderr


def test_long_names_of_photographs_are_cut(tmp_path: Path) -> None:
    write_run(tmp_path)
    photographs = [tmp_path / f"{'ü' * 110}{number}.png" for number in range(3)]
    for photograph in photographs:
        Image.effect_noise((90, 120), 80).save(photograph)
    result = typed("reconstruct", tmp_path, *photographs)
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()).name == f"reconstruct_{'_'.join(['ü' * 20] * 3)}.png"
    statistics = LatentStatistics(torch.zeros(6), torch.ones(6), torch.arange(6.0))
    statistics_file(load_run(tmp_path).path).write(statistics)
    result = typed("traverse", tmp_path, *photographs, "--steps", "2", "--top", "1")
    assert len({*result.stdout.split()}) == 3, result.output


def test_a_full_standard_output_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "_load", fail)
    result = typed("sample", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("standard output, or a file of the result, cannot be written: [Errno 28] No space")
