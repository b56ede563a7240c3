"""Copies what was fitted to a run's latents into its export, under the digest of the new weights."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from vae_lightning.data import DataError
from vae_lightning.latents.priors import PRIORS
from vae_lightning.latents.statistics import LatentStatistics
from vae_lightning.runs.fitted import direction_file, prior_file, statistics_file
from vae_lightning.runs.run import Run
from vae_lightning.system.terminal import command


@dataclass(frozen=True)
class Carried:
    """What lies beside the exported weights.

    Args:
        priors: names.
        attributes: those with directions -> share of the training images that have the attribute.
        has_statistics: whether the latents' statistics are there.
    """

    priors: tuple[str, ...]
    attributes: dict[str, float]
    has_statistics: bool

    def in_words(self) -> str:
        """One line that lists what was copied."""
        parts = [
            f"priors {', '.join(self.priors)}" if self.priors else "",
            f"directions of {len(self.attributes)} attributes" if self.attributes else "",
            "statistics of the latents" if self.has_statistics else "",
        ]
        return ", ".join(part for part in parts if part) or "nothing"

    def missing(self, run: str) -> list[str]:
        """What was not copied, each with the command that fits it to the run."""
        others = [name for name in PRIORS if name not in ("normal", *self.priors)]
        steps = {
            f"priors {', '.join(others)}: {command(f'vae evaluate {run} --metrics samplers')}": not others,
            f"directions: {command(f'vae edit directions {run}')}": bool(self.attributes),
            "statistics of the latents: they need the data that the run was trained on": self.has_statistics,
        }
        return [step for step, is_there in steps.items() if not is_there]


def carry(vae: Run, weights: Path) -> Carried:
    """Writes the priors, directions and latent statistics of a run beside its exported weights; fits nothing.

    The copies still say which data they were fitted to, and are valid without these data.
    Statistics that nobody has measured yet are measured where the data is there, which takes seconds.

    Raises:
        ValueError: a file of the run is damaged.
    """
    priors = vae.prior_file
    copies = replace(prior_file(weights), at_hand=priors.fitted_to())
    for name in priors.names():
        prior = priors.read(name)
        assert prior is not None
        copies.write(name, prior)
    frequencies = {}
    directions = vae.direction_file.read()
    if directions is not None:
        replace(direction_file(weights), at_hand=vae.direction_file.fitted_to()).write(directions)
        counts = directions.counts_with + directions.counts_without
        shares = dict(zip(directions.names, (directions.counts_with / counts.clamp_min(1)).tolist(), strict=True))
        frequencies = {name: shares[name] for name in directions.fitted_names}
    statistics = _statistics(vae)
    if statistics is not None:
        replace(statistics_file(weights), at_hand=vae.statistics_file.fitted_to()).write(statistics)
    return Carried(tuple(priors.names()), frequencies, statistics is not None)


def _statistics(vae: Run) -> LatentStatistics | None:
    data = vae.record["data"]
    kept = vae.statistics_file.read()
    if kept is not None or (data["source"] == "faces" and not Path(data["root"]).is_dir()):
        return kept  # rendered faces that are gone would be drawn again, for a minute
    try:
        with Console(stderr=True).status("Measuring where the latents of held-out faces lie"):
            return vae.latent_statistics()
    except DataError:
        return None
