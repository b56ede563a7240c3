"""Writes an exported folder, which is whole or not there."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vae_lightning.export.browser_runtime import browser_runtime as prepare_runtime
from vae_lightning.export.carried import Carried, carry
from vae_lightning.export.contents import CARD, DEMO, SAMPLES, described, write_weights
from vae_lightning.export.demo import write_demo
from vae_lightning.export.model_card import model_card
from vae_lightning.export.onnx_files import DECODER, ENCODER, PACKAGES, OnnxFile, write_onnx
from vae_lightning.latents.temperature import Temperature, falling_temperatures, temperature_in_words
from vae_lightning.models.pixels import to_uint8
from vae_lightning.pictures.grids import labelled_grid, write_picture
from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.runs.layout import EXPORTED_CONFIG, EXPORTED_WEIGHTS, checkpoint_file
from vae_lightning.runs.load import build_run
from vae_lightning.runs.run import Run
from vae_lightning.system.extras import check_extra
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.progress import progress
from vae_lightning.system.whole_files import aside, leftovers, naming, write_json

SAMPLE_COLUMNS = 8
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Exported:
    """What is in the folder."""

    folder: Path
    source: str  # of the images that the model was trained on
    files: dict[str, int]  # path in the folder -> bytes
    carried: Carried
    onnx: tuple[OnnxFile, ...]


def export_run(
    path: str | Path,
    folder: Path,
    *,
    checkpoint: str = "best",
    onnx: bool = False,
    demo: bool = False,
    browser_runtime: Path | None = None,
    overwrite: bool = False,
    hub_name: str | None = None,
) -> Exported:
    """Writes the weights, what builds the model, the card, and what was fitted to the latents.

    Args:
        path: a run folder, a checkpoint file, an exported folder, or `last`.
        folder: where to; made anew.
        checkpoint: of a run folder: "best", "last" or a file.
        onnx: also encoder and decoder for other runtimes.
        demo: also a page that runs the decoder in a browser.
        browser_runtime: folder with the files of onnxruntime-web; None takes those that npm brings.
        overwrite: an earlier export in `folder` is replaced, with all that lies there.
        hub_name: OWNER/NAME, under which the card says how to load it.

    Raises:
        ValueError: the folder is taken, an extra is missing, or the ONNX files do not compute the same.
        RunError: no run, or no checkpoint of an autoencoder.
    """
    folder = folder.expanduser().resolve()
    check_place(folder, overwrite)
    if onnx or demo:
        check_extra("export", "--onnx" if onnx else "--demo", *PACKAGES)
    runtime = prepare_runtime(browser_runtime) if demo else None
    file = checkpoint_file(Path(path).expanduser(), checkpoint)
    content = read_checkpoint(file)
    vae = build_run(file, content)
    if vae.path.resolve().is_relative_to(folder):
        raise ValueError(f"{folder} holds the model that is to be exported: name another folder")
    with naming(folder), replacing_folder(folder) as unfinished:
        write_weights(content, unfinished / EXPORTED_WEIGHTS)
        files = _write_onnx(vae, unfinished, (ENCODER, DECODER) if onnx else (DECODER,) if demo else ())
        if runtime is not None:
            write_demo(vae, unfinished / DECODER, unfinished / DEMO, runtime)
        try:
            carried = _describe(vae, content, unfinished, files, hub_name)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{vae.path} does not say of itself what the model card needs ({error!r})") from error
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    return Exported(folder, vae.record["data"]["source"], sizes, carried, files)


def _write_onnx(vae: Run, folder: Path, names: Sequence[str]) -> tuple[OnnxFile, ...]:
    with progress() as observer:
        numbers = observer.track(range(len(names)), "Translating to ONNX", len(names))
        return tuple(write_onnx(vae.model, folder / names[number]) for number in numbers)


def _describe(
    vae: Run, content: dict[str, Any], folder: Path, files: Sequence[OnnxFile], hub_name: str | None
) -> Carried:
    """Writes everything besides the model itself."""
    carried = carry(vae, folder / EXPORTED_WEIGHTS)
    write_samples(vae, carried, folder / SAMPLES)
    config = described(content)
    write_json(folder / EXPORTED_CONFIG, {**config, "onnx": [asdict(file) for file in files]})
    (folder / CARD).write_text(model_card(vae, config, carried, files, folder, hub_name), encoding="utf-8")
    return carried


def write_samples(vae: Run, carried: Carried, file: Path) -> None:
    """Unselected samples of the model, no image of the data; nothing where there is no prior to sample from."""
    levels = vae.model.latent_levels
    wanted: list[tuple[str, Temperature]] = [("normal", 1.0), ("normal", 0.7)] if vae.model.has_prior else []
    wanted += [("normal", temperature) for temperature in falling_temperatures(levels)]
    wanted += [(name, 1.0) for name in ("gmm", "gaussian") if name in carried.priors][:1]
    if not wanted:
        return
    rows = [vae.sample(SAMPLE_COLUMNS, temperature, SAMPLE_SEED, prior) for prior, temperature in wanted]
    labels = [
        f"{'' if prior == 'normal' else prior + ', '}τ = {temperature_in_words(temperature, levels)}"
        for prior, temperature in wanted
    ]
    write_picture(file, labelled_grid(to_uint8(torch.stack(rows), (0.0, 1.0)), labels))


def check_place(folder: Path, overwrite: bool) -> None:
    """
    Raises:
        ValueError: the folder cannot be written, or holds something that must not be replaced.
    """
    if Path.cwd().is_relative_to(folder):
        raise ValueError(
            f"{folder} is your working folder: name a folder that is made anew, as in `vae export last exported`"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not is_export(folder):
        raise ValueError(f"{folder} is not empty and holds no earlier export: name another folder")
    if not overwrite:
        raise ValueError(f"{folder} holds an earlier export: say --overwrite to replace all of it, or name another")


def is_export(folder: Path) -> bool:
    """Whether its config.json is one of ours."""
    try:
        config = read_plain(folder / EXPORTED_CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"format", "record"} <= set(config)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write to, which becomes `folder` when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, outdated = aside(folder), aside(_outdated(folder))
    _clear_up(folder)
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():
            folder.rename(outdated)
        unfinished.rename(folder)
    except BaseException:
        if outdated.exists() and not folder.exists():
            outdated.rename(folder)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(outdated, ignore_errors=True)


def _outdated(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.outdated")


def _clear_up(folder: Path) -> None:
    """Cleans up after killed processes: restores an export that one had moved away, and removes unfinished ones."""
    moved_away, halves = ([aside(path), *leftovers(path)] for path in (_outdated(folder), folder))
    for earlier in moved_away:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
    for leftover in (*moved_away, *halves):
        if leftover.exists():
            shutil.rmtree(leftover)
