"""The class Benched: the model, data and settings of a command line of train.py, which are measured."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from vae_lightning.data import FaceDataModule
from vae_lightning.launch.hardware import best_precision
from vae_lightning.losses import KLWeight, Objective, ReconstructionLoss
from vae_lightning.models import Autoencoder
from vae_lightning.runs.checkpoints import build_model
from vae_lightning.runs.parts import build_part
from vae_lightning.system.repository import REPOSITORY
from vae_lightning.training.vae_module import VAEModule

TRAIN_SCRIPT = REPOSITORY / "train.py"
COUNTED_IMAGES = 2


@dataclass(frozen=True)
class Benched:
    """One model with its data, on the device where train.py would train it."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    datamodule: FaceDataModule
    device: torch.device

    @property
    def precision(self) -> str:
        return str(self.config["trainer"]["precision"])

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32

    @property
    def batch_size(self) -> int:
        return int(self.config["data"]["batch_size"])

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def new_model(self, *, channels_last: bool = True) -> Autoencoder:
        model = build_model(self.config["model"]).to(self.device)
        return model.to(memory_format=torch.channels_last) if channels_last else model

    def new_module(self) -> VAEModule:
        """A module with the run's pixel term and the plain KL."""
        return VAEModule(self.new_model(), Objective(self.new_term()), torch.optim.Adam).to(self.device)

    def new_term(self) -> ReconstructionLoss:
        return build_part(ReconstructionLoss, self.config["reconstruction"]).to(self.device)

    def count_flops(self) -> dict[str, float]:
        """Floating-point operations per image, as PyTorch counts them: in convolutions and matrix products."""
        module = self.new_module().cpu()
        images = torch.zeros(COUNTED_IMAGES, module.model.channels, *[module.model.image_size] * 2, dtype=torch.uint8)
        noise = torch.zeros(COUNTED_IMAGES, module.model.latent_dim)
        flops = {}
        with FlopCounterMode(display=False) as counter:
            loss = module.evaluate(images, noise, KLWeight(1.0)).loss
        flops["forward"] = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        flops["training"] = flops["forward"] + counter.get_total_flops()
        module.model.requires_grad_(False)  # the counter asks parameters that a ladder expands for their gradient
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.model.decode(noise)
        flops["decoding"] = counter.get_total_flops()
        return {name: count / COUNTED_IMAGES for name, count in flops.items()}


def open_benched(overrides: Sequence[str]) -> Benched:
    """Opens the data, and decodes them if they are not yet.

    Raises:
        ValueError: train.py refuses the overrides.
    """
    config = composed(overrides)
    settings = {name: value for name, value in config["data"].items() if name != "_target_"}
    datamodule = FaceDataModule(**settings)
    datamodule.prepare_data()
    datamodule.setup()
    accelerator = config["trainer"]["accelerator"]
    if config["trainer"]["precision"] == "auto":
        config["trainer"]["precision"] = best_precision(accelerator)
    on_gpu = torch.cuda.is_available() and accelerator != "cpu"
    return Benched(tuple(overrides), config, datamodule, torch.device("cuda" if on_gpu else "cpu"))


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration that train.py makes of its command line."""
    printed = run_train([*overrides, "--cfg", "job", "--resolve"])
    config: dict[str, Any] = yaml.safe_load(printed)
    return config


def run_train(arguments: Sequence[str], **environment: str) -> str:
    """Runs train.py and returns what it prints.

    Raises:
        ValueError: it fails; the message has the end of its output.
    """
    command = [sys.executable, str(TRAIN_SCRIPT), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if finished.returncode:
        raise ValueError(f"{' '.join(command)} failed:\n{(finished.stderr or finished.stdout)[-2000:]}")
    return finished.stdout
