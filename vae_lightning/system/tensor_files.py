"""Reads PyTorch files from untrusted sources: runs no code in them, and takes no more memory than their size."""

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
        if error.errno != errno.EINVAL:  # torch raises it for a position before the start of the file
            raise
        raise TensorFileError("PyTorch finds no table of its parts") from error
    except UNREADABLE as error:
        # torch's message advises to read the file unsafely; that of a LookupError is only a number
        reason = shown(str(error).split("\n")[0], LONGEST_REASON)
        if isinstance(error, pickle.UnpicklingError | LookupError) or not reason:
            reason = "it is not a PyTorch file, or it holds more than plain data"
        raise TensorFileError(reason) from error
    return content


def _check_parts(file: Path) -> None:
    """Checks that the parts are stored uncompressed, and together have no more bytes than the file."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1]
    if packed:
        raise TensorFileError(f"its part {packed[0][:80]!r} is compressed or encrypted, which PyTorch never writes")
    claimed, held = sum(part.file_size for part in parts), file.stat().st_size
    if claimed > held:
        raise TensorFileError(f"its parts claim {claimed:,} bytes, and the file has {held:,}")


def tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists, tuples and sets; each container is searched once."""
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
        raise TensorFileError("it holds a sparse or quantized tensor, or one without values")
    if tensor.nbytes > tensor.untyped_storage().nbytes() and not may_repeat:
        raise TensorFileError(
            f"a tensor of shape {tuple(tensor.shape)} claims {tensor.nbytes:,} bytes, and the file has "
            f"{tensor.untyped_storage().nbytes():,} for it"
        )
