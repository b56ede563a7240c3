"""What `vae bench` measures, counts and compares; never how fast it is."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_runs import LADDER
from typer.testing import CliRunner

from vae_lightning.cli.app import app
from vae_lightning.cli.bench import bench, compare, limits, tables
from vae_lightning.cli.bench.benched import Benched
from vae_lightning.cli.bench.parts import bare_loop_speed, loader
from vae_lightning.cli.bench.peer import PeerVAE
from vae_lightning.data import FaceDataModule
from vae_lightning.data.loading import BatchLoader, DeviceBatchLoader
from vae_lightning.losses import Logistic


@pytest.fixture
def benched(tiny_celeba: Callable[..., Path], tmp_path: Path) -> Callable[..., Benched]:
    def make(residence: str = "host", reconstruction: str = "SquaredError", **model: Any) -> Benched:
        data = FaceDataModule(root=str(tiny_celeba(30)), data_dir=str(tmp_path), image_size=32, residence=residence)
        data.prepare_data()
        model = {"_target_": "vae_lightning.models.ConvVAE", "image_size": 32, "latent_dim": 6, **model}
        config = {
            "model": model,
            "reconstruction": {"_target_": f"vae_lightning.losses.{reconstruction}"},
            "data": {"batch_size": 8, "image_size": 32},
            "trainer": {"precision": "32-true"},
            "optimizer": {"lr": 1e-3},
        }
        return Benched((), config, data, torch.device("cpu"))

    return make


def test_flops_are_those_worked_out_by_hand(benched: Callable[..., Benched]) -> None:
    """A fully connected network: 2 for each weight forward, and twice that backward but for the pixels' gradient."""
    target = "vae_lightning.models.LinearVAE"
    flops = benched(_target_=target, hidden_dim=16).count_flops()
    pixels, hidden, latents = 3 * 32 * 32, 16, 6
    encoder, decoder = pixels * hidden + hidden * 2 * latents, latents * hidden + hidden * pixels
    assert flops["decoding"] == 2 * decoder
    assert flops["forward"] == 2 * (encoder + decoder)
    assert flops["training"] == 3 * flops["forward"] - 2 * pixels * hidden


def test_the_loader_is_the_one_that_training_uses(benched: Callable[..., Benched]) -> None:
    assert isinstance(loader(benched()), BatchLoader)
    assert isinstance(loader(benched(residence="device")), DeviceBatchLoader)


@pytest.mark.parametrize("model", [{}, {**LADDER, "reconstruction": "Logistic"}], ids=["conv", "ladder"])
def test_the_bare_loop_trains_with_the_runs_pixel_term(
    model: dict[str, Any], benched: Callable[..., Benched], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    new_model = Benched.new_model

    def remember(self: Benched, *, channels_last: bool = True) -> Any:
        models.append(new_model(self, channels_last=channels_last))
        models.append([parameter.clone() for parameter in models[-1].parameters()])
        return models[-2]

    monkeypatch.setattr(Benched, "new_model", remember)
    measured = benched(**model)
    assert bare_loop_speed(measured, 0.01) > 0
    trained, before = models
    assert not any(torch.equal(one, other) for one, other in zip(trained.parameters(), before, strict=True))
    assert isinstance(measured.new_module().objective.reconstruction, Logistic) == bool(model)
    flops = measured.count_flops()
    assert 0 < flops["decoding"] < flops["forward"] < flops["training"]


def test_the_peer_is_the_published_network() -> None:
    """32 to 512 channels on 64x64; sizes worked out from the published layers."""
    model = PeerVAE()
    convolutions = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)]
    down = sum(9 * before * after + 3 * after for before, after in convolutions)
    heads = 2 * (2048 * 128 + 128) + 128 * 2048 + 2048
    ups = [(512, 256), (256, 128), (128, 64), (64, 32), (32, 32)]
    up = sum(9 * before * after + 3 * after for before, after in ups)
    assert sum(parameter.numel() for parameter in model.parameters()) == down + heads + up + 32 * 27 + 3
    images = torch.rand(4, 3, 64, 64)
    assert model.decoder(torch.zeros(4, 128)).shape == images.shape
    model.loss(images).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.nightly
@pytest.mark.process
def test_one_command_measures_everything_and_compares(
    tiny_celeba: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tiny_celeba(200)
    settings = [f"data.root={root}", "data.image_size=32", "data.batch_size=16", "trainer.accelerator=cpu"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(limits, "MATRIX_SIZES", {"cpu": (256, 512)})
    monkeypatch.setattr(limits, "COPIED_BYTES", {"cpu": 2**24})
    measure = ["bench", *settings, "--repeats", "1", "--seconds", "0.1", "--peer", "--out", "a.json"]
    finished = CliRunner().invoke(app, measure)
    assert finished.exit_code == 0, finished.output
    report = json.loads(Path("a.json").read_text())
    parts = report["models"]["conv"]["parts"]
    assert set(parts) - {"whole_fit"} == {"bare_loop", "full_stack", "plain_loop", "validation", "sampling"}
    assert set(report["data"]["parts"]) == {"cache_build", "loader"}
    assert all(0 < part["share_of_limit"] < 1.5 for part in parts.values())
    assert report["machine"]["kind"] == "cpu"
    assert "full train.py" in finished.output
    assert "conv / peer" in finished.output
    assert not [path for path in tmp_path.iterdir() if path.name not in ("a.json", "celeba", "data")]
    assert "1.00" in CliRunner().invoke(app, ["bench", "--compare", "a.json", "a.json"]).output


def shown(renderable: Any) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(renderable)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def report_of(speed: float, **machine: Any) -> dict[str, Any]:
    part = {"images_per_second": speed, "all": [speed], "share_of_limit": speed / 1000}
    return {
        "format": 1,
        "date": "2026-11-21T12:00:00+00:00",
        "machine": {"device": "X", "threads": 2, "torch": "2", **machine},
        "limits": {"matrix_flops_per_second": 4e11, "copied_bytes_per_second": 1e10, "precision": "bf16-mixed"},
        "overrides": [],
        "data": {"parts": {"loader": {**part, "images_per_second": 50_000.0}}},
        "models": {
            "conv": {
                **{"precision": "bf16-mixed", "batch_size": 64, "compile": "off", "image_size": 64},
                "parts": {"full_stack": part},
                "ratios": {"full stack / bare loop": {"median": 0.97}},
                "seconds_per_celeba_epoch": 162_770 / speed,
            }
        },
    }


def test_figures_are_shown_with_their_share() -> None:
    text = shown(
        tables({**report_of(500.0), "sharing": {"4": 1234.5}, "peer": {"images_per_second": 100.0, "all": [100]}})
    )
    for words in ("500", "50.0%", "loader / full stack 100", "326 s", "conv / peer: 5.0", "4 runs at once: 1,23"):
        assert words in text


def test_a_comparison_says_what_else_differs() -> None:
    text = shown(compare(report_of(500.0), report_of(750.0, device="Y")))
    assert "1.50" in text
    assert "device: X → Y" in text
    with pytest.raises(ValueError, match="one version"):
        compare(report_of(1.0), {**report_of(1.0), "format": 2})


def test_files_without_figures_are_named(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.txt"
    good.write_text(json.dumps(report_of(500.0)))
    assert "1.00" in CliRunner().invoke(app, ["bench", "--compare", str(good), str(good)]).output
    for content in ("{}", "[]", "no", '{"data": {"parts": {"x": {}}}, "models": {}}', "[" * 100_000):
        bad.write_text(content)
        refused = CliRunner().invoke(app, ["bench", "--compare", str(good), str(bad)])
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"{bad} holds no figures that vae bench wrote")
    gone = CliRunner().invoke(app, ["bench", "--compare", str(good), str(tmp_path / "gone.json")])
    assert (gone.exit_code, "gone.json" in gone.stderr) == (2, True)


def test_overrides_that_train_py_refuses_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"beta_|betta"):
        bench(["betta=1"], ["conv"], repeats=1, seconds=0.1)
