"""`vae evaluate`: shows progress, then the card of a run or the table of a sweep, and where they were written."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vae_lightning.evaluation.card import Card, to_rich, value_texts
from vae_lightning.evaluation.evaluate import evaluate_run
from vae_lightning.evaluation.request import Request
from vae_lightning.report import write_report
from vae_lightning.report.sweep import Sweep, read_sweep
from vae_lightning.runs.layout import CARD_JSON, EVALUATION, check_links, checkpoint_file, is_sweep, run_folder
from vae_lightning.system.names import reason_of
from vae_lightning.system.progress import Observer, progress


def show_evaluation(run: str, request: Request, checkpoint: str, out: Path | None) -> None:
    """Evaluates a run, or every run of a sweep, and prints the results.

    Raises:
        ValueError: see `evaluate_run`, and `--out` for a sweep.
    """
    console, path = Console(), Path(run).expanduser()
    if not is_sweep(path):
        folder = out or run_folder(checkpoint_file(path, checkpoint)) / EVALUATION
        replaced = (folder / CARD_JSON).is_file()
        with progress() as observer:
            card = evaluate_run(path, request, checkpoint=checkpoint, out=out, observer=observer)
        console.print(to_rich(card, console.width))
        if replaced:
            console.print("It replaces the card that was there, whose numbers are still in measured/ beside it.")
        console.print(folder / "card.md", soft_wrap=True, highlight=False)
        return
    if out is not None:
        raise ValueError(
            f"--out {out}: {run} is a sweep, whose runs keep their cards in their own folders; leave it out"
        )
    sweep = read_sweep(path)
    num_replaced = sum((job.folder / EVALUATION / CARD_JSON).is_file() for job in sweep.jobs)
    with progress() as observer:
        cards, problems = evaluate_sweep(sweep, request, checkpoint, observer)
    console.print(comparison(cards))
    if num_replaced:
        console.print(
            f"{num_replaced} cards were there and are replaced; their numbers are still in evaluation/measured/."
        )
    for line in (*problems, write_report(path)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if not cards:
        raise ValueError(f"{run}: none of its {len(sweep.jobs)} runs could be evaluated")


def evaluate_sweep(
    sweep: Sweep, request: Request, checkpoint: str, observer: Observer
) -> tuple[list[tuple[str, Card]], list[str]]:
    """The cards of all runs with their labels (which may be equal), and why the other runs could not be evaluated."""
    cards: list[tuple[str, Card]] = []
    problems: list[str] = []
    for number, job in enumerate(sweep.jobs, start=1):
        at = f"{number}/{len(sweep.jobs)} {job.name}"
        watched = replace(observer, metric=partial(_tell, observer, at))
        try:
            check_links(job.folder / EVALUATION, sweep.folder)
            card = evaluate_run(job.folder, request, checkpoint=checkpoint, observer=watched)
            cards.append((sweep.label(job), card))
        except (ValueError, OSError, RuntimeError) as error:  # no checkpoint, lost data, memory that ran out
            problems.append(f"{job.name}: {reason_of(error)}")
    return cards, problems


def _tell(observer: Observer, at: str, title: str) -> None:
    observer.metric(f"{at}: {title}")


def comparison(cards: Sequence[tuple[str, Card]]) -> Table:
    """One row for each number, one column for each run."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for label, _ in cards:
        table.add_column(Text(label), justify="right")  # brackets of a list are not markup
    by_name = [{value.name: value for section in card.sections for value in section.values} for _, card in cards]
    for name in dict.fromkeys(name for values in by_name for name in values):
        cells = [value_texts(values[name])[0] if name in values else "" for values in by_name]
        if set(cells) - {"–", ""}:
            table.add_row(Text(name), *cells)
    return table
