"""What a choice of β costs: rate, distortion and active units along a line of settings, and where that line bends."""

from collections.abc import Sequence

import numpy as np

from vae_lightning.report.table import Setting, Table, series

MOST_LINES = 4  # of a sweep are described; the chart has all of them
CLEAR_BEND = 0.05  # of the distance between the ends, both axes scaled to [0, 1]


def sentences_about_beta(table: Table) -> list[str]:
    """A sentence per architecture and latent size of which several β were measured, those of the best runs first."""
    distortion = "reconstruction_nats" if table.ranked_by == "elbo_nats" else "mse"
    order = {id(setting): place for place, setting in enumerate(table.settings)}
    found: list[tuple[int, str]] = []
    for line, settings in series(table).items():
        points = [entry for entry in settings if entry.is_measured and None not in position(entry, distortion)]
        if len({entry.jobs[0].beta for entry in points}) > 1:
            found.append((min(order[id(entry)] for entry in points), _sentence(line, points, distortion, table.split)))
    sentences = [sentence for _, sentence in sorted(found)]
    more = len(sentences) - MOST_LINES
    left_out = [f"{more} more lines over β are in the chart of rate and distortion."] if more > 0 else []
    return [*sentences[:MOST_LINES], *left_out]


def position(setting: Setting, distortion: str) -> tuple[float | None, float | None]:
    """Rate and distortion; None where one was not measured."""
    return setting.mean("kl_nats"), setting.mean(distortion)


def find_bend(rates: Sequence[float], distortions: Sequence[float]) -> int | None:
    """The place where the curve is furthest below the straight line between its ends; None where it hardly bends.

    Source: Satopää et al. 2011, the "kneedle" criterion, doi:10.1109/ICDCSW.2011.20.
    """
    across, up = (np.asarray(values, float) for values in (rates, distortions))
    widths = across[0] - across[-1], up[-1] - up[0]
    if len(across) < 3 or min(widths) <= 0:
        return None
    below = 1 - (across - across[-1]) / widths[0] - (up - up[0]) / widths[1]
    bend = int(below.argmax())
    return bend if below[bend] > CLEAR_BEND else None


def _sentence(line: str, points: Sequence[Setting], distortion: str, split: str) -> str:
    rates, distortions = ([entry.mean(name) or 0.0 for entry in points] for name in ("kl_nats", distortion))
    bend = find_bend(rates, distortions)
    unit = "nats" if distortion.endswith("_nats") else "mse per pixel"
    costs = [
        f"a rate of {rate:.3g} nats, a distortion of {other:.4g} {unit}{_active(entry)}"
        for entry, rate, other in zip(points, rates, distortions, strict=True)
    ]
    ends = f"β = {_beta(points[0])} has {costs[0]}; β = {_beta(points[-1])} has {costs[-1]}."
    if bend is None:
        few = "" if len(points) > 2 else " (two β do not show a bend)"
        return f"Choosing β for {line} ({split} split): the curve of rate and distortion has no clear bend{few}. {ends}"
    return (
        f"Choosing β for {line} ({split} split): the curve of rate and distortion bends at β = {_beta(points[bend])}, "
        f"with {costs[bend]}. {ends}"
    )


def _beta(setting: Setting) -> str:
    return f"{setting.jobs[0].beta:.4g}"


def _active(setting: Setting) -> str:
    active = setting.mean("active_units")
    return "" if active is None else f", {active:.3g} active units"
