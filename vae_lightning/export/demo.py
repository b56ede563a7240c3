"""Writes a page that runs a trained decoder in the browser: one folder, for any web server."""

import shutil
from pathlib import Path

from vae_lightning.export.browser_runtime import RUNTIME_FILES, WASM, browser_runtime
from vae_lightning.export.demo_contents import demo_contents
from vae_lightning.runs.run import Run
from vae_lightning.system.whole_files import replacing, write_json

SOURCES = Path(__file__).parent / "page"
PAGE = "index.html"
DECODER = "decoder.onnx"
CONTENTS = "demo.json"


def write_demo(vae: Run, decoder_onnx: Path, folder: Path, runtime: Path | None = None) -> Path:
    """Writes the folder and returns it. Files of the same names are replaced; the page itself comes last.

    Args:
        vae: float32; its directions and priors are used where they are fitted.
        decoder_onnx: latents (batch, latent) -> images in [0, 1]; one file, without data beside it.
        folder: made where it is not there.
        runtime: folder with RUNTIME_FILES; None fetches them once.

    Raises:
        ValueError: the runtime is missing, or the model is a plain autoencoder of whose latents nothing is known.
    """
    runtime_folder = browser_runtime(runtime)
    contents = demo_contents(vae)
    contents["bytes_to_load"] = decoder_onnx.stat().st_size + (runtime_folder / WASM).stat().st_size
    write_json(folder / CONTENTS, contents)
    _copy(decoder_onnx, folder / DECODER)
    for name in RUNTIME_FILES:
        _copy(runtime_folder / name, folder / name)
    for file in sorted(SOURCES.iterdir(), key=lambda file: file.name == PAGE):
        _copy(file, folder / file.name)
    return folder


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as unfinished:
        shutil.copyfile(source, unfinished)
