"""Runs train.py or vae so that it stands still for an instant at a named moment, and says so: for tests/kill_trials.py.

python tests/kill_moments.py MOMENT NUMBER PIPE PROGRAM ARGUMENT…   (PIPE: a file descriptor to write to)
"""

import functools
import io
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STAND_STILL_SECONDS = 0.6

_calls = 0


def stand_still(number: int, pipe: int) -> None:
    """At the `number`th call; signals that are handled do not end it early."""
    global _calls
    _calls += 1
    if _calls == number:
        os.write(pipe, b"!")
        deadline = time.monotonic() + STAND_STILL_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.01)


def before(owner: Any, name: str, pause: Callable[[], None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        pause()
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def half_written_checkpoint(pause: Callable[[], None]) -> None:
    import torch

    original = torch.save

    def save(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        whole = io.BytesIO()
        original(content, whole, *args, **kwargs)
        data, half = whole.getvalue(), whole.tell() // 2
        with Path(file).open("wb") if isinstance(file, str | Path) else io.BytesIO() as own:
            out = own if isinstance(file, str | Path) else file
            out.write(data[:half])
            out.flush()
            pause()
            out.write(data[half:])

    torch.save = save


def half_written_file(pause: Callable[[], None], name: str, suffixes: tuple[str, ...]) -> None:
    """Of Path.write_bytes or Path.write_text, where the file is of one of these kinds."""
    original = getattr(Path, name)

    def write(path: Path, content: Any, *args: Any, **kwargs: Any) -> Any:
        if any(suffix in path.name for suffix in suffixes):
            original(path, content[: len(content) // 2], *args, **kwargs)
            pause()
        return original(path, content, *args, **kwargs)

    setattr(Path, name, write)


def rename(pause: Callable[[], None]) -> None:
    """Between what is whole, a file or a folder, and its name, and just after."""
    for name in ("replace", "rename"):
        _pause_around(name, pause)


def _pause_around(name: str, pause: Callable[[], None]) -> None:
    original = getattr(Path, name)

    def move(path: Path, target: Any) -> Any:
        pause()
        moved = original(path, target)
        pause()
        return moved

    setattr(Path, name, move)


def prepare(moment: str, pause: Callable[[], None]) -> None:
    from vae_lightning.data.decoded import decoding
    from vae_lightning.recognition.module import RecognizerModule
    from vae_lightning.training.vae_module import VAEModule

    steps = {"training step": "training_step", "validation": "validation_step", "test": "test_step"}
    if moment in steps:
        for module in (VAEModule, RecognizerModule):
            before(module, steps[moment], pause)
    elif moment == "decoding":
        before(decoding, "_decode_chunk", pause)
    elif moment == "checkpoint":
        half_written_checkpoint(pause)
    elif moment == "picture":
        half_written_file(pause, "write_bytes", (".png",))
    elif moment == "record":
        half_written_file(pause, "write_text", (".json", ".yaml", ".html"))
    elif moment == "rename":
        rename(pause)
    else:
        raise ValueError(f"{moment}: no such moment")


if __name__ == "__main__":
    moment, number, pipe, program, *arguments = sys.argv[1:]
    sys.argv = [program, *arguments]
    sys.path.insert(0, str(Path(program).parent))
    prepare(moment, lambda: stand_still(int(number), int(pipe)))
    runpy.run_path(program, run_name="__main__")
