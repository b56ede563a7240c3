"""`vae export --onnx`: another runtime computes what PyTorch does, for every model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_export import MODELS, vae
from tiny_runs import PRIVATE, write_run

from vae_lightning import load_run
from vae_lightning.export import export_run, onnx_files
from vae_lightning.export.browser_runtime import RUNTIME_FILES
from vae_lightning.export.onnx_files import DECODER, ENCODER

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.extra


# two seconds each; the residual one has all that is hard to translate
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "residual"]


@pytest.mark.parametrize("name", ["residual", *OTHERS])
def test_every_model_computes_the_same_at_any_batch_size(name: str, tmp_path: Path) -> None:
    """Compared here by itself, with `load_run`, at batch sizes that the export has not looked at."""
    run = write_run(tmp_path / "run", **MODELS[name])
    folder = export_run(run, tmp_path / "exported", onnx=True).folder
    model = load_run(run)
    decode, encode = (onnxruntime.InferenceSession(folder / file) for file in (DECODER, ENCODER))
    for batch_size in (2, 7):
        latents = torch.randn(batch_size, model.model.latent_dim, generator=torch.Generator().manual_seed(batch_size))
        (images,) = decode.run(["images"], {"latents": latents.numpy()})
        assert np.abs(images - model.decode(latents).numpy()).max() < 1e-5
        assert images.min() >= 0
        assert images.max() <= 1
        posterior = model.encode(torch.from_numpy(images))
        names = {"autoencoder": ["codes"], "ladder": ["posterior_mean"]}.get(
            name, ["posterior_mean", "posterior_logvar"]
        )
        expected = [posterior.mean] if len(names) == 1 else [posterior.mean, posterior.logvar]
        found = encode.run(names, {"images": images})
        for here, there in zip(expected, found, strict=True):
            assert np.abs(there - here.numpy()).max() < 1e-5


def test_the_files_say_what_they_take_and_nothing_of_the_machine(tmp_path: Path) -> None:
    exported = export_run(write_run(tmp_path / "run"), tmp_path / "exported", onnx=True)
    encoder, decoder = json.loads((exported.folder / "config.json").read_text())["onnx"]
    assert encoder["inputs"] == {"images": ["batch", 3, 32, 32]}
    assert encoder["outputs"] == {"posterior_mean": ["batch", 6], "posterior_logvar": ["batch", 6]}
    assert (decoder["inputs"], decoder["opset"]) == ({"latents": ["batch", 6]}, onnx_files.OPSET)
    assert 0 <= decoder["largest_difference"] <= 1e-5
    assert (
        "`decoder.onnx`: latents [batch, 6] → images [batch, 3, 32, 32]" in (exported.folder / "README.md").read_text()
    )
    places = [PRIVATE, str(tmp_path), str(Path(__file__).parents[1]), sys.prefix]
    for name in (ENCODER, DECODER):
        content = (exported.folder / name).read_bytes()
        assert not [place for place in places if place.encode() in content]
        (opset,) = onnx.load(exported.folder / name).opset_import
        assert opset.version == onnx_files.OPSET


def test_a_file_that_computes_something_else_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    translate = onnx_files._translate

    def with_a_wrong_bias(part: onnx_files.OnnxDecoder, file: Path) -> None:
        translate(part, file)
        model = onnx.load(file)
        (bias,) = [each for each in model.graph.initializer if each.name.endswith("latent_projection.bias")]
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
        onnx.save_model(model, file)

    monkeypatch.setattr(onnx_files, "_translate", with_a_wrong_bias)
    with pytest.raises(ValueError, match=r"decoder.onnx: onnxruntime and PyTorch differ by 0\.\d+, at most 0.0001"):
        onnx_files.write_onnx(load_run(run).model, tmp_path / DECODER)
    assert not (tmp_path / DECODER).exists()


def test_a_missing_extra_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_lightning.export.folder.PACKAGES", ("onnx", "no_such_package"))
    output = vae("export", tmp_path / "no run", tmp_path / "exported", "--onnx", code=2)
    assert "--onnx needs the extra `export` (missing: no_such_package): uv sync" in output
    assert not (tmp_path / "exported").exists()


def test_a_demo_brings_the_decoder_alone(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in RUNTIME_FILES:
        (runtime / name).write_text("stands for the real one")
    folder = tmp_path / "exported"
    output = vae("export", write_run(tmp_path / "run"), folder, "--demo", "--browser-runtime", runtime)
    assert f"python -m http.server --directory {folder / 'demo'}" in output.replace("\n", "")
    assert (folder / DECODER).read_bytes() == (folder / "demo" / DECODER).read_bytes()
    assert (folder / "demo" / "index.html").is_file()
    assert not (folder / ENCODER).exists()
    assert "--directory demo" in (folder / "README.md").read_text()
