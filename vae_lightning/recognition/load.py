"""Loads the attribute classifier or factor regressor of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vae_lightning.recognition.module import NAMES_KEY, NETWORK_PREFIX
from vae_lightning.recognition.network import Recognizer
from vae_lightning.runs.checkpoints import read_checkpoint
from vae_lightning.runs.data_record import AS_SEEN, check_record
from vae_lightning.runs.layout import RECORD_KEY, checkpoint_file
from vae_lightning.runs.parts import build_part, load_weights
from vae_lightning.system.names import is_a_name
from vae_lightning.system.terminal import command


def load_recognizer(
    path: str | Path,
    checkpoint: str = "best",
    device: str | torch.device = "cpu",
    sees: Mapping[str, Any] | None = None,
) -> Recognizer:
    """The network of a run of `experiment=attribute_classifier` or `factor_regressor`: frozen, in eval mode.

    Args:
        path: a run folder (`outputs/…`, a job of a sweep), a `.ckpt` file, or `last` for the newest such run.
        checkpoint: which of a folder's checkpoints, "best", "last" or a file.
        device: where the network goes.
        sees: the `data` in the configuration of the run whose faces the network is to judge. Crop and size must be
            those of the network's training; None does not compare them.

    Raises:
        RunError: there is no run, or the file is not a checkpoint of this program.
        ValueError: the run trained an autoencoder, or the network was trained on other crops or sizes.
    """
    file = checkpoint_file(Path(path).expanduser(), checkpoint, recognizer=True)
    content = read_checkpoint(file)
    config = content[RECORD_KEY]["config"].get("recognizer")
    if not config:
        raise ValueError(
            f"{file} holds an autoencoder, not an attribute classifier or factor regressor; this trains one: "
            + command("python train.py experiment=attribute_classifier")
        )
    check_record(content[RECORD_KEY], file)
    if sees is not None:
        _check_sees_alike(path, content[RECORD_KEY]["config"]["data"], sees)
    network = build_part(Recognizer, config, weights="none")
    load_weights(network, NETWORK_PREFIX, content["state_dict"])
    names = content.get(NAMES_KEY)
    if not isinstance(names, list | tuple) or not all(map(is_a_name, names)) or len(names) != network.num_outputs:
        raise ValueError(f"{file} does not name the {network.num_outputs} outputs of its network")
    network.names = tuple(names)
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check_sees_alike(path: str | Path, own: Mapping[str, Any], sees: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: the network was trained on other crops or sizes, with the command that trains one that fits.
    """
    different = [name for name in AS_SEEN if own[name] != sees[name]]
    if different:
        pairs = ", ".join(f"data.{name}={own[name]} instead of {sees[name]}" for name in different)
        fits = " ".join(f"data.{name}={sees[name]}" for name in different)
        raise ValueError(
            f"{path} was trained on other pictures than the run: {pairs}. This trains one that fits: "
            + command(f"python train.py experiment=attribute_classifier {fits}")
        )
