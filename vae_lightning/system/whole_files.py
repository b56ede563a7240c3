"""Files that are whole or not there, since they are written beside their place and then moved; errors of full disks."""

import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANOTHER_PLACE = "choose another place (hydra.run.dir=…, data.data_dir=…, --out …)"
REASONS = {
    errno.ENOSPC: f"no space left, {{free}} free there. Make room or {ANOTHER_PLACE}",
    errno.EDQUOT: f"your quota there is used up. Make room or {ANOTHER_PLACE}",
    errno.EFBIG: f"the file would be larger than its file system or `ulimit -f` allows; {ANOTHER_PLACE}",
    errno.EROFS: f"the file system is read-only; {ANOTHER_PLACE}",
    errno.EACCES: f"no permission; {ANOTHER_PLACE}",
    errno.EPERM: f"not permitted; {ANOTHER_PLACE}",
}
PROBE_BYTES = 64 * 2**10  # what a run writes before it starts to train


class StorageError(OSError):
    """Nothing can be written at a place; the message says why, how much room is left there, and the fix."""

    def __init__(self, code: int, strerror: str, path: str) -> None:
        super().__init__(code, strerror, path)
        self.words = f"{path} cannot be written: {REASONS[code].format(free=free_space(Path(path)))}"

    def __str__(self) -> str:
        return self.words


def storage_error(error: BaseException, place: Path) -> StorageError | None:
    """The first error of a chain as a StorageError, if it says that something cannot be written; else None.

    Args:
        error: whatever was raised; what came up while it was handled hangs on it.
        place: what to name where the error itself names no file.
    """
    if not isinstance(error, OSError) or error.errno not in REASONS:
        return None
    first, name = error, ""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in REASONS:
            first, name = link, str(link.filename2 or link.filename or name)
        link = link.__cause__ or link.__context__
    if first is error and isinstance(first, StorageError):
        return first
    return StorageError(first.errno or 0, first.strerror or "", name or str(place))


def free_space(place: Path) -> str:
    """Free space, in words, of the file system on which a file or folder lies or would lie."""
    there = next((parent for parent in (place, *place.absolute().parents) if parent.exists()), Path("/"))
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB"


def check_writable(folder: Path) -> None:
    """Writes a small file where `folder` is or would be made, and deletes it.

    Raises:
        StorageError: it cannot be written.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    try:
        with written_aside(there / "probe") as probe:
            probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        error.filename = str(folder)
        raise storage_error(error, folder) or error  # noqa: B904 (it hangs on the error anyway)


def aside(path: Path) -> Path:
    """The file that this process writes before it becomes `path`; each process on each machine has its own."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def leftovers(path: Path) -> list[Path]:
    """Unfinished versions of `path` that killed processes of this machine have left."""
    beside = path.parent.glob(f"{glob.escape(aside(path).stem)}.*")
    return [found for found in beside if found.suffix[1:].isdecimal() and not _is_alive(int(found.suffix[1:]))]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's, or no number of a process
        return True
    return True


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Gives a path beside `path`; what is left there when the block ends is deleted."""
    unfinished = aside(path)
    for leftover in leftovers(path):
        leftover.unlink(missing_ok=True)
    try:
        yield unfinished
    except OSError as error:
        error.filename = str(path) if error.filename in (None, str(unfinished)) else error.filename
        raise
    finally:
        if unfinished.exists():  # asked first: on a read-only file system to remove nothing is an error too
            unfinished.unlink()


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Turns an error of the block about something that cannot be written into a StorageError."""
    try:
        yield
    except OSError as error:
        stuck = storage_error(error, place)
        if stuck is None or stuck is error:
            raise
        raise stuck from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there when the block ends without an error becomes `path`.

    Raises:
        StorageError: there is no room, or no permission. What was at `path` before is still there.
    """
    with naming(path), written_aside(path) as unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Raises: StorageError; see `replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Returns when the bytes are on the disk itself: a power cut leaves the old file or this one.

    Raises: StorageError; see `replacing`.
    """
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
