"""Reads PyTorch files that may come from anybody: runs no code of theirs, and takes no more memory than their size."""

import errno
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lightning.system.names import LONGEST_REASON, shown

FIRST_BYTES = b"PK\x03\x04"  # of a zip file, which torch.save writes since PyTorch 1.6
# all that torch.load and zipfile were seen to raise at damaged files
UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, MemoryError, AssertionError, ImportError),
    *(RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError),
)


class TensorFileError(ValueError):
    """A file that cannot be read safely; the message is the reason, without the file's name."""


def read_tensors(file: Path, *, may_repeat: bool = False) -> Any:
    """Plain data and dense tensors on the CPU, none of them larger than the part of the file that it comes from.

    Args:
        file: as torch.save writes it.
        may_repeat: whether tensors may be larger by repeating values; for callers that know their sizes beforehand.

    Raises:
        TensorFileError: it is damaged, or holds code or compressed parts, or claims more memory than it has bytes.
        OSError: it cannot be opened, or the disk fails.
    """
    try:
        with file.open("rb") as opened:
            is_zip = opened.read(len(FIRST_BYTES)) == FIRST_BYTES
        if is_zip:
            _check_parts(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
        for tensor in tensors_in(content):
            _check_tensor(tensor, may_repeat)
    except TensorFileError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # what torch makes of a place before the file's beginning
            raise
        raise TensorFileError("PyTorch finds no table of its parts") from error
    except UNREADABLE as error:
        # torch's own words advise to read the file unsafely; a LookupError's are the number of a byte
        reason = shown(str(error).split("\n")[0], LONGEST_REASON)
        if isinstance(error, pickle.UnpicklingError | LookupError) or not reason:
            reason = "it is no PyTorch file, or it holds more than plain data"
        raise TensorFileError(reason) from error
    return content


def _check_parts(file: Path) -> None:
    """Parts are stored as they are, so that together they have no more bytes than the file."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1]
    if packed:
        raise TensorFileError(f"its part {packed[0][:80]!r} is compressed or encrypted, which PyTorch never writes")
    claimed, held = sum(part.file_size for part in parts), file.stat().st_size
    if claimed > held:
        raise TensorFileError(f"its parts claim {claimed:,} bytes, and the file has {held:,}")


def tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples; each container is looked into once."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def _check_tensor(tensor: Tensor, may_repeat: bool) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        raise TensorFileError("it holds a tensor that is sparse, quantized or without content")
    if tensor.nbytes > tensor.untyped_storage().nbytes() and not may_repeat:
        raise TensorFileError(
            f"a tensor of shape {tuple(tensor.shape)} claims {tensor.nbytes:,} bytes, and the file has "
            f"{tensor.untyped_storage().nbytes():,} for it"
        )
