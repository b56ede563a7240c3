"""CelebA's annotation files: one file name and a few whole numbers per row, separated by blanks or commas."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int8, Int64

from vae_lightning.data.sources.source import DataError
from vae_lightning.system.names import is_a_name, shown

Values = Int64[np.ndarray, "rows columns"] | Int8[np.ndarray, "rows columns"]
Valid = Bool[np.ndarray, "rows columns"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # that editors on Windows put first
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
LONGEST_COUNT = 12  # digits
SEPARATORS = np.zeros(256, bool)
SEPARATORS[list(b" \t\r\n,")] = True
PIECE_BYTES = 2**18  # parsed at a time: in the processor's cache, and no memory to ask for; three times as fast


@dataclass(frozen=True, eq=False)
class Table:
    """An annotation file; `filenames` stay bytes, which is faster, until text is needed."""

    path: Path
    column_names: tuple[str, ...]
    filenames: list[bytes]
    values: Values

    def aligned_to(self, filenames: list[bytes], because: Path) -> Values:
        """The values in the order of `filenames`, which the file `because` lists. Raises: DataError."""
        if self.filenames == filenames:
            return self.values
        row_of = {filename: row for row, filename in enumerate(self.filenames)}
        if len(row_of) < len(self.filenames):
            repeated = shown(first_repeated(self.filenames).decode(errors="replace"))
            raise DataError(f"{self.path} lists {repeated} more than once: remove the other rows.")
        rows = [row_of.get(filename, -1) for filename in filenames]
        missing = [filename for filename, row in zip(filenames, rows, strict=True) if row < 0]
        if missing:
            first = shown(missing[0].decode(errors="replace"))
            raise DataError(
                f"{self.path} has no row for {len(missing):,} of the {len(filenames):,} images in "
                f"{because.name} (the first: {first}). The two files do not belong together: take both "
                "from the same download."
            )
        return self.values[rows]


def first_repeated(names: Sequence[Any]) -> Any:
    """The first name that occurs twice; there has to be one."""
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError


def read_table(path: Path, columns: int | None = None, *, allowed: tuple[int, ...] | None = None) -> Table:
    """Read one annotation file, 202,599 rows of 40 columns in about 0.3 s.

    Layouts: rows only (`000001.jpg 0`); a line with the row count and a line of column names before them; or
    a CSV file whose first line is `image_id,<column names>`. LF and CRLF. `columns=None` takes what the
    header names.

    Raises: DataError for a file that cannot be read, a count that does not match, a row of another length, or a value
    outside `allowed`.
    """
    try:
        content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if content.startswith(UTF_16):
        raise DataError(f"{path} is written in UTF-16: save it as UTF-8, or download it again.")
    declared, names, start = _read_header(content)
    _check_columns(path, names)
    columns = len(names) if columns is None else columns
    if names and len(names) != columns:
        raise DataError(f"{path}: the header names {len(names)} columns, expected {columns}.")
    filenames: list[bytes] = []
    values: list[Values] = []
    while start < len(content):
        end = content.find(b"\n", start + PIECE_BYTES) + 1 or len(content)
        piece = _parse_rows(content[start:end], columns, allowed)
        if piece is None:
            raise _explain_bad_row(path, columns, allowed)
        filenames += piece[0]
        values.append(piece[1])
        start = end
    if not filenames:
        raise _explain_bad_row(path, columns, allowed)
    if declared is not None and declared != len(filenames):
        raise DataError(
            f"{path}: its first line promises {declared:,} rows, it has {len(filenames):,}. The file is cut "
            "short or was edited: download it again, or write the true count into its first line."
        )
    return Table(path, names, filenames, np.concatenate(values))


def _check_columns(path: Path, names: tuple[str, ...]) -> None:
    bad = [name for name in names if not is_a_name(name)]
    if bad:
        raise DataError(f"{path}: the header names {shown(bad[0])!r}, which cannot name a column. Download it again.")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the header names {first_repeated(names)} more than once. Download it again.")


def _parse_rows(rows: bytes, columns: int, allowed: tuple[int, ...] | None) -> tuple[list[bytes], Values] | None:
    """File names and values of whole lines, or None if a line is wrong."""
    buffer = np.frombuffer(rows, np.uint8)
    starts, ends = _find_tokens(buffer)
    if len(starts) % (columns + 1):
        return None
    starts, ends = starts.reshape(-1, columns + 1), ends.reshape(-1, columns + 1)
    parse = _parse_signs if allowed == (-1, 1) else _parse_integers
    values, valid = parse(buffer, starts[:, 1:], ends[:, 1:])
    if allowed is not None and parse is _parse_integers:
        valid &= np.logical_or.reduce([values == value for value in allowed])
    if not valid.all():
        return None
    spans = zip(starts[:, 0].tolist(), ends[:, 0].tolist(), strict=True)
    return [rows[first:last] for first, last in spans], values


def _read_header(content: bytes) -> tuple[int | None, tuple[str, ...], int]:
    """The declared row count, the column names, and where the rows start."""
    first, _, rest = content.partition(b"\n")
    if first.strip().isdigit() and len(first.strip()) <= LONGEST_COUNT:
        names = rest.partition(b"\n")[0]
        return int(first), tuple(names.decode(errors="replace").split()), len(first) + len(names) + 2
    if first.startswith(b"image_id"):
        columns = first.decode(errors="replace").strip().split(",")[1:]
        return None, tuple(columns), len(first) + 1
    return None, (), 0


def _find_tokens(buffer: np.ndarray) -> tuple[Int64[np.ndarray, " tokens"], Int64[np.ndarray, " tokens"]]:
    """First and one-past-last positions of everything between separators."""
    inside = np.zeros(len(buffer) + 2, bool)
    np.logical_not(SEPARATORS[buffer], out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _parse_signs(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[Values, Valid]:
    """Parses tokens that should be 1 or -1: CelebA has eight million, and this takes a third of `_parse_integers`."""
    negative = buffer[starts] == ord("-")
    valid = (buffer[ends - 1] == ord("1")) & (ends - starts == 1 + negative)
    return np.where(negative, np.int8(-1), np.int8(1)), valid


def _parse_integers(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[Values, Valid]:
    """The tokens as whole numbers, and which of them are whole numbers."""
    negative = buffer[starts] == ord("-")
    lengths = ends - starts
    valid = (lengths > negative) & (lengths < 18)
    values = np.zeros(starts.shape, np.int64)
    for place in range(min(int(lengths.max(initial=0)), 17)):
        positions = ends - 1 - place
        digits = buffer[positions] - np.uint8(ord("0"))
        inside = positions >= starts + negative
        valid &= ~inside | (digits <= 9)
        values += np.where(inside, digits, np.uint8(0)) * np.int64(10**place)
    return np.where(negative, -values, values), valid


def _explain_bad_row(path: Path, columns: int, allowed: tuple[int, ...] | None) -> DataError:
    """Finds the first wrong row, after `_parse_rows` has found that there is one."""
    expected = f"a file name and {columns} " + (
        f"values out of {', '.join(map(str, allowed))}" if allowed else "whole numbers"
    )
    content = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    declared, names, _ = _read_header(content)
    skipped = 2 if declared is not None else int(bool(names))
    for number, line in enumerate(content.splitlines(), start=1):
        tokens = line.replace(b",", b" ").split()
        if number <= skipped or not tokens:
            continue
        good = {str(value).encode() for value in allowed} if allowed else None
        bad = [t for t in tokens[1:] if (t not in good if good else not t.lstrip(b"-").isdigit())]
        if len(tokens) != columns + 1 or bad:
            found = repr(shown(bad[0].decode(errors="replace"))) if bad else f"{len(tokens) - 1} values"
            return DataError(
                f"{path}, line {number}: found {found} for {shown(tokens[0].decode(errors='replace'))!r}, expected "
                f"{expected}. The file is cut short or was edited: download it again."
            )
    return DataError(f"{path} has no rows: expected {expected} per line. Download it again.")
