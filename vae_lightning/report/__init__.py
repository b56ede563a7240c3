"""A sweep folder -> one page that compares its runs: numbers, curves, and the same faces in every run.

Reads what runs left on disk; nothing is trained.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from vae_lightning.pictures.charts import Chart
from vae_lightning.pictures.grids import write_picture
from vae_lightning.report.curves import draw_rate_distortion, draw_training_curves
from vae_lightning.report.evaluations import (
    Evaluations,
    draw_against_beta,
    read_evaluations,
    write_evaluations_csv,
)
from vae_lightning.report.exhibits import Exhibition, exhibit_sweep
from vae_lightning.report.faces import draw_faces
from vae_lightning.report.page import Figure, page_html
from vae_lightning.report.selection import select_shown
from vae_lightning.report.summary import summarise
from vae_lightning.report.sweep import Sweep, read_sweep
from vae_lightning.report.table import Table, make_table, write_csv
from vae_lightning.runs.layout import check_links
from vae_lightning.system.names import reason_of
from vae_lightning.system.whole_files import replacing

__all__ = ["write_report"]

PICTURES = "report"
MOST_PROBLEMS = 20  # that are listed
PATTERNS = (
    "rate_distortion.png",
    "training_curves.png",
    "evaluation.png",
    "evaluation.csv",
    "reconstructions.png",
    "interpolation.png",
    "samples.png",
    "traversal_*_*.png",
)


def write_report(sweep: Path) -> Path:
    """Writes `report.html`, `report.csv` and the pictures in `report/` into a sweep's folder.

    Where settings were run with several seeds, `report/runs.csv` has a line for each run. Where runs have been
    evaluated, their cards are joined, on the page and in `report/evaluation.csv`.

    Args:
        sweep: the folder that `python train.py -m …` made, with one run folder per job.

    Returns:
        The page: one file that needs no other.

    Raises:
        RunError: not a folder, not a sweep, without any run, or with a link that leads elsewhere.
    """
    content = read_sweep(Path(sweep).expanduser())
    check_links(content.folder / PICTURES, content.folder)
    table = make_table(content)
    write_csv(content.folder / "report.csv", table)
    if table.has_seeds:
        write_csv(content.folder / PICTURES / "runs.csv", make_table(content, join_seeds=False))
    selection = select_shown(content, table)
    exhibition = exhibit_sweep(selection.sweep)
    _remove_earlier_pictures(content.folder / PICTURES)
    evaluations = read_evaluations(table)
    if evaluations.rows:
        write_evaluations_csv(content.folder / PICTURES / "evaluation.csv", evaluations)
    charts, no_charts = _charts(content, table, evaluations)
    figures = [*charts, *_faces(content.folder, selection.sweep, exhibition)]
    problems = [*no_charts, *_not_drawn(content, exhibition), *evaluations.problems]
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    problems = problems[:MOST_PROBLEMS] + more
    page = page_html(content, table, summarise(content, table), problems, figures, evaluations, selection.words)
    path = content.folder / "report.html"
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _remove_earlier_pictures(folder: Path) -> None:
    """Removes the pictures of an earlier report: one that cannot be drawn any more must not stay beside the page."""
    for pattern in PATTERNS:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)  # another report of the same sweep may be doing the same


def _charts(sweep: Sweep, table: Table, evaluations: Evaluations) -> tuple[list[Figure], list[str]]:
    """The charts that could be drawn, and for each other chart why not: the page appears without it."""
    plans: dict[str, tuple[Callable[[], Chart | None], str, str, str]] = {
        "rate_distortion": (
            partial(draw_rate_distortion, table),
            "Rate and distortion",
            "Each point is a finished setting, each line one architecture and latent size over β.",
            "Curve of reconstruction error against KL, points labelled with their beta.",
        ),
        "training_curves": (
            partial(draw_training_curves, sweep),
            "Training",
            "Validation after each epoch. The first, far worse ones may lie outside.",
            "Validation terms of all runs over optimizer steps, a line per run.",
        ),
        "evaluation": (
            partial(draw_against_beta, table, evaluations),
            "Evaluation against β",
            "From the cards of the runs. ↑ higher is better, ↓ lower is.",
            "A panel per number of the evaluation, over beta.",
        ),
    }
    figures, problems = [], []
    for name, (draw, title, caption, alt) in plans.items():
        try:
            picture = draw()
        except (ValueError, ArithmeticError) as error:  # numbers that matplotlib has no axis for
            problems.append(f"{title}: {reason_of(error)}")
            continue
        if picture is not None:
            png = write_picture(sweep.folder / PICTURES / f"{name}.png", picture)
            figures.append(Figure(png, title, caption, alt, is_chart=True))
    return figures, problems


def _faces(folder: Path, sweep: Sweep, exhibition: Exhibition) -> list[Figure]:
    return [
        Figure(
            write_picture(folder / PICTURES / picture.name, picture.pixels),
            picture.title,
            picture.caption,
            picture.alt,
            is_aside=picture.is_aside,
        )
        for picture in draw_faces(sweep, exhibition)
    ]


def _not_drawn(sweep: Sweep, exhibition: Exhibition) -> list[str]:
    missing = [f"{job.name}: no checkpoint" for job in sweep.vaes if not job.has_checkpoint]
    return [*(f"{name}: {problem}" for name, problem in exhibition.problems.items()), *missing]
