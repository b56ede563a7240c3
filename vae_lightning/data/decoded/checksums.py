"""CRC-32 of files, in lists like those of `sha256sum`: one line per file, checksum first."""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path


def checksum_of(content: bytes) -> str:
    """CRC-32 as eight hexadecimal digits: one changed bit always changes it; other damage is missed once in 2^32."""
    return f"{zlib.crc32(content):08x}"


def list_checksums(checksums: Mapping[str, str]) -> str:
    return "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())


def content_of(checksums: Mapping[str, str]) -> str:
    """A hash of names and bytes of files, the same on every machine."""
    return hashlib.blake2b(list_checksums(checksums).encode(), digest_size=16).hexdigest()


def read_checksums(path: Path) -> dict[str, str]:
    """From name to checksum.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a list.
    """
    lines = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: checksum for checksum, name in lines}
