"""Every logged number in one file that a spreadsheet reads."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from vae_lightning.metrics_csv import read_metrics

FIRST_COLUMNS = ["epoch", "step"]


class MetricsCsv(Logger):
    """`metrics.csv`: a row per optimizer step at which something was logged, columns `epoch`,
    `step` and the names of the metrics.

    A resumed run goes on in the same file: rows of steps that are trained again are replaced. (Lightning's own
    CSV logger deletes the file instead.)

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._last_row: dict[str, float] = {}
        self._last_row_at = 0
        self._resumes_file = True

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's settings stand in config.yaml beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, float] = {**metrics, "step": step or 0}
        same_step = self._last_row.get("step") == row["step"]
        if same_step:  # the test comes after the last epoch, at its step
            row = {**self._last_row, **row, "epoch": self._last_row["epoch"]}
        if self._resumes_file or not set(row) <= set(self._columns):
            earlier = [kept for kept in read_metrics(self.path) if kept["step"] < row["step"]]
            names = {name for kept in [*earlier, row] for name in kept}
            self._columns = FIRST_COLUMNS + sorted(names - set(FIRST_COLUMNS))
            self._rewrite(earlier)
            self._resumes_file = same_step = False
        with self.path.open("r+", newline="") as file:
            self._last_row_at = file.seek(self._last_row_at) if same_step else file.seek(0, os.SEEK_END)
            file.truncate()
            csv.DictWriter(file, self._columns).writerow(row)
        self._last_row = row

    def _rewrite(self, rows: Sequence[Mapping[str, float]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".csv.unfinished")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(self.path)
