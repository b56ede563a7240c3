"""Folders of runs and sweeps that a command makes, and those of them that it leaves empty."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vae_lightning.launch.overrides import typed_path

OUTPUTS, MULTIRUN = Path("outputs"), Path("multirun")


def new_folder(parent: Path) -> Path:
    """Makes a folder named by the time, with a number behind it if another process has just taken that name."""
    parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        folder = parent / (now if number == 1 else f"{now}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


@contextmanager
def no_empty_folder(arguments: Sequence[str], typed: Sequence[str]) -> Iterator[None]:
    """Removes those folders that this command made and that are empty after the block.

    Args:
        arguments: of the command line, the folder of the run or the sweep among them.
        typed: the same as a person typed them; a folder that they do not name was made just now.
    """
    named = {word.partition("=")[0].lstrip("+") for word in typed}
    made: list[Path] = []
    for word in arguments:
        key = word.partition("=")[0]
        if key in ("hydra.run.dir", "hydra.sweep.dir", "sweep"):
            folder = MULTIRUN / typed_path(word) if key == "sweep" else typed_path(word)
            made += [path for path in (folder, *folder.parents) if key not in named or not path.exists()]
    try:
        yield
    finally:
        for path in made:
            if path.is_dir() and path != Path() and not any(path.iterdir()):
                path.rmdir()
