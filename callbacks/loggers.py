"""Loggers: every number in one CSV file, and TensorBoard's events."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vae_lightning.runs.layout import METRICS_CSV
from vae_lightning.runs.metrics_csv import read_metrics
from vae_lightning.system.whole_files import replacing

FIRST_COLUMNS = ["epoch", "step"]


class MetricsCsv(Logger):
    """`metrics.csv`: one row per optimizer step that logs, with `epoch` (from 1), `step` and the metrics as columns.

    A resumed run continues the file, without the rows of steps that are trained again. (Lightning's CSV logger deletes
    the file.)

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.path = Path(run_dir) / METRICS_CSV
        self._columns: list[str] = []
        self._last_row: dict[str, float] = {}
        self._last_row_at = 0
        self._is_open = False

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
        if not self._is_open:  # a run that was interrupted in its test does not train again
            self.keep_up_to(int(row["step"]))
        same_step = self._last_row.get("step") == row["step"]
        if same_step:  # the test comes after the last epoch, at its step
            row = {**self._last_row, **row, "epoch": self._last_row["epoch"]}
        if not set(row) <= set(self._columns):
            earlier = [kept for kept in read_metrics(self.path) if kept["step"] < row["step"]]
            self._rewrite([*earlier, row])
        else:
            with self.path.open("r+", newline="") as file:
                self._last_row_at = file.seek(self._last_row_at) if same_step else file.seek(0, os.SEEK_END)
                file.truncate()
                csv.DictWriter(file, self._columns).writerow(row)
        self._last_row = row

    @rank_zero_only
    def keep_up_to(self, step: int) -> None:
        """Drops the rows of later steps, which are trained again."""
        kept = [row for row in read_metrics(self.path) if row["step"] <= step]
        self._rewrite(kept)
        self._last_row = kept[-1] if kept else {}
        self._is_open = True

    def _rewrite(self, rows: Sequence[Mapping[str, float]]) -> None:
        names = {name for row in rows for name in row}
        self._columns = FIRST_COLUMNS + sorted(names - set(FIRST_COLUMNS))
        with replacing(self.path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            for row in rows:
                self._last_row_at = file.tell()
                writer.writerow({**row, "step": int(row["step"])})


class Events(TensorBoardLogger):
    """Lightning's TensorBoard logger without subfolders. A `$` in a folder's name stays; Lightning would expand it.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False)

    @property
    def log_dir(self) -> str:
        return str(Path(self.root_dir))
