"""What is kept beside a checkpoint because it was fitted to its latents: of no use to another one."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from vae_lightning.files import replacing

UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, TypeError, ValueError)


@dataclass(frozen=True)
class FittedFile:
    """Plain data and tensors, read without running any code.

    Args:
        path: of the file; it and its folder are made when something is written.
        checkpoint_digest: of the checkpoint. What was fitted to another is not used.
    """

    path: Path
    checkpoint_digest: str
    format: ClassVar[int]  # to be raised when it is fitted or stored in another way: other formats are not used
    holds: ClassVar[str]
    error: ClassVar[type[ValueError]]

    @contextmanager
    def content(self) -> Iterator[dict[str, Any]]:
        """What is kept of this checkpoint, to be made something of in the block; empty where there is nothing.

        Raises:
            ValueError: a file that is damaged, or holds something else.
        """
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True) if self.path.exists() else {}
            mine = bool(kept) and (kept["format"], kept["checkpoint"]) == (self.format, self.checkpoint_digest)
            yield kept if mine else {}
        except UNREADABLE as error:
            reason = str(error).split("\n")[0]
            raise self.error(
                f"{self.path} holds no {self.holds} that can be read ({reason}); delete it to fit them again"
            ) from error

    def keep(self, **content: Any) -> None:
        """Replaces what is there."""
        with replacing(self.path) as unfinished:
            torch.save({"format": self.format, "checkpoint": self.checkpoint_digest, **content}, unfinished)
