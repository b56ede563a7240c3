"""Reads PyTorch files from untrusted sources: runs no code in them, and takes no more memory than their size."""

import errno
import mmap
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vae_lightning.system.names import LONGEST_REASON, shown
from vae_lightning.system.pickled import MOST_BYTES, PickleError, check_pickle
from vae_lightning.system.regular_files import check_regular

FIRST_BYTES = b"PK\x03\x04"  # of a zip file, which torch.save writes since PyTorch 1.6
SHORT_END, LONG_END = 22, 98  # bytes after the table of a zip file, without and with its numbers of 64 bits
OLD_FIRST_BYTES = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # which torch.save wrote before
LARGEST = 2**63  # of a file
PICKLE = "data.pkl"
ZEROS = 512  # bytes that are looked at
# all errors that torch.load and zipfile are known to raise for damaged files
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, MemoryError, AssertionError, ImportError),
    *(RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError),
)


class TensorFileError(ValueError):
    """A file cannot be read safely; the message is the reason, without the file's name."""


def read_tensors(file: Path, *, may_repeat: bool = False) -> Any:
    """The file's plain data and dense tensors on the CPU, no tensor larger than its part of the file.

    Args:
        file: written by torch.save.
        may_repeat: allows tensors that are larger because they repeat values; for callers that check the sizes.

    Raises:
        TensorFileError: the file is damaged, holds code or compressed parts, or would need more memory than its size.
        OSError: the file cannot be opened, or the disk fails.
    """
    try:
        _check(file, may_repeat)
        return torch.load(file, map_location="cpu", weights_only=True)
    except TensorFileError:
        raise
    except PickleError as error:
        raise TensorFileError(str(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # torch raises it for a position before the start of the file
            raise
        raise TensorFileError("PyTorch finds no table of its parts") from error
    except UNREADABLE as error:
        # torch's message advises to read the file unsafely; that of a LookupError is only a number
        reason = shown(str(error).split("\n")[0], LONGEST_REASON)
        if isinstance(error, pickle.UnpicklingError | LookupError) or not reason:
            reason = "it is not a PyTorch file, or it holds more than plain data"
        raise TensorFileError(reason) from error


def _check(file: Path, may_repeat: bool) -> None:
    """Checks what the file claims to hold against what it holds, before PyTorch allocates anything."""
    status = file.stat()
    check_regular(status, LARGEST)
    if status.st_size == 0:
        raise TensorFileError("it is empty")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[: len(FIRST_BYTES)] == FIRST_BYTES:
            _check_zip(opened, status.st_size, may_repeat)
        elif not any(content[:ZEROS]):
            raise TensorFileError("it begins with zeros, as after a power failure or an interrupted copy")
        else:
            _check_old_format(content, may_repeat)


def _check_zip(opened: BinaryIO, size: int, may_repeat: bool) -> None:
    """Checks that the parts are uncompressed, have together no more bytes than the file, and hold the tensors."""
    try:
        archive = zipfile.ZipFile(opened)
    except zipfile.BadZipFile as error:
        raise TensorFileError("its end is missing, as after a full disk or an interrupted copy") from error
    _check_table(opened, size)
    parts = archive.infolist()
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1]
    if packed:
        raise TensorFileError(f"its part {packed[0][:80]!r} is compressed or encrypted, which PyTorch never writes")
    claimed = sum(part.file_size for part in parts)
    if claimed > size:
        raise TensorFileError(f"its parts claim {claimed:,} bytes, and the file has {size:,}")
    if len({part.filename.lower() for part in parts}) < len(parts):
        raise TensorFileError("two of its parts have one name, which PyTorch never writes")
    names = [part.filename for part in parts if part.filename.endswith(f"/{PICKLE}")]
    if len(names) != 1 or archive.getinfo(names[0]).file_size > MOST_BYTES:
        raise TensorFileError(f"it does not have one part {PICKLE} of at most {MOST_BYTES:,} bytes")
    held = {part.filename: part.file_size for part in parts}
    folder = names[0].removesuffix(PICKLE)
    for key, most in check_pickle(archive.read(names[0]), may_repeat).items():
        if held.get(f"{folder}data/{key}") != most:
            raise TensorFileError(f"a tensor in it claims {most:,} bytes, and the file does not have as many for it")


def _check_table(opened: BinaryIO, size: int) -> None:
    """Checks that PyTorch, by numbers in the file's end, finds the table of parts where Python finds it."""
    opened.seek(max(0, size - LONG_END))
    end = opened.read()
    is_long = end[56:60] == b"PK\6\7"
    begins_at = size - (LONG_END if is_long else SHORT_END)
    length, start = struct.unpack("<QQ", end[40:56]) if is_long else struct.unpack("<LL", end[-10:-2])
    agree = end[-SHORT_END:].startswith(b"PK\5\6") and end.endswith(b"\0\0") and length + start == begins_at
    if is_long:
        agree = agree and end.startswith(b"PK\6\6") and struct.unpack("<Q", end[64:72]) == (begins_at,)
    if not agree:
        raise TensorFileError("PyTorch finds no table of its parts")


def _check_old_format(content: mmap.mmap, may_repeat: bool) -> None:
    """The format until PyTorch 1.6: pickles (version, system, content, names of storages), then the numbers."""
    if content.read(len(OLD_FIRST_BYTES)) != OLD_FIRST_BYTES:
        raise TensorFileError("it is not a PyTorch file, or a damaged one")
    _, _, storages, _ = [check_pickle(content, may_repeat) for _ in range(4)]
    claimed, held = sum(storages.values()), len(content) - content.tell()
    if claimed > held:
        raise TensorFileError(f"its tensors claim {claimed:,} bytes, and the file has {held:,} for them")
