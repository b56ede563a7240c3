"""Tables and figures as HTML. Everything that comes from names, configs or files is escaped here."""

import base64
import math
from dataclasses import dataclass
from html import escape

from vae_lightning.report.summary import spread
from vae_lightning.report.table import Setting, Table

DIGITS = {"elbo_nats": 5, "bits_per_dim": 4, "mse": 3}  # significant ones; 4 elsewhere
HEADINGS = {"images_per_second": "images/s", "seconds": "time"}


@dataclass(frozen=True)
class Cell:
    """Shown text (plain, not yet escaped), and what the column is sorted by."""

    text: str
    value: str
    kind: str = ""


def table_html(table: Table, caption: str) -> str:
    """A table that sorts by click and by keyboard; wider than a phone, it scrolls on its own."""
    head = [(key, "words") for key in table.varied]
    head += [("status", "words")]  # before the numbers, where a phone shows it without scrolling
    head += [("runs", "")] if table.has_seeds else []
    head += [(HEADINGS.get(name, name), "") for name in table.columns]
    head += [("what is wrong", "words")]
    headings = "".join(
        f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{escape(name)}</button></th>'
        for name, kind in head
    )
    rows = "".join(_row(table, setting) for setting in table.settings)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="sortable">'
        f"<thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(table: Table, setting: Setting) -> str:
    cells = [Cell(setting.overrides[key], setting.overrides[key], "words") for key in table.varied]
    cells += [Cell(setting.status, setting.status, "words")]
    cells += [Cell(str(len(setting.jobs)), str(len(setting.jobs)))] if table.has_seeds else []
    cells += [_number(setting, name) for name in table.columns]
    problems = " · ".join(setting.problems)
    cells += [Cell(problems, problems, "words long")]
    marked = ' class="best"' if setting is table.best(setting.reads) else ""
    inside = "".join(
        f'<td class="{cell.kind}" data-value="{escape(cell.value)}">{escape(cell.text)}</td>' for cell in cells
    )
    return f"<tr{marked}>{inside}</tr>"


def _number(setting: Setting, name: str) -> Cell:
    estimate = setting.values.get(name)
    if estimate is None:
        return Cell("", "")
    value = repr(estimate.mean) if math.isfinite(estimate.mean) else ""
    if name == "seconds" and value:
        return Cell(duration(estimate.mean), value)
    return Cell(spread(estimate, DIGITS.get(name, 4)), value)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def figure_html(png: bytes, title: str, caption: str, alt: str, is_chart: bool = False) -> str:
    """A picture inside the page itself; a wide one scrolls instead of shrinking until nothing can be read."""
    encoded = base64.b64encode(png).decode("ascii")
    kind = ' class="chart"' if is_chart else ""
    return (
        f"<figure{kind}><figcaption><h3>{escape(title)}</h3>{escape(caption)}</figcaption>"
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(title)}">'
        f'<img src="data:image/png;base64,{encoded}" alt="{escape(alt)}"></div></figure>'
    )


def bullets(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
