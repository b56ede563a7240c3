"""The card: all results of the evaluation of one checkpoint, with their protocol."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vae_lightning.evaluation.metric import Metric
from vae_lightning.runs.layout import CARD_JSON
from vae_lightning.scores.result import Result, Row, Value
from vae_lightning.system.names import is_a_name
from vae_lightning.system.names import shown as shown_name
from vae_lightning.system.plain_files import LARGEST_MEASURED, read_plain
from vae_lightning.system.templates import markdown_template
from vae_lightning.system.whole_files import replacing, write_json

MARKDOWN = Path(__file__).with_name("card.md.jinja")
FORMAT = 1
WIDE = 110  # columns of a terminal
MOST_ROWS = 60  # of a table in card.md; card.json has all
ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Section:
    """The result of one metric as plain data; pictures are files beside the card."""

    name: str
    title: str
    values: list[Value]
    protocol: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def of(cls, metric: Metric, measured: Result, seconds: float) -> "Section":
        return cls(
            name=metric.name,
            title=metric.title,
            values=[_finite(value) for value in measured.values],
            protocol={**metric.settings(), **measured.protocol},
            remarks=list(measured.remarks),
            tables={name: list(rows) for name, rows in measured.tables.items()},
            pictures=[f"{stem}.png" for stem in measured.pictures],
            seconds=round(seconds, 1),
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Section":
        """Raises: ValueError, LookupError, TypeError or AttributeError where the data are not a section."""
        values = [
            Value(**{**value, "interval": tuple(value["interval"]) if value["interval"] else None})
            for value in plain["values"]
        ]
        section = cls(**{**plain, "values": values})
        _check_section(section)
        return section


@dataclass(frozen=True)
class Card:
    """`about` says what was evaluated and how; each section is one metric."""

    about: dict[str, Any]
    sections: list[Section]

    @property
    def values(self) -> dict[str, float]:
        """All measured values by name."""
        return {
            value.name: value.value for section in self.sections for value in section.values if value.value is not None
        }

    @property
    def pictures(self) -> list[str]:
        """Names of the files beside the card."""
        return [picture for section in self.sections for picture in section.pictures]

    def write(self, folder: Path) -> None:
        """Writes `card.json` and `card.md`, and deletes pictures that only an earlier card there had."""
        assert len(set(self.pictures)) == len(self.pictures), "two metrics give their pictures the same name"
        for picture in _pictures_of(folder / CARD_JSON):
            if picture not in self.pictures:
                (folder / picture).unlink(missing_ok=True)
        write_json(
            folder / CARD_JSON, {"format": FORMAT, "about": self.about, "sections": list(map(asdict, self.sections))}
        )
        with replacing(folder / "card.md") as unfinished:
            unfinished.write_text(to_markdown(self), encoding="utf-8")


def read_card(file: Path) -> Card:
    """Reads a card that `write` wrote.

    Raises:
        ValueError: the file is damaged, or of a newer version.
    """
    try:
        plain = read_plain(file)
        if plain["format"] > FORMAT:
            raise ValueError(f"format {plain['format']}, this version reads up to {FORMAT}")
        about, sections = plain["about"], [Section.from_plain(section) for section in plain["sections"]]
        if not all(isinstance(about[name], kind) for name, kind in (("split", str), ("count", int), ("seed", int))):
            raise ValueError("it does not name the split, count and seed of the evaluation")
        return Card(about, sections)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read as a card ({error}); evaluate the run again") from error


def _check_section(section: Section) -> None:
    """Checks that values, remarks and tables have the right types, and that pictures lie beside the card.

    Raises:
        ValueError: they do not.
    """
    numbers = [value.value for value in section.values if value.value is not None]
    numbers += [end for value in section.values for end in value.interval or ()]
    texts = [section.name, section.title, *section.remarks, *(value.note for value in section.values)]
    rows = [row for table in section.tables.values() for row in table]
    numbers.append(section.seconds)
    if not all(isinstance(number, int | float) and abs(number) <= LARGEST_MEASURED for number in numbers):
        raise ValueError(f"{shown_name(section.name)}: a value is not a finite number")
    if any(value.interval is not None and len(value.interval) != 2 for value in section.values):
        raise ValueError(f"{shown_name(section.name)}: an interval needs two ends")
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{shown_name(section.name)}: title, remarks and notes must be text, and tables must have rows"
        )
    if not all(is_a_name(picture) and picture.endswith(".png") for picture in section.pictures):
        raise ValueError(f"{shown_name(section.name)}: its pictures are not PNG files beside the card")
    if not all(is_a_name(value.name) and value.better in ARROWS for value in section.values):
        raise ValueError(f"{shown_name(section.name)}: a value has no valid name or direction")


def _pictures_of(file: Path) -> list[str]:
    """Pictures of the card at `file`; none where there is no card, or where it cannot be read."""
    try:
        return read_card(file).pictures
    except (OSError, ValueError):
        return []


def value_texts(value: Value) -> tuple[str, str]:
    """The number and its interval as text, with as many digits as the interval supports."""
    if value.value is None:
        return "–", ""
    if value.interval is None:
        return _digits(value.value, 4), ""
    low, high = value.interval
    width = high - low
    decimals = max(0, min(6, 1 - math.floor(math.log10(width)))) if 0 < width < math.inf else 4
    return f"{value.value:.{decimals}f}", f"{low:.{decimals}f} to {high:.{decimals}f}"


def to_rich(card: Card, columns: int) -> Group:
    """The card as one table for a terminal, a part per metric, with verdicts below.

    In a narrow terminal the notes are left out (card.md has them), and missing values are listed below the table.
    """
    is_wide = columns >= WIDE
    table = Table(box=box.SIMPLE_HEAD, title=Text(_heading(card)), title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    if is_wide:
        table.add_column("what it is", style="dim", ratio=1)
    remarks = [Text(f"• {remark}") for section in card.sections for remark in section.remarks]
    for section in card.sections:
        if not section.values:
            continue
        table.add_row(Text(section.title, style="bold"), "", "", *([f"{section.seconds:.1f} s"] if is_wide else []))
        for names, value in _joined(section.values):
            table.add_row(Text("  " + names), *map(Text, value_texts(value)), *([Text(value.note)] if is_wide else []))
            if value.value is None and not is_wide:
                remarks.append(Text(f"• {names}: {value.note}"))
        table.add_section()
    return Group(table, *remarks)


def to_markdown(card: Card, level: int = 1) -> str:
    """The card as a page in Markdown, with protocols, tables and pictures.

    Args:
        card: what was measured.
        level: of the page's heading.
    """
    return markdown_template(MARKDOWN).render(
        card=card,
        level=level,
        heading=_heading(card),
        plain=_plain,
        value_rows=lambda section: [
            [f"{names} {ARROWS[value.better]}".strip(), *value_texts(value), value.note]
            for names, value in _joined(section.values)
        ],
        cell_rows=lambda rows: [[_plain(cell) for cell in row.values()] for row in rows[:MOST_ROWS]],
        most_rows=MOST_ROWS,
    )


def _heading(card: Card) -> str:
    about = card.about
    return f"{about['model']}, {about['checkpoint']}: {about['count']:,} {about['split']} images of {about['data']}"


def _joined(values: Sequence[Value]) -> list[tuple[str, Value]]:
    """Values with their names; neighbours that are missing for the same reason share a line."""
    joined: list[tuple[str, Value]] = []
    for value in values:
        if joined and value.value is None and joined[-1][1].value is None and joined[-1][1].note == value.note:
            joined[-1] = (f"{joined[-1][0]}, {value.name}", value)
        else:
            joined.append((value.name, value))
    return [(_shortened(names), value) for names, value in joined]


def _shortened(names: str) -> str:
    first, *others = names.split(", ")
    return names if len(others) < 2 else f"{first} and {len(others)} more"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return _digits(value, 4)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return "–" if value is None else str(value)


def _digits(value: float, digits: int) -> str:
    """The number with so many significant digits, and without an exponent where numbers of nats lie."""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _finite(value: Value) -> Value:
    if value.value is None or math.isfinite(value.value):
        return value
    return Value.missing(value.name, f"its value is {value.value}")
