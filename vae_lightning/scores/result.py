"""The result of a metric or an edit: values, tables and pictures with their protocol, and how it is written."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from vae_lightning.pictures.grids import write_picture
from vae_lightning.runs.layout import EDIT_JSON
from vae_lightning.system.whole_files import replacing, write_json

Cell = str | int | float | None  # of a table
Row = dict[str, Cell]  # column -> cell
Direction = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Value:
    """One number of a card.

    `value` is None where it was not measured; `note` then says why and what to do. Otherwise `note` says what a
    reader has to know to compare the number with another's.
    """

    name: str
    value: float | None
    note: str = ""
    interval: tuple[float, float] | None = None  # 95 %
    better: Direction = ""

    @classmethod
    def missing(cls, name: str, reason: str) -> "Value":
        return cls(name, None, f"not measured: {reason}")


@dataclass(frozen=True)
class Result:
    """The result of one metric or one edit.

    Args:
        values: numbers of the card.
        protocol: how they were found, as plain data: counts, seeds, sources, and numbers that belong to no table.
        remarks: verdicts, one sentence each.
        tables: by file stem.
        pictures: RGB, by file stem.
    """

    values: Sequence[Value] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    pictures: Mapping[str, UInt8[np.ndarray, "_height _width 3"]] = field(default_factory=dict)

    def file_names(self) -> list[str]:
        """Pictures, tables, and the settings."""
        return [*(f"{stem}.png" for stem in self.pictures), *(f"{stem}.csv" for stem in self.tables), EDIT_JSON]

    def write(self, folder: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Writes `<stem>.png`, `<stem>.csv` and `edit.json` with the settings; returns the files, pictures first."""
        folder.mkdir(parents=True, exist_ok=True)
        for stem, picture in self.pictures.items():
            write_picture(folder / f"{stem}.png", picture)
        for stem, rows in self.tables.items():
            file = folder / f"{stem}.csv"
            with replacing(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as content:
                writer = csv.DictWriter(content, list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(rows)
        numbers = {"values": [asdict(value) for value in self.values]} if self.values else {}
        write_json(folder / EDIT_JSON, {"settings": dict(settings), **self.protocol, **numbers})
        return [folder / name for name in self.file_names()]
