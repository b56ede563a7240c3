"""Files that are whole or not there: written beside their place, then moved into it."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PNG_COMPRESSION = 3  # a third of the time of the default, files a tenth larger


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there when the block ends without an error becomes `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_picture(path: Path, picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Writes a PNG and returns its bytes, so that a dashboard need not encode the picture again."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="png", compress_level=PNG_COMPRESSION)
    with replacing(path) as unfinished:
        unfinished.write_bytes(encoded.getvalue())
    return encoded.getvalue()


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
