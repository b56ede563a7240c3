"""Reads `metrics.csv`, which a run's logger (callbacks.MetricsCsv) writes: a row per optimizer step that logs."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

Row = dict[str, float]
OF_EVERY_ROW = ("epoch", "step")
TAIL_BYTES = 65_536  # some hundred rows


def read_metrics(path: Path, is_wanted: Callable[[str], bool] | None = None) -> list[Row]:
    """The rows of a `metrics.csv` without their empty cells; an empty list where the file does not exist.

    Args:
        path: the file.
        is_wanted: whether a column is read besides epoch and step; rows without any of them are left out.

    Raises:
        ValueError: a cell is not a number, or has no column.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(_rows(file, is_wanted))


def read_last_metrics(path: Path) -> list[Row]:
    """The last rows, so many as 64 KiB hold; an empty list where the file does not exist.

    Raises:
        ValueError: as `read_metrics`.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        header = file.readline()
        start = max(file.tell(), file.seek(0, io.SEEK_END) - TAIL_BYTES)
        file.seek(start)
        if start > len(header):
            file.readline()  # the rest of a row
        return list(_rows([line.decode() for line in (header, *file.readlines())], None))


class GrowingMetrics:
    """A file that is being written, of which each call reads only what was added since the call before.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = 0  # its inode: the logger writes a new file where columns come
        self._next = 0  # byte at which the last row begins, which the logger may write again

    def read(self) -> tuple[bool, list[Row]]:
        """Whether it is another file, so that all rows come again, and the new rows; the last comes again next time."""
        if not self._path.is_file():
            return True, []
        with self._path.open("rb") as file:
            inode, size = self._path.stat().st_ino, self._path.stat().st_size
            header = file.readline()
            is_new = inode != self._file or size < self._next
            if is_new:
                self._file, self._next = inode, len(header)
            file.seek(self._next)
            lines = [line for line in file if line.endswith(b"\n")]
        self._next += sum(map(len, lines[:-1]))
        return is_new, list(_rows([line.decode() for line in (header, *lines)], None))


def _rows(lines: Iterable[str] | IO[str], is_wanted: Callable[[str], bool] | None) -> Iterator[Row]:
    whole = (line for line in lines if line.endswith("\n"))  # a killed run may leave half a line
    try:
        rows = csv.reader(whole)
        header = next(rows, [])
        wanted = [place for place, name in enumerate(header) if is_wanted is None or is_wanted(name)]
        kept = [(place, name) for place, name in enumerate(header) if name in OF_EVERY_ROW or place in wanted]
        for cells in rows:
            if len(cells) > len(header):
                raise ValueError(f"a row does not fit the header ({len(cells)} cells for {len(header)} columns)")
            cells += [""] * (len(header) - len(cells))
            if any(cells[place] for place in wanted):
                yield {name: float(cells[place]) for place, name in kept if cells[place]}
    except csv.Error as error:  # a quote that is never closed
        raise ValueError(f"a row does not fit the header ({error})") from error
