"""What is kept beside a checkpoint because it was fitted to its latents of some images: of no use to others."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from vae_lightning.system.tensor_files import UNREADABLE, read_tensors
from vae_lightning.system.whole_files import write_bytes

log = logging.getLogger("vae_lightning")

Mark = Mapping[str, Any]  # of data: all that what is fitted to them depends on


@dataclass(frozen=True)
class FittedFile:
    """Plain data and tensors, read without running any code.

    Args:
        path: of the file; it and its folder are made when something is written.
        checkpoint_digest: of the checkpoint. What was fitted to another is not used.
        at_hand: mark of the data that are open. What was fitted to others is not used, with a word. None: none are
            open, and what is there is used; if it was fitted to other images than the checkpoint, that is said.
        trained_on: mark of the data of the checkpoint, None where it does not tell.
    """

    path: Path
    checkpoint_digest: str
    at_hand: Mark | None = None
    trained_on: Mark | None = None
    format: ClassVar[int]  # to be raised when it is fitted or stored in another way: earlier ones are fitted again
    holds: ClassVar[str]
    error: ClassVar[type[ValueError]]

    @contextmanager
    def content(self) -> Iterator[dict[str, Any]]:
        """What is kept of this checkpoint and these data, to be made something of in the block; empty without any.

        Raises:
            ValueError: a file that is damaged, holds something else, or is of a newer version.
        """
        try:
            kept = read_tensors(self.path) if self.path.exists() else {}
            if kept and kept["format"] > self.format:
                raise ValueError(f"format {kept['format']}, this version reads up to {self.format}")
            mine = bool(kept) and (kept["format"], kept["checkpoint"]) == (self.format, self.checkpoint_digest)
            yield kept if mine and self._is_of_these_data(kept.get("data")) else {}
        except UNREADABLE as error:
            reason = str(error).split("\n")[0] or type(error).__name__
            raise self.error(
                f"{self.path} holds no {self.holds} that can be read ({reason}); delete it to fit them again"
            ) from error

    def fitted_to(self) -> Mark | None:
        """The mark of the data that what is kept says of itself; None where nothing is kept, or nothing said.

        Raises:
            ValueError: as of `content`.
        """
        with self.content() as content:
            mark: Mark | None = content.get("data")
            return mark

    def _is_of_these_data(self, said: Mark | None) -> bool:
        if self.at_hand is None:
            if said and self.trained_on and said["images"] != self.trained_on["images"]:
                _say(f"{self.path}: these {self.holds} were fitted to other images than the checkpoint was trained on")
            return True
        known = said or self.trained_on
        if known is None or known == self.at_hand:
            return True
        what = "images" if known["images"] != self.at_hand["images"] else "attributes, identities or crops"
        _say(f"{self.path}: these {self.holds} were fitted to other {what} than those at hand, and are not used")
        return False

    def keep(self, **content: Any) -> None:
        """Replaces what is there."""
        encoded = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        fitted_to = {"checkpoint": self.checkpoint_digest, "data": self.at_hand}
        torch.save({"format": self.format, **fitted_to, **content}, encoded)
        with encoded.getbuffer() as view:
            write_bytes(self.path, view)


@cache
def _say(message: str) -> None:
    """Once in a process, however often the file is read."""
    log.warning(message)
