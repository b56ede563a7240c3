"""CRC-32 of files, listed as `sha256sum` lists its hashes: one line a file, checksum first."""

import zlib
from collections.abc import Mapping
from pathlib import Path


def checksum_of(content: bytes) -> str:
    """Eight hexadecimal digits: any one damaged bit changes them, other damage but for one in 4 thousand million."""
    return f"{zlib.crc32(content):08x}"


def list_checksums(checksums: Mapping[str, str]) -> str:
    return "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())


def read_checksums(path: Path) -> dict[str, str]:
    """From name to checksum.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such list.
    """
    lines = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: checksum for checksum, name in lines}
