"""Shared by the verbs of `vae edit`: opens a run and faces, writes an edit with its settings, and prints it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vae_lightning.cli.arguments import split_by_comma
from vae_lightning.cli.places import check_free, new_folder
from vae_lightning.data.sources.source import SPLITS
from vae_lightning.pictures.face_grids import Faces
from vae_lightning.recognition import Recognizer
from vae_lightning.recognition.load import load_recognizer
from vae_lightning.runs.fitted import digest_of
from vae_lightning.runs.layout import EDIT_JSON, EDITS, checkpoint_file, results_folder, run_folder
from vae_lightning.runs.load import load_run
from vae_lightning.runs.photographs import open_photographs
from vae_lightning.runs.run import Run
from vae_lightning.runs.subject import Subject, open_subject
from vae_lightning.runs.versions import made_with
from vae_lightning.scores.result import Cell, Result, Row
from vae_lightning.system.names import not_allowed
from vae_lightning.system.progress import progress
from vae_lightning.system.terminal import command

ROWS_SHOWN = 12  # of a table, in the terminal
LEAST_WIDTH = 8


@dataclass(frozen=True)
class Workplace:
    """A run with its data, opened for editing."""

    run: Run
    subject: Subject

    def recognizer(self, run: str) -> Recognizer:
        """An attribute classifier or factor regressor for this run's faces.

        Raises:
            RunError, ValueError: the run does not exist, or was trained on other crops or sizes.
        """
        return load_recognizer(run, device=self.subject.device, sees=self.run.config["data"])

    def faces(self, photographs: Sequence[Path] | None, count: int, **of_class: bool) -> tuple[Faces, list[str]]:
        """The user's pictures, or evenly spaced images of the split, and their names.

        Args:
            photographs: image files.
            count: how many images of the split.
            of_class: attribute=value, which the images of the split must have.

        Raises:
            DataError: a file is not an image.
            ValueError: the split has no images with these attributes.
        """
        if photographs:
            return self.run.preprocess(open_photographs(photographs)), [path.stem for path in photographs]
        rows = self.subject.rows(self.subject.split)
        attributes = self.subject.attributes(self.subject.split)
        for name, wanted in of_class.items():
            if attributes is not None and name in self.subject.data.attribute_names:
                rows = rows[attributes[rows, self.subject.data.attribute_names.index(name)] == wanted]
        if not len(rows):
            asked = ", ".join(f"{name}={wanted}" for name, wanted in of_class.items())
            raise ValueError(f"the {self.subject.split} split has no images with {asked}: name your own pictures")
        rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]
        return self.subject.pixels(self.subject.split, rows).cpu(), self.names(rows)

    def names(self, rows: np.ndarray) -> list[str]:
        return [Path(name).stem for name in self.subject.data.image_names(self.subject.split, torch.from_numpy(rows))]


@contextmanager
def opened(
    run: str,
    checkpoint: str,
    device: str,
    *,
    split: str = "test",
    seed: int = 0,
    out: Path | None = None,
    levels: str | None = "",
) -> Iterator[Workplace]:
    """Opens a run with its data, and shows a progress bar during the block.

    `levels` names those of a hierarchical model that are edited, by comma. Empty: its coarse levels; None: those that
    directions were fitted to, if any were.

    Raises:
        ValueError: run, device, split or levels do not exist, the data have moved, or the folder `out` holds an edit
            already.
    """
    if out is not None:
        check_free(out, [EDIT_JSON])
    if split not in SPLITS:
        raise ValueError(not_allowed("split", split, SPLITS))
    with progress() as observer:
        loaded = load_run(run, checkpoint, device)
        fitted = loaded.direction_file.read() if levels is None else None
        names = fitted.levels if fitted else split_by_comma(levels or "")
        yield Workplace(loaded, open_subject(loaded, split=split, seed=seed, track=observer.track, levels=names))


def finish(
    workplace: Workplace,
    outcome: Result,
    name: str,
    out: Path | None,
    settings: Mapping[str, Any],
    show: Mapping[str, Sequence[str]] | None = None,
    also: Sequence[str] = (),
) -> Path:
    """Writes the result, prints these columns of these tables and the paths of all files; returns the folder.

    Args:
        workplace: the run.
        outcome: the result.
        name: of the folder in the run's; an edit that is there already is kept, and this one gets a number.
        out: another folder, which must not hold any of the files.
        settings: what was asked for.
        show: columns of tables for the terminal.
        also: names of files that the caller will write into the folder.

    Raises:
        ValueError: `out` holds one of the files.
    """
    if out is not None:
        check_free(out, [*outcome.file_names(), *also])
    folder = out or new_folder(results_folder(workplace.run.path, EDITS, name))
    files = outcome.write(folder, {**settings, **_made_from(workplace)})
    console = Console()
    for title, columns in (show or {}).items():
        if title in outcome.tables:
            console.print(as_table(title, outcome.tables[title], columns))
    for remark in outcome.remarks:
        console.print(Text(remark))
    for file in files:
        console.print(file, soft_wrap=True, highlight=False)
    return folder


def _made_from(workplace: Workplace) -> dict[str, Any]:
    data, levels = workplace.subject.data.record(), workplace.subject.level_names
    return {
        "run": str(run_folder(workplace.run.path)),
        "checkpoint": workplace.run.path.name,
        "checkpoint_digest": digest_of(workplace.run.path),
        "split": workplace.subject.split,
        **({"levels": list(levels)} if levels else {}),
        "data": data["source"],
        "data_fingerprint": data["fingerprint"],
        "device": workplace.subject.device.type,
        "seed": workplace.subject.seed,
        "versions": made_with()["libraries"],
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def as_table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Table:
    """The first rows of a table; its CSV file has all rows and columns."""
    table = Table(title=title.replace("_", " "), caption=f"more: {title}.csv", box=box.SIMPLE_HEAD)
    table.title_justify = table.caption_justify = "left"
    for number, name in enumerate(columns):
        is_word = number == 0 or any(isinstance(row[name], str) for row in rows)
        words = name.replace("_", " ")
        width = max(LEAST_WIDTH, *map(len, words.split()))  # so that no word of the heading is broken
        table.add_column(Text(words), justify="left" if is_word else "right", min_width=width, overflow="fold")
    for row in rows[:ROWS_SHOWN]:
        table.add_row(*(Text(_shown(row[name])) for name in columns))  # brackets in a file's name are not markup
    return table


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def check_judge(judge: str, classifier: str) -> None:
    """Refuses a judge that guided the edit, because it would find the change that it asked for itself.

    Raises:
        ValueError: judge and classifier are the same network.
    """
    made = made_by(judge=judge, classifier=classifier)
    if classifier and made["judge_digest"] == made["classifier_digest"]:
        raise ValueError(
            f"--judge and --classifier are both {judge}: the judge must not have guided the edit; train another one "
            f"with {command('python train.py experiment=attribute_classifier seed=1')}"
        )


def made_by(**runs: str) -> dict[str, str]:
    """Checkpoint and digest of each network that took part, for the settings; empty names are left out."""
    files = {role: checkpoint_file(Path(run).expanduser(), recognizer=True) for role, run in runs.items() if run}
    digests = {f"{role}_digest": digest_of(file) for role, file in files.items()}
    return {role: str(file) for role, file in files.items()} | digests
