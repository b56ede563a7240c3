"""Files beside a checkpoint with what was fitted to its latents, valid only for this checkpoint and these data."""

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

Mark = Mapping[str, Any]  # of data: everything that a fit to them depends on


@dataclass(frozen=True)
class FittedFile:
    """Plain data and tensors, read without running any code.

    Args:
        path: of the file, which is made with its folder when something is written.
        checkpoint_digest: of the checkpoint. A fit to another checkpoint is not used.
        at_hand: mark of the data that are open. A fit to other data is not used, and a warning says so. None: no data
            are open, and the fit is used; a warning says if it is of other images than the checkpoint.
        trained_on: mark of the checkpoint's data, None where it does not say.
    """

    path: Path
    checkpoint_digest: str
    at_hand: Mark | None = None
    trained_on: Mark | None = None
    format: ClassVar[int]  # raised with every change of fit or storage; older files are fitted again
    holds: ClassVar[str]
    error: ClassVar[type[ValueError]]

    @contextmanager
    def content(self) -> Iterator[dict[str, Any]]:
        """The file's content for this checkpoint and these data; empty without one.

        Raises:
            ValueError: the file, or what the block makes of it, is damaged, something else, or of a newer version.
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
        """The mark of the data that the fit is of; None where there is no fit or no mark.

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
        _say(f"{self.path}: these {self.holds} are not used, because they were fitted to other {what}")
        return False

    def keep(self, **content: Any) -> None:
        """Writes the file anew."""
        encoded = io.BytesIO()  # on a full disk torch.save ends with an internal error that does not say so
        fitted_to = {"checkpoint": self.checkpoint_digest, "data": self.at_hand}
        torch.save({"format": self.format, **fitted_to, **content}, encoded)
        with encoded.getbuffer() as view:
            write_bytes(self.path, view)


@cache
def _say(message: str) -> None:
    """Warns once per process, however often the file is read."""
    log.warning(message)
