"""Checkpoints on disk: whole or not there."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from vae_lightning.files import write_bytes


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and then moves it there.

    Lightning's own way goes through the folder for temporary files. Where that is another file system the move is a
    copy, and a process that is killed, or a disk that is full, leaves half a checkpoint in the place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        content = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        torch.save(checkpoint, content)
        with content.getbuffer() as encoded:  # let go of at once: collected late, it would hold its owner open
            write_bytes(Path(path), encoded)
