"""Reads checkpoints and exported models, and builds the models in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vae_lightning.losses import ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.runs.layout import (
    BEST_KEY,
    EXPORTED_CONFIG,
    MODEL_PREFIX,
    RECONSTRUCTION_PREFIX,
    RECORD_KEY,
    RunError,
    checkpoint_path,
)
from vae_lightning.runs.parts import build_part, first_line, load_weights
from vae_lightning.runs.versions import made_with
from vae_lightning.system.plain_files import read_plain
from vae_lightning.system.tensor_files import UNREADABLE, TensorFileError, read_tensors

EXPORT_FORMAT = 1  # of the config.json of an exported folder
FORMAT = 2  # of what a checkpoint says about itself; raised when readers of before cannot read it


def build_model(config: Any) -> Autoencoder:
    """The model that a run's configuration names, with fresh weights.

    Raises:
        RunError: the class is missing, is not one of the package's models, or refuses its arguments.
    """
    if config is None:
        raise RunError(
            "the run trained an attribute classifier or factor regressor, not an autoencoder: name it with "
            "--classifier or --judge of vae edit"
        )
    return build_part(Autoencoder, config)


def load_model(content: dict[str, Any]) -> Autoencoder:
    """The model of a checkpoint. Its memory is allocated only after names and shapes of the weights were checked.

    Raises:
        RunError: as `build_model`, or the weights are not those of the model.
    """
    with torch.device("meta"):
        model = build_model(content[RECORD_KEY]["config"].get("model"))
    load_weights(model, MODEL_PREFIX, content["state_dict"])
    if "epoch" not in content:
        raise RunError("it does not hold the number of its epoch")
    return model


def build_reconstruction(content: dict[str, Any]) -> ReconstructionLoss:
    """The pixel term that a checkpoint was trained with, in the state it has there (a learned sigma).

    Raises:
        RunError: the class is not one of the package's pixel terms, or the checkpoint does not hold its state.
    """
    term = build_part(ReconstructionLoss, content[RECORD_KEY]["config"].get("reconstruction"))
    load_weights(term, RECONSTRUCTION_PREFIX, content["state_dict"])
    return term.eval().requires_grad_(False)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a checkpoint or an exported model without running code that may be in it.

    Raises:
        RunError: the file is not a checkpoint of this framework, or has a newer format.
    """
    if file.suffix == ".safetensors":
        return _read_exported(file)
    try:
        content = read_tensors(file)
    except TensorFileError as error:
        raise RunError(f"{file} is not a checkpoint that can be read safely: {error}{_instead_of(file)}") from error
    if not isinstance(content, dict) or RECORD_KEY not in content:
        raise RunError(
            f"{file} is not a checkpoint of this framework: it does not say how its model is built{_instead_of(file)}"
        )
    _check_content(file, content)
    return content


def _instead_of(file: Path) -> str:
    """What to do where a run's checkpoint cannot be read."""
    best, last = (file.with_name(checkpoint_path(file, name).name) for name in ("best", "last"))
    if file.name == best.name and last.is_file():
        return (
            f". The newest epoch is in {last}: name that file, or take --checkpoint last (in Python checkpoint='last')"
        )
    if file.name == last.name and best.is_file():
        return f". The best epoch is in {best}: name that file, or copy it to {last} to resume from there"
    if file.name == last.name:
        return ". Copy it here again, or delete it: the command that started the run then starts it from the beginning"
    return ". Copy it here again"


def _read_exported(file: Path) -> dict[str, Any]:
    """Reads what `vae export` wrote: the weights, and beside them the settings that build the model."""
    described = file.with_name(EXPORTED_CONFIG)
    try:
        config = read_plain(described)
        _check_format(described, config["format"], EXPORT_FORMAT)
        content = {RECORD_KEY: config["record"], "epoch": config["epoch"], BEST_KEY: config[BEST_KEY]}
        _check_format(described, config["record"]["format"], FORMAT)
        content["state_dict"] = load_file(file)
    except RunError:
        raise
    except (SafetensorError, OSError, *UNREADABLE) as error:
        raise RunError(
            f"{file.parent} is not an exported model that can be read ({type(error).__name__}: {first_line(error)}): "
            f"{file.name} and {described.name}, as written by `vae export`, belong together"
        ) from error
    _check_content(described, content)
    return content


def _check_content(file: Path, content: dict[str, Any]) -> None:
    """Checks what all readers rely on: the format, a configuration by name, weights by name.

    Raises:
        RunError: the message names what is missing.
    """
    record = content[RECORD_KEY]
    if isinstance(record, dict):
        _check_format(file, record.get("format"), FORMAT)
    weights = content.get("state_dict")
    whole = {
        f"{RECORD_KEY}.config": isinstance(record, dict) and _is_by_name(record.get("config")),
        "state_dict": _is_by_name(weights) and all(isinstance(each, Tensor) for each in weights.values()),  # type: ignore[union-attr]
        "epoch": isinstance(content.get("epoch", 0), int) and content.get("epoch", 0) >= 0,
        BEST_KEY: _is_by_name(content.get(BEST_KEY) or {}),
    }
    broken = [name for name, is_whole in whole.items() if not is_whole]
    if broken:
        raise RunError(f"{file} is not a checkpoint of this framework: {', '.join(broken)} is missing or damaged")


def _is_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _check_format(file: Path, found: Any, newest: int) -> None:
    if not isinstance(found, int):
        raise RunError(f"{file} is not a checkpoint of this framework: its format is not a number")
    if found > newest:
        raise RunError(f"{file} has format {found}, this version reads up to {newest}: update vae-lightning")


def record_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What every checkpoint of a run with this resolved configuration records about the run."""
    config = {name: value for name, value in plain.items() if name not in ("callbacks", "logger")}
    return {"format": FORMAT, "config": config, "versions": made_with()["libraries"]}


def checkpoint_to_resume(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """The checkpoint that training starts from; `last` is the one in this run's own folder.

    Raises:
        RunError: the file does not exist, or is not a checkpoint of this framework.
    """
    if ckpt_path is None:
        return None
    path = checkpoint_path(run_dir) if ckpt_path == "last" else Path(ckpt_path).expanduser()
    if path.is_dir():
        inside = [file for file in (checkpoint_path(path), path / "last.ckpt") if file.is_file()]
        how = f"name the checkpoint in it, ckpt_path={inside[0]}" if inside else "there is no last.ckpt in it"
        raise RunError(f"ckpt_path={ckpt_path}: {path} is a folder; {how}")
    if not path.is_file():
        raise RunError(f"ckpt_path={ckpt_path}: there is no file {path}")
    try:
        read_checkpoint(path)
    except RunError as error:
        raise RunError(f"ckpt_path={ckpt_path}: {error}") from error
    return path
