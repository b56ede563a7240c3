"""Where verbs write: what is there already is kept, and new results get a number behind their name."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is imported inside the verbs: --help and shell completion answer at once
    import numpy as np
    from jaxtyping import UInt8


def check_free(out: Path, names: Sequence[str] = ()) -> None:
    """Refuses a place that a person named and that holds a result.

    Args:
        out: a file, or a folder.
        names: of files that would be written into the folder.

    Raises:
        ValueError: a file is there already.
    """
    taken = [out] if out.is_file() else [out / name for name in names if (out / name).exists()]
    if taken:
        raise ValueError(
            f"--out {out}: {taken[0]} is there already, and nothing is overwritten: name another place, or delete it"
        )


def new_folder(wanted: Path) -> Path:
    """Makes the folder, or where it exists the first of `<name>_2`, `<name>_3`, … that does not."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for folder in _numbered(wanted, wanted.name, ""):
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("there is always another number")


def new_file(wanted: Path) -> Path:
    """The file, or where it exists the first of `<name>_2`, `<name>_3`, … that does not."""
    return next(path for path in _numbered(wanted, wanted.stem, wanted.suffix) if not path.exists())


def write_new_picture(wanted: Path, picture: "UInt8[np.ndarray, 'height width 3']") -> Path:
    """Writes a PNG to the first of `<name>.png`, `<name>_2.png`, … that is free or holds this very picture."""
    from vae_lightning.pictures.grids import as_png
    from vae_lightning.system.whole_files import replacing

    png = as_png(picture)
    free = (path for path in _numbered(wanted, wanted.stem, wanted.suffix) if not _holds_another(path, png))
    path = next(free)
    with replacing(path) as unfinished:
        unfinished.write_bytes(png)
    return path


def _numbered(wanted: Path, stem: str, suffix: str) -> Iterator[Path]:
    yield wanted
    yield from (wanted.with_name(f"{stem}_{number}{suffix}") for number in count(2))


def _holds_another(path: Path, png: bytes) -> bool:
    return path.exists() and not (path.is_file() and path.read_bytes() == png)
