"""One HTML file that holds everything: numbers, pictures, style and script. It loads nothing from a network."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.report.cells import cells, headings
from vae_lightning.report.evaluations import Evaluations
from vae_lightning.report.summary import called
from vae_lightning.report.sweep import Sweep
from vae_lightning.report.table import Setting, Table
from vae_lightning.system.templates import html_template

LARGEST_PNG = 250_000  # bytes
WIDEST, HIGHEST, QUALITY = 1_600, 4_000, 88  # of a picture that is compressed for the page
TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Figure:
    """One picture of the page, encoded."""

    png: bytes
    title: str
    caption: str
    alt: str
    is_chart: bool = False
    is_aside: bool = False  # folded away

    @property
    def source(self) -> str:
        """The picture in the page's own text. A large one of faces is compressed; its file in report/ is not."""
        if self.is_chart or len(self.png) <= LARGEST_PNG:
            return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"
        return f"data:image/webp;base64,{base64.b64encode(_compressed(self.png)).decode('ascii')}"


def _compressed(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as picture:
        picture.thumbnail((WIDEST, HIGHEST))
        compressed = io.BytesIO()
        picture.save(compressed, format="webp", quality=QUALITY)
    return compressed.getvalue()


def page_html(
    sweep: Sweep,
    table: Table,
    answer: list[str],
    problems: list[str],
    figures: Sequence[Figure],
    evaluations: Evaluations | None = None,
    selected: str = "",
) -> str:
    """The whole page.

    Args:
        sweep: what it is about.
        table: its settings, ranked.
        answer: sentences for the top.
        problems: what could not be drawn, a sentence each.
        figures: in the order in which they are shown.
        evaluations: the joined cards of the runs.
        selected: which runs the pictures of faces show, where they are not all.
    """
    in_sight = [figure for figure in figures if not figure.is_aside]
    return html_template(TEMPLATE).render(
        title=f"Sweep {sweep.folder.resolve().name}",
        date=f"{datetime.now():%Y-%m-%d %H:%M}",
        answer=answer,
        sweep=sweep,
        data=data_used(sweep),
        explanation=_explanation(table),
        headings=headings(table),
        rows=[(_is_marked(table, setting), cells(table, setting)) for setting in table.settings],
        evaluations=evaluations or Evaluations([]),
        notes={"Faces": selected},
        sections={
            "Curves": [figure for figure in in_sight if figure.is_chart],
            "Faces": [figure for figure in in_sight if not figure.is_chart],
        },
        asides=[figure for figure in figures if figure.is_aside],
        problems=problems,
    )


def _is_marked(table: Table, setting: Setting) -> bool:
    """Whether it is the best one; a collapsed one is the best at nothing."""
    return setting is table.best(setting.reads) and not all(job.is_collapsed for job in setting.jobs)


def data_used(sweep: Sweep) -> list[str]:
    """What each data set was that a finished job used, in words."""
    return list(dict.fromkeys(describe_data(job.data) for job in sweep.jobs if job.data))


def describe_data(record: dict[str, Any]) -> str:
    known = data_sources().get(str(record.get("source")))
    source = str(record.get("source")) if known is None else known.title
    counts = " / ".join(str(record.get(f"{split}_count")) for split in ("train", "val", "test"))
    size = f"{record.get('image_size')}×{record.get('image_size')} {record.get('color')}"
    return f"{source} in {record.get('root')}: {counts} images (train / val / test), {size}, crop {record.get('crop')}"


def _explanation(table: Table) -> str:
    seeds = " Several seeds of one setting: mean ± standard error over the finished runs." if table.has_seeds else ""
    split = {"test": "Test split, best epoch.", "val": "Validation split, best epoch."}[table.split]
    order = " ".join(_order_of_recognizers(table, reads) if reads else _order_of_vaes(table) for reads in table.kinds)
    return f"{split} {order}{seeds} A heading sorts by its column."


def _order_of_vaes(table: Table) -> str:
    rank = "ELBO at β = 1, highest" if table.ranked_by == "elbo_nats" else "bits per dimension, lowest"
    return (
        "Rate and distortion are nats, sums over an image's latents or pixels; ELBO is at β = 1, mse is per pixel. "
        f"Ordered by {rank} first; plain autoencoders, which have none, follow by mse."
    )


def _order_of_recognizers(table: Table, reads: str) -> str:
    verb = "are ordered" if reads == table.kinds[0] else "follow"
    return (
        f"{called(reads).capitalize()}s {verb} by loss, lowest first: nats, summed over the {reads} of an image. "
        f"Their other scores are means over {reads}."
    )
