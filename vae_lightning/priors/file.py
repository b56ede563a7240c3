"""Where the priors fitted to a checkpoint's latents are kept."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vae_lightning.files import replacing
from vae_lightning.priors import Prior, PriorError, prior_class

FORMAT = 1  # to be raised when priors are fitted or stored in another way: files of another format are not used


class PriorFileError(ValueError):
    """The file holds no priors that can be read."""


@dataclass(frozen=True)
class PriorFile:
    """Fitted priors of one checkpoint, by name: plain data and tensors, read without running any code.

    Args:
        path: of the file; it and its folder are made when a prior is written.
        checkpoint_digest: of the checkpoint whose latents the priors are fitted to. Those of another are not used.
    """

    path: Path
    checkpoint_digest: str

    def names(self) -> list[str]:
        """Of the priors that are there for this checkpoint.

        Raises:
            PriorFileError: the file is damaged.
        """
        return list(self._kept())

    def read(self, name: str) -> Prior | None:
        """None where it is not there, or fitted to another checkpoint.

        Raises:
            PriorError: no such prior.
            PriorFileError: the file is damaged.
        """
        kind = prior_class(name)
        kept = self._kept().get(name)
        if kept is None:
            return None
        try:
            return kind.from_tensors(kept["settings"], kept["tensors"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise self._damaged(error) from error

    def write(self, name: str, prior: Prior) -> None:
        """Keeps it beside the others of the same checkpoint.

        Raises:
            PriorError: the prior is not what the name says.
            PriorFileError: the file is damaged.
        """
        if not isinstance(prior, prior_class(name)):
            raise PriorError(f"a prior {prior.name!r} cannot be kept as {name!r}")
        priors = self._kept() | {name: {"settings": prior.settings(), "tensors": prior.tensors()}}
        with replacing(self.path) as unfinished:
            torch.save({"format": FORMAT, "checkpoint": self.checkpoint_digest, "priors": priors}, unfinished)

    def _kept(self) -> dict[str, dict[str, Any]]:
        """Settings and tensors by name, of this checkpoint alone."""
        if not self.path.exists():
            return {}
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if (content["format"], content["checkpoint"]) != (FORMAT, self.checkpoint_digest):
                return {}
            return dict(content["priors"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> PriorFileError:
        reason = str(error).split("\n")[0]
        return PriorFileError(f"{self.path} holds no fitted priors that can be read ({reason}); delete it to fit again")
