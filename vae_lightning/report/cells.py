"""What stands in the cells of the page's table of settings."""

import math
from dataclasses import dataclass

from vae_lightning.report.summary import spread
from vae_lightning.report.sweep import OF_LEVELS, as_number, short_number
from vae_lightning.report.table import Setting, Table

DIGITS = {"elbo_nats": 5, "bits_per_dim": 4, "mse": 3}  # significant ones; 4 elsewhere
HEADINGS = {
    "elbo_nats": "ELBO",
    "reconstruction_nats": "distortion",
    "kl_nats": "rate (KL)",
    "bits_per_dim": "bits/dim",
    "active_units": "active",
    "balanced_accuracy": "balanced accuracy",
    "r_squared": "R²",
    "images_per_second": "images/s",
    "seconds": "time",
}


@dataclass(frozen=True)
class Cell:
    """The text, the value by which its column is sorted, and its class in the style sheet."""

    text: str
    value: str
    kind: str = ""


def headings(table: Table) -> list[tuple[str, str]]:
    """Name and class of each column; the status stands before the numbers, where a phone shows it."""
    runs = [("runs", "")] if table.has_seeds else []
    numbers = [(HEADINGS.get(name, name.replace(OF_LEVELS, "KL ")), "") for name in table.columns]
    wrong = [("what is wrong", "words")] if has_problems(table) else []
    return [*((key, "words") for key in (*table.varied, "status")), *runs, *numbers, *wrong]


def has_problems(table: Table) -> bool:
    return any(setting.problems for setting in table.settings)


def cells(table: Table, setting: Setting) -> list[Cell]:
    """The row of one setting."""
    words = [*(setting.overrides[key] for key in table.varied), setting.status]
    numbers = [as_number(word) is not None for word in words]
    count, problems = str(len(setting.jobs)), " · ".join(setting.problems)
    return [
        *(
            Cell(short_number(word), word, "words" if is_number else "words short")
            for word, is_number in zip(words, numbers, strict=True)
        ),
        *([Cell(count, count)] if table.has_seeds else []),
        *(_number(setting, name) for name in table.columns),
        *([Cell(problems, problems, "words long")] if has_problems(table) else []),
    ]


def _number(setting: Setting, name: str) -> Cell:
    estimate = setting.values.get(name)
    if estimate is None:
        return Cell("", "")
    value = repr(estimate.mean) if math.isfinite(estimate.mean) else ""
    if name == "seconds" and value:
        return Cell(duration(estimate.mean), value)
    kind = "" if estimate.standard_error is None else "short"  # on two lines where the page is too narrow
    return Cell(spread(estimate, DIGITS.get(name, 4)), value, kind)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
