"""What is kept beside a checkpoint because it was fitted to its latents: of no use to another one."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from vae_lightning.files import write_bytes
from vae_lightning.tensor_files import UNREADABLE, read_tensors


@dataclass(frozen=True)
class FittedFile:
    """Plain data and tensors, read without running any code.

    Args:
        path: of the file; it and its folder are made when something is written.
        checkpoint_digest: of the checkpoint. What was fitted to another is not used.
    """

    path: Path
    checkpoint_digest: str
    format: ClassVar[int]  # to be raised when it is fitted or stored in another way: earlier ones are fitted again
    holds: ClassVar[str]
    error: ClassVar[type[ValueError]]

    @contextmanager
    def content(self) -> Iterator[dict[str, Any]]:
        """What is kept of this checkpoint, to be made something of in the block; empty where there is nothing.

        Raises:
            ValueError: a file that is damaged, holds something else, or is of a newer version.
        """
        try:
            kept = read_tensors(self.path) if self.path.exists() else {}
            if kept and kept["format"] > self.format:
                raise ValueError(f"format {kept['format']}, this version reads up to {self.format}")
            mine = bool(kept) and (kept["format"], kept["checkpoint"]) == (self.format, self.checkpoint_digest)
            yield kept if mine else {}
        except UNREADABLE as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            raise self.error(
                f"{self.path} holds no {self.holds} that can be read ({reason}); delete it to fit them again"
            ) from error

    def keep(self, **content: Any) -> None:
        """Replaces what is there."""
        encoded = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        torch.save({"format": self.format, "checkpoint": self.checkpoint_digest, **content}, encoded)
        with encoded.getbuffer() as view:
            write_bytes(self.path, view)
