"""Reads `metrics.csv`, which a run's logger (callbacks.MetricsCsv) writes."""

import csv
from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv` without their empty cells; an empty list where the file does not exist.

    Raises:
        ValueError: a cell is not a number, or has no column.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
    try:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(whole)]
    except (TypeError, csv.Error) as error:  # more cells than columns; a quote that is never closed
        raise ValueError(f"a row does not fit the header ({error})") from error
