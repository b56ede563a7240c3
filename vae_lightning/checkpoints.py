"""Checkpoints and exported models: what they say about themselves, and what may be built from them."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vae_lightning.checkpoint_keys import BEST_KEY, RECONSTRUCTION_PREFIX, RECORD_KEY
from vae_lightning.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    GaussianPerPixel,
    GaussianShared,
    ReconstructionLoss,
    SquaredError,
)
from vae_lightning.made_with import made_with
from vae_lightning.models import Autoencoder, ConvVAE, LinearVAE, PatchVAE, ResidualVAE
from vae_lightning.run_folders import EXPORTED_CONFIG, RunError

EXPORT_FORMAT = 1  # of the config.json of an exported folder
FORMAT = 2  # 2: the sums of a logging window lie in other tensors, so training cannot go on from 1
# The only classes that a checkpoint may ask for: a stranger's file cannot run anything else.
MODELS: dict[str, type[Autoencoder]] = {
    f"vae_lightning.models.{model.__name__}": model for model in (ConvVAE, LinearVAE, PatchVAE, ResidualVAE)
}
RECONSTRUCTIONS: dict[str, type[ReconstructionLoss]] = {
    f"vae_lightning.losses.{term.__name__}": term
    for term in (AbsoluteError, BinaryCrossEntropy, GaussianPerPixel, GaussianShared, SquaredError)
}


def build_model(config: dict[str, Any] | None) -> Autoencoder:
    """The model that a run's configuration names, with fresh weights.

    Raises:
        RunError: it names a class that is no model of ours, or none.
    """
    if config is None:
        raise RunError(
            "the run trained a network that reads faces, no autoencoder: use it as vae edit … --classifier or --judge"
        )
    target = config["_target_"]
    if target not in MODELS:
        raise RunError(f"the run asks for {target!r}; only these may be built: {', '.join(MODELS)}")
    return MODELS[target](**{name: value for name, value in config.items() if name != "_target_"})


def build_reconstruction(content: dict[str, Any]) -> ReconstructionLoss:
    """The pixel term that a checkpoint was trained with, in the state it has there (a learned sigma).

    Raises:
        RunError: it names a class that is no pixel term of ours.
    """
    config = content[RECORD_KEY]["config"]["reconstruction"]
    target = config["_target_"]
    if target not in RECONSTRUCTIONS:
        raise RunError(f"the run asks for {target!r}; only these may be built: {', '.join(RECONSTRUCTIONS)}")
    term = RECONSTRUCTIONS[target](**{name: value for name, value in config.items() if name != "_target_"})
    weights = content["state_dict"]
    term.load_state_dict(
        {name: weights[f"{RECONSTRUCTION_PREFIX}{name}"] for name in term.state_dict()}  # most have none
    )
    return term.eval().requires_grad_(False)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint or an exported model of ours, read without running any code that may be in it.

    Raises:
        RunError: not a checkpoint, not ours, or of a newer format.
    """
    if file.suffix == ".safetensors":
        return _read_exported(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        # torch's own words advise to read the file unsafely
        is_torchs = isinstance(error, pickle.UnpicklingError)
        reason = "no file of PyTorch's, or more than plain data in it" if is_torchs else str(error).split("\n")[0]
        raise RunError(f"{file} is no checkpoint that can be read safely: {reason}") from error
    if not isinstance(content, dict) or RECORD_KEY not in content:
        raise RunError(f"{file} is not a checkpoint of this framework: it does not say how its model is built")
    _check_format(file, content[RECORD_KEY]["format"], FORMAT)
    return content


def _read_exported(file: Path) -> dict[str, Any]:
    """What `vae export` wrote: weights, and beside them what says how the model is built."""
    described = file.with_name(EXPORTED_CONFIG)
    try:
        config = json.loads(described.read_text(encoding="utf-8"))
        exported_in, record = config["format"], config["record"]
        trained = {"epoch": config["epoch"], BEST_KEY: config[BEST_KEY]}
        weights = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file.parent} is no exported model that can be read ({type(error).__name__}: {error}): "
            f"{file.name} and {described.name}, as written by `vae export`, belong together"
        ) from error
    _check_format(described, exported_in, EXPORT_FORMAT)
    _check_format(described, record["format"], FORMAT)
    return {RECORD_KEY: record, "state_dict": weights, **trained}


def _check_format(file: Path, found: int, newest: int) -> None:
    if found > newest:
        raise RunError(f"{file} has format {found}, this version reads up to {newest}: update vae-lightning")


def record_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What every checkpoint of a run with this resolved configuration says about itself."""
    config = {name: value for name, value in plain.items() if name not in ("callbacks", "logger")}
    return {"format": FORMAT, "config": config, "versions": made_with()["libraries"]}


def checkpoint_to_resume(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """The checkpoint that training starts from. `last` is the one in this run's own folder.

    Raises:
        RunError: the file is not there, or is no checkpoint of ours.
    """
    if ckpt_path is None:
        return None
    path = run_dir / "checkpoints" / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path).expanduser()
    if not path.is_file():
        raise RunError(f"ckpt_path={ckpt_path}: there is no file {path}")
    try:
        written_in = read_checkpoint(path)[RECORD_KEY]["format"]
    except RunError as error:
        raise RunError(f"ckpt_path={ckpt_path}: {error}") from error
    if written_in < FORMAT:
        raise RunError(
            f"ckpt_path={ckpt_path}: written in format {written_in} by an earlier version. load_run and `vae` read it, "
            "but training cannot go on from it: start the run anew"
        )
    return path
