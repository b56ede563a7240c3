"""Which runs of a sweep are shown in pictures of faces: all of a small sweep, some of a large one."""

from dataclasses import dataclass

from vae_lightning.report.sweep import Sweep
from vae_lightning.report.table import Table

MOST_SHOWN = 10


@dataclass(frozen=True)
class Selection:
    """The runs that are shown, in the sweep's order."""

    sweep: Sweep  # of these runs alone, so that labels name what differs between them
    words: str = ""  # which ones they are; empty where they are all


def select_shown(sweep: Sweep, table: Table) -> Selection:
    """All runs, or of more than ten the best, the worst, and others spread evenly over the sweep's order."""
    vaes = sweep.vaes
    if len(vaes) <= MOST_SHOWN:
        return Selection(sweep)
    ranked = table.ranked(None)
    ends = [ranked[0].jobs[0], ranked[-1].jobs[0]] if ranked else []
    candidates = [job for job in vaes if job.has_checkpoint]
    chosen = [job for job in ends if job.has_checkpoint]
    others = [job for job in candidates if not any(job is each for each in chosen)]
    num_others = min(len(others), MOST_SHOWN - len(chosen))
    places = {round(number * (len(others) - 1) / max(1, num_others - 1)) for number in range(num_others)}
    chosen += [others[place] for place in sorted(places)]
    shown = [job for job in candidates if any(job is each for each in chosen)]
    words = (
        f"{len(shown)} of {len(vaes)} runs: the best, the worst, and others spread evenly over the sweep. "
        "The table has all of them."
    )
    return Selection(Sweep(sweep.folder, shown), words)
