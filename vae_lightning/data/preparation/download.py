"""Downloads CelebA from the Google Drive of its own page, file by file, and verifies each."""

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vae_lightning.data.preparation.official import ARCHIVE_BYTES, OfficialFile, md5_of, official_files
from vae_lightning.data.sources.celeba_files import (
    ARCHIVE,
    ATTRIBUTES,
    CELEBA_PAGE,
    DOWNLOAD,
    IDENTITIES,
    IMAGES,
    PARTITION,
)
from vae_lightning.data.sources.source import DataError
from vae_lightning.system.extras import check_extra
from vae_lightning.system.terminal import command

# with their folders in CelebA's Google Drive; small files first: Google's quota usually stops the images
FOLDERS = {PARTITION[0]: "Eval", ATTRIBUTES[0]: "Anno", IDENTITIES[0]: "Anno", ARCHIVE: "Img"}
UNFINISHED = ".download"
TIMEOUT_SECONDS = 60  # without a byte
RETRIES = 3
LICENCE = (
    "CelebA is for non-commercial research only, and may not be passed on. Who downloads it agrees to its terms:\n"
    f"{CELEBA_PAGE}"
)


def download_celeba(root: Path, say: Callable[[str], None]) -> None:
    """Puts CelebA's zip file and annotation files into `root`; correct files that are there are kept.

    `say` prints the licence before the download. An interrupted file is resumed.

    Raises: MissingExtraError without gdown; DataError for a file of that name with another content, too little space
    on the disk, no network, Google's quota, or a wrong checksum.
    """
    missing = _missing_files(root)
    unfinished = root / UNFINISHED
    if not missing:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a download that was finished by hand
        say(f"CelebA is in {root} already: nothing to download.")
        return
    check_extra("download", "--download", "gdown", otherwise=f"\n{_by_hand(root, missing)}")
    import gdown

    say(LICENCE)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if ARCHIVE in [file.name for file in missing] and free < ARCHIVE_BYTES:
        raise DataError(f"{root}: CelebA needs {ARCHIVE_BYTES / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.")
    unfinished.mkdir(exist_ok=True)
    try:
        while missing:
            _fetch(gdown, missing[0], root, missing)
            missing = missing[1:]
    finally:
        if not any(unfinished.iterdir()):
            unfinished.rmdir()


def _missing_files(root: Path) -> list[OfficialFile]:
    """Raises: DataError for a file that is not the official one, which might be somebody's work."""
    official = {file.name: file for file in official_files()}
    unpacked = any((root / IMAGES).glob("*"))
    missing = []
    for name in FOLDERS:
        if not (root / name).exists():
            if not (name == ARCHIVE and unpacked):
                missing.append(official[name])
        elif _checksum(root / name) != official[name].md5:
            raise DataError(
                f"{root / name} is there, and is not CelebA's official file (its MD5 is another): cut short or edited. "
                "Move it away, or download into another folder. Nothing was downloaded."
            )
    return missing


def _fetch(gdown: Any, file: OfficialFile, root: Path, missing: list[OfficialFile]) -> None:
    path = root / UNFINISHED / file.name
    try:
        with _progress(file.name) as progress:
            gdown.download(
                id=file.drive_id,
                output=str(path),
                quiet=True,
                resume=True,
                timeout=TIMEOUT_SECONDS,
                retries=RETRIES,
                progress=progress,
            )
    except gdown.exceptions.FileURLRetrievalError as error:
        reason = (
            f"Google Drive does not hand out {file.name} now: it allows so many downloads of a file per day, "
            f"by all people together. Try again tomorrow:\n  {_command(root)} --download\n({str(error).strip()})"
        )
        raise DataError(f"{reason}\n{_by_hand(root, missing)}") from error
    except (gdown.exceptions.DownloadError, OSError) as error:  # what requests raises are OSErrors
        reason = (
            f"{file.name} did not arrive. Is there a connection to the internet? Then try again; "
            f"what has arrived is kept:\n  {_command(root)} --download\n({str(error).strip()})"
        )
        raise DataError(f"{reason}\n{_by_hand(root, missing)}") from error
    if _checksum(path) != file.md5:
        path.unlink()
        reason = (
            f"{file.name} arrived with a wrong checksum and was removed: damaged on the way, or a page of Google's."
        )
        raise DataError(f"{reason} Try again:\n  {_command(root)} --download\n{_by_hand(root, missing)}")
    path.replace(root / file.name)


def _checksum(path: Path) -> str:
    with Console(stderr=True).status(f"Checksum of {path.name}"):
        return md5_of(path)


@contextmanager
def _progress(description: str) -> Iterator[Callable[[int, int | None], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=None)
        yield lambda num_bytes, total: bars.update(task, completed=num_bytes, total=total)


def _command(root: Path) -> str:
    return command(f"vae prepare {shlex.quote(str(root))}")


def _by_hand(root: Path, missing: list[OfficialFile]) -> str:
    width = max(len(file.name) for file in missing)
    files = "\n".join(f"       {file.name:{width}}   from the folder {FOLDERS[file.name]}/" for file in missing)
    return (
        "\nBy hand, in a browser:\n"
        f"  1. Open {CELEBA_PAGE}\n     and there, under Downloads, the Google Drive of Align&Cropped Images.\n"
        f"  2. Download\n{files}\n"
        f"  3. Put them into {root}\n     as they are, without unpacking.\n"
        f"  4. {_command(root)}\n"
        f"Kaggle has a copy, for which one needs an account there:\n  {DOWNLOAD}\n"
        f"  Unpack its archive.zip into {root}; then step 4."
    )
