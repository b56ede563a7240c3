"""Writes files that are complete or absent: each is written beside its place, then moved. Explains full disks."""

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
_staying: dict[Path, int | None] = {}  # folders and their number on the disk
PROBE_BYTES = 64 * 2**10  # about what a run writes before its training starts


class StorageError(OSError):
    """A file cannot be written, or read; the message names the reason, the free space and what to do."""

    def __init__(self, code: int, strerror: str, path: str) -> None:
        super().__init__(code, strerror, path)
        locked = _locked(Path(path)) if code in (errno.EACCES, errno.EPERM) else None
        if locked is not None:
            self.words = f"{locked} cannot be read: no permission. Its owner can give it, with chmod -R a+rX {locked}"
        else:
            self.words = f"{path} cannot be written: {REASONS[code].format(free=free_space(Path(path)))}"

    def __str__(self) -> str:
        return self.words


def storage_error(error: BaseException, place: Path) -> StorageError | None:
    """The first error of a chain as a StorageError if it says that a file cannot be written or read; else None.

    Args:
        error: with the chain of errors that were raised before it.
        place: named in the message if the error itself names no file.
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


def _locked(place: Path) -> Path | None:
    """The first part of a path that this user may not read: a folder that may not be entered, or a file."""
    for part in (*reversed(place.absolute().parents), place):
        if os.access(part, os.F_OK) and not os.access(part, os.X_OK if part != place and part.is_dir() else os.R_OK):
            return part
    return None


def free_space(place: Path) -> str:
    """Free space on the file system that holds a file or folder, or would hold it: `1,234.5 MB`."""
    above = (place, *place.absolute().parents)
    there = next((parent for parent in above if os.path.exists(parent)), Path("/"))  # noqa: PTH110 (never an error)
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB"


def check_writable(folder: Path) -> None:
    """Writes and deletes a small file in `folder`, or in its nearest parent that exists.

    Raises:
        StorageError: the file cannot be written.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    try:
        with written_aside(there / "probe") as probe:
            probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        error.filename = str(folder)
        raise storage_error(error, folder) or error  # noqa: B904 (it hangs on the error anyway)


def aside(path: Path) -> Path:
    """The temporary file that becomes `path`; each process on each machine has its own."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")


def leftovers(path: Path) -> list[Path]:
    """Temporary files of `path` that killed processes of this machine have left."""
    beside = path.parent.glob(f"{glob.escape(aside(path).stem)}.*")
    return [found for found in beside if found.suffix[1:].isdecimal() and not _is_alive(int(found.suffix[1:]))]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's process, or not a process number
        return True
    return True


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; a file that is left there when the block ends is deleted."""
    unfinished = aside(path)
    for leftover in leftovers(path):
        leftover.unlink(missing_ok=True)
    try:
        yield unfinished
    except OSError as error:
        error.filename = str(path) if error.filename in (None, str(unfinished)) else error.filename
        raise
    finally:
        if unfinished.exists():  # on a read-only file system, deleting a missing file is an error too
            unfinished.unlink()


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """Turns an error in the block that says that a file cannot be written into a StorageError."""
    try:
        yield
    except OSError as error:
        stuck = storage_error(error, place)
        if stuck is None or stuck is error:
            raise
        raise stuck from error


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """In the block, `replacing` refuses to make this folder anew after it was renamed, moved or deleted."""
    _staying[folder] = _number_of(folder)
    try:
        yield
    finally:
        del _staying[folder]


def has_moved(folder: Path) -> bool:
    """Whether a folder that should be `staying` is no longer in its place."""
    return _number_of(folder) != _staying[folder]


def _number_of(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; the file there becomes `path` when the block ends without an error.

    Raises:
        StorageError: no space or no permission; an earlier file at `path` is unchanged.
        FileNotFoundError: a folder that should be `staying` has moved.
    """
    gone = [folder for folder in _staying if path.is_relative_to(folder) and has_moved(folder)]
    if gone:
        raise FileNotFoundError(errno.ENOENT, "the folder was renamed, moved or deleted", str(gone[0]))
    with naming(path), written_aside(path) as unfinished:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file. Raises: StorageError, see `replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Returns when the bytes are on the disk: a power failure leaves the old file or the new one.

    Raises: StorageError, see `replacing`.
    """
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
