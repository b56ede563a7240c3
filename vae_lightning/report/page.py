"""One HTML file that holds everything: numbers, pictures, style and script. It asks no network for anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.report.markup import bullets, figure_html, table_html
from vae_lightning.report.sweep import Sweep
from vae_lightning.report.table import Table

HERE = Path(__file__).parent
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Figure:
    """One picture of the page, encoded."""

    png: bytes
    title: str
    caption: str
    alt: str
    is_chart: bool = False
    is_aside: bool = False  # folded away


def page_html(
    sweep: Sweep, table: Table, answer: list[str], problems: list[str], figures: Sequence[Figure], evaluation: str = ""
) -> str:
    """The whole page.

    Args:
        sweep: what it is about.
        table: its settings, ranked.
        answer: sentences for the top.
        problems: what could not be drawn, a sentence each.
        figures: in the order in which they are shown.
        evaluation: a section of its own, as HTML.
    """
    title = f"Sweep {sweep.folder.resolve().name}"
    sections = [
        f'<header><h1>{escape(title)}</h1><p class="quiet">Report of {datetime.now():%Y-%m-%d %H:%M}</p></header>',
        f'<main><section class="answer" aria-label="Short answer">{bullets(answer)}</section>',
        _settings(sweep),
        f"<section><h2>Numbers</h2>{_explain(table)}{table_html(table, 'Numbers of all settings')}</section>",
        evaluation,
        _section("Curves", [figure for figure in figures if figure.is_chart]),
        _section("Faces", [figure for figure in figures if not figure.is_chart and not figure.is_aside]),
        _aside([figure for figure in figures if figure.is_aside]),
        f"<section><h2>What could not be drawn</h2>{bullets(problems)}</section>" if problems else "",
        "</main>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style></head><body>"
        + "\n".join(sections)
        + f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _settings(sweep: Sweep) -> str:
    shared = " ".join(f"<code>{escape(key)}={escape(value)}</code>" for key, value in sweep.shared.items())
    varied = " ".join(f"<code>{escape(key)}</code>" for key in sweep.varied)
    data = "<br>".join(escape(text) for text in data_used(sweep)) or "not known: no job has finished"
    return (
        "<section><h2>What was run</h2><dl>"
        f"<dt>Data</dt><dd>{data}</dd>"
        f"<dt>Differs between jobs</dt><dd>{varied or 'nothing'}</dd>"
        f"<dt>Same in all jobs</dt><dd>{shared or 'nothing was set'}</dd></dl></section>"
    )


def data_used(sweep: Sweep) -> list[str]:
    """What each data set was that a finished job used, in words."""
    return list(dict.fromkeys(describe_data(job.data) for job in sweep.jobs if job.data))


def describe_data(record: dict[str, Any]) -> str:
    known = data_sources().get(str(record.get("source")))
    source = str(record.get("source")) if known is None else known.title
    counts = " / ".join(str(record.get(f"{split}_count")) for split in ("train", "val", "test"))
    size = f"{record.get('image_size')}×{record.get('image_size')} {record.get('color')}"
    return f"{source} in {record.get('root')}: {counts} images (train / val / test), {size}, crop {record.get('crop')}"


def _explain(table: Table) -> str:
    seeds = " Several seeds of one setting: mean ± standard error over the finished runs." if table.has_seeds else ""
    split = {"test": "Test split, best epoch.", "val": "Validation split, best epoch."}[table.split]
    order = " ".join(_order_of_recognizers(table, reads) if reads else _order_of_vaes(table) for reads in table.kinds)
    return f'<p class="quiet">{split} {order}{seeds} A heading sorts by its column.</p>'


def _order_of_vaes(table: Table) -> str:
    rank = "ELBO at β = 1, highest" if table.ranked_by == "elbo_nats" else "bits per dimension, lowest"
    return (
        "Nats are sums over the pixels or latents of an image, mse is per pixel. "
        f"Ordered by {rank} first; plain autoencoders, which have none, follow by mse."
    )


def _order_of_recognizers(table: Table, reads: str) -> str:
    verb = "are ordered" if reads == table.kinds[0] else "follow"
    return (
        f"Networks that read {reads} {verb} by loss, lowest first: nats, summed over the {reads} of an image. "
        f"Their other scores are means over {reads}."
    )


def _section(title: str, figures: Sequence[Figure]) -> str:
    return f"<section><h2>{title}</h2>{''.join(map(_figure, figures))}</section>" if figures else ""


def _aside(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    shown = "".join(map(_figure, figures))
    summary = "The same latents by index instead of by effect"
    return f"<section><details><summary>{summary}</summary>{shown}</details></section>"


def _figure(figure: Figure) -> str:
    return figure_html(figure.png, figure.title, figure.caption, figure.alt, figure.is_chart)
