"""Reads files of which neither kind nor size is known: a pipe would be waited for, a device has no end."""

import stat
from os import stat_result
from pathlib import Path

OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(status: stat_result, most_bytes: int) -> None:
    """Raises: ValueError for what is no regular file, or a larger one; the message does not name the file."""
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"it is {OTHER_KINDS.get(kind, 'something else')}, not a file")
    if status.st_size > most_bytes:
        raise ValueError(f"it has {status.st_size:,} bytes, more than the {most_bytes:,} that are read")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a file, of which kind and size are looked at before it is opened.

    Raises:
        ValueError: see `check_regular`.
        OSError: it cannot be read.
    """
    check_regular(path.stat(), most_bytes)
    return path.read_bytes()
