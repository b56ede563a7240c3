"""Prints what a check of CelebA found, and writes all of it to a file."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from vae_lightning.data.preparation.checking import Check, Problem
from vae_lightning.system.whole_files import replacing

NUM_SHOWN = 10  # names per problem; the file has all

OTHER_FILES = (
    "Another file: cut to a subset, edited, or with other line ends. Only a comparison with published figures needs "
    "the official ones."
)


def print_check(check: Check, problems_file: Path) -> None:
    """Problems are printed last, where people look first."""
    console = Console()
    _print(console, str(check.root))
    console.print(check.layout, markup=False, highlight=False)
    if check.counts:
        console.print(_counts(check))
        _print(console, check.verdict)
    if check.checksums:
        console.print(_checksums(check))
        if "another file" in check.checksums.values():
            console.print(OTHER_FILES, markup=False, highlight=False)
    for note in check.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    if check.num_decoded and not check.problems:
        _print(console, f"All {check.num_decoded:,} images that were decoded are whole.")
    for problem in check.problems:
        _print_problem(console, problem, problems_file)
    if check.problems:
        _print(console, f"\nThese data cannot be used as they are. All of this with all names: {problems_file}", "red")


def _print_problem(console: Console, problem: Problem, problems_file: Path) -> None:
    _print(console, f"\nWRONG: {problem.title}", "red")
    for name in problem.names[:NUM_SHOWN]:
        _print(console, f"  {name}")
    if len(problem.names) > NUM_SHOWN:
        _print(console, f"  … {len(problem.names) - NUM_SHOWN:,} more in {problems_file}")
    if problem.fix:
        _print(console, f"To do: {problem.fix}")


def write_problems(path: Path, check: Check) -> None:
    """If nothing is wrong, deletes what an earlier check has written."""
    if not check.problems:
        path.unlink(missing_ok=True)
        return
    blocks = [[f"{check.root}"]]
    for problem in check.problems:
        blocks.append([problem.title, *([f"To do: {problem.fix}"] if problem.fix else []), *problem.names])
    with replacing(path) as unfinished:
        unfinished.write_text("\n\n".join("\n".join(block) for block in blocks) + "\n", encoding="utf-8")


def _counts(check: Check) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("here", justify="right")
    table.add_column("all of CelebA", justify="right")
    for what, (here, official) in check.counts.items():
        table.add_row(what, f"{here:,}", f"{official:,}")
    return table


def _checksums(check: Check) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("file")
    table.add_column("checksum (MD5)")
    words = {
        "same": "same as the official file",
        "another file": "another file than the official one",
        "no official checksum": "there is no official one",
    }
    for name, verdict in check.checksums.items():
        table.add_row(name, words[verdict])
    return table


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
