"""Loads a trained model from a run folder, a checkpoint or an exported folder."""

import logging
from pathlib import Path
from typing import Any

import torch

from vae_lightning.runs.checkpoints import load_model, read_checkpoint
from vae_lightning.runs.data_record import check_record
from vae_lightning.runs.layout import RECORD_KEY, RunError, checkpoint_file
from vae_lightning.runs.run import Run
from vae_lightning.system.devices import choose_device

log = logging.getLogger("vae_lightning")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load_run(
    path: str | Path,
    checkpoint: str = "best",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Run:
    """Loads a trained model in eval mode, without gradients; with the EMA weights where the run has them.

    >>> from vae_lightning import load_run
    >>> vae = load_run("outputs/2026-11-20_12-00-00")
    >>> faces = vae.sample(16, temperature=0.7, seed=0, as_pil=True)
    >>> faces[0].size
    (64, 64)

    Args:
        path: a run folder (`outputs/…`, a job of a sweep), a `.ckpt` file, a folder that `vae export` wrote, or `last`.
        checkpoint: of a folder: "best", "last" (also while there is no best one yet), or a file.
        device: "cpu", "cuda", "mps", or "auto", which takes an accelerator if there is one.
        dtype: of the weights; bfloat16 and float16 halve the memory, outputs are float32 in any case.

    Raises:
        RunError: the path is not a run, the file is not a checkpoint of this framework, or a newer version wrote it.
        ValueError: this machine does not have the device, or the dtype is not allowed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: allowed are {', '.join(map(str, DTYPES))}")
    place = choose_device(device)
    file = checkpoint_file(Path(path).expanduser(), checkpoint)
    return build_run(file, read_checkpoint(file), place, dtype)


def build_run(
    file: Path, content: dict[str, Any], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Run:
    """What `load_run` returns, from a checkpoint that has been read.

    Raises:
        RunError: the checkpoint does not hold one of the package's autoencoders.
    """
    try:
        model = load_model(content)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        log.warning(f"{file}: its weights hold nan or inf; the training has diverged")
    check_record(content[RECORD_KEY], file)
    return Run(model.to(device, dtype), file, content)
