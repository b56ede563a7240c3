"""What all verbs share, and the short ones, on models with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import write_run
from typer.testing import CliRunner

from vae_lightning import load_run
from vae_lightning.cli import app
from vae_lightning.fitted import statistics_file
from vae_lightning.grids import labelled_grid
from vae_lightning.latent_statistics import LatentStatistics


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
    assert completions("vae tra") == ["traverse"]


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
