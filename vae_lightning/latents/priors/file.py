"""The file of the priors that were fitted to a checkpoint's latents."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vae_lightning.latents.fitted_file import FittedFile
from vae_lightning.latents.priors import CoarsePrior, Prior, PriorError, prior_class


@dataclass(frozen=True)
class PriorFile(FittedFile):
    """Fitted priors of one checkpoint, by name."""

    format: ClassVar[int] = 1
    holds: ClassVar[str] = "fitted priors"
    error: ClassVar[type[ValueError]] = ValueError

    def names(self) -> list[str]:
        """Names of the priors that the file holds for this checkpoint.

        Raises:
            ValueError: the file is damaged.
        """
        return list(self._kept())

    def read(self, name: str) -> Prior | None:
        """None where the file does not hold it for this checkpoint.

        Raises:
            PriorError: unknown name.
            ValueError: the file is damaged.
        """
        kind = prior_class(name)
        with self.content() as content:
            kept = content["priors"].get(name) if content else None
            if kept is None:
                return None
            fitted = kind.from_tensors(kept["settings"], kept["tensors"])
            return _checked(CoarsePrior(fitted, **kept["of"]) if "of" in kept else fitted)

    def write(self, name: str, prior: Prior) -> None:
        """Adds it to the other priors of the checkpoint.

        Raises:
            PriorError: the prior is not what the name says.
            ValueError: the file is damaged.
        """
        fitted = prior.fitted if isinstance(prior, CoarsePrior) else prior
        if not isinstance(fitted, prior_class(name)):
            raise PriorError(f"{type(fitted).__name__} cannot be kept as the prior {name!r}")
        kept: dict[str, Any] = {"settings": fitted.settings(), "tensors": fitted.tensors()}
        if isinstance(prior, CoarsePrior):
            kept["of"] = {"levels": prior.levels, "latent_dim": prior.latent_dim}
        self.keep(priors=self._kept() | {name: kept})

    def _kept(self) -> dict[str, dict[str, Any]]:
        """Settings and tensors by name, of this checkpoint alone."""
        with self.content() as content:
            return dict(content["priors"]) if content else {}


def _checked(prior: Prior) -> Prior:
    """
    Raises:
        PriorError: it is not a density.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in prior.tensors().values()):
        raise PriorError("it holds nan or inf")
    return prior
