"""What an edit leaves on disk: pictures, tables, and the settings and numbers that belong to them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vae_lightning.pictures.grids import write_picture
from vae_lightning.system.whole_files import replacing, write_json

Cell = str | int | float | None
NUMBERS = "edit.json"


@dataclass(frozen=True)
class Outcome:
    """All that one edit gave.

    Args:
        pictures: RGB, by file stem.
        tables: by file stem; a row is column -> cell.
        numbers: everything else that was found, as plain data.
    """

    pictures: Mapping[str, UInt8[np.ndarray, "_height _width 3"]] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Cell]]] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, settings: Mapping[str, Any]) -> list[Path]:
        """`<stem>.png`, `<stem>.csv` and `edit.json` with settings and numbers; returns the files, pictures first."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for stem, picture in self.pictures.items():
            files.append(folder / f"{stem}.png")
            write_picture(files[-1], picture)
        for stem, rows in self.tables.items():
            files.append(folder / f"{stem}.csv")
            with replacing(files[-1]) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]) if rows else [])
                writer.writeheader()
                writer.writerows(rows)
        write_json(folder / NUMBERS, {"settings": dict(settings), **self.numbers})
        return [*files, folder / NUMBERS]
