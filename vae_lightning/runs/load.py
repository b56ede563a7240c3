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
    """A trained model, in eval mode, without gradients; the running mean of its weights where the run kept one.

    >>> from vae_lightning import load_run
    >>> vae = load_run("outputs/2026-11-20_12-00-00")
    >>> faces = vae.sample(16, temperature=0.7, seed=0, as_pil=True)
    >>> faces[0].size
    (64, 64)

    Args:
        path: a run folder (`outputs/…`, a job of a sweep), a `.ckpt` file, a folder that `vae export` wrote, or `last`.
        checkpoint: which of a folder's checkpoints, "best", "last" or a file; without a best one yet, ask for "last".
        device: where the model goes: "cpu", "cuda", "mps", or "auto", the best there is.
        dtype: of the weights; bfloat16 and float16 halve the memory, what comes out is float32 all the same.

    Raises:
        RunError: no run there, a file that is no checkpoint of ours, or one of a newer version.
        ValueError: no such device here.
        ValueError: no such dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: allowed are {', '.join(map(str, DTYPES))}")
    place = choose_device(device)
    file = checkpoint_file(Path(path).expanduser(), checkpoint)
    return build_run(file, read_checkpoint(file), place, dtype)


def build_run(
    file: Path, content: dict[str, Any], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Run:
    """What `load_run` gives, from a checkpoint that has been read.

    Raises:
        RunError: the checkpoint does not hold an autoencoder of ours.
    """
    try:
        model = load_model(content)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        log.warning(f"{file}: its weights hold nan or inf, the training diverged")
    check_record(content[RECORD_KEY], file)
    return Run(model.to(device, dtype), file, content)
