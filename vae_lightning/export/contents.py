"""Weights and settings of an exported folder: all that a checkpoint holds, except for this machine's paths."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vae_lightning.runs.checkpoints import EXPORT_FORMAT, build_reconstruction
from vae_lightning.runs.layout import BEST_KEY, MODEL_PREFIX, RECONSTRUCTION_PREFIX, RECORD_KEY
from vae_lightning.system.whole_files import write_bytes

CARD = "README.md"  # the name under which hubs look for it
SAMPLES = "samples.png"
DEMO = "demo"


def write_weights(content: dict[str, Any], file: Path) -> None:
    """Writes the weights of model and pixel term; those are the running mean where the run kept one."""
    build_reconstruction(content)  # refuses a pixel term that nobody could read again
    weights: dict[str, Tensor] = {
        name: tensor.contiguous()  # convolutions are kept in channels_last order
        for name, tensor in content["state_dict"].items()
        if name.startswith((MODEL_PREFIX, RECONSTRUCTION_PREFIX))
    }
    # "pt" is what hubs and other readers expect in the header; save_file would let nobody else read the file
    write_bytes(file, save(weights, metadata={"format": "pt"}))


def described(content: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json, but for the ONNX files."""
    return {
        "format": EXPORT_FORMAT,
        "record": portable(content[RECORD_KEY]),
        "epoch": content["epoch"],
        BEST_KEY: content.get(BEST_KEY, {}),
    }


def portable(plain: Any) -> Any:
    """Plain data whose paths outside of the working folder are cut to their last part."""
    if isinstance(plain, Mapping):
        return {name: portable(value) for name, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [portable(value) for value in plain]
    if isinstance(plain, str) and _lies_elsewhere(plain):
        return PureWindowsPath(plain).name  # knows both slashes
    return plain


def _lies_elsewhere(path: str) -> bool:
    is_absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()
    return is_absolute or path.startswith(("~", "../", "..\\"))
