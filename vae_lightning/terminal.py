"""Where words are shown."""

import io
import os
import sys
from pathlib import Path


def show_what_can_be_shown() -> None:
    """Letters that the terminal, or a file that the output goes to, has no code for become "?".

    Python would raise UnicodeEncodeError there: a bullet in a progress bar would end a training. Where an output is
    closed (`>&-`) Python has None in its place, and words go nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr is so already
        sys.stdout.reconfigure(errors="replace")
