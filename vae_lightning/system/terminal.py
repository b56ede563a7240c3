"""Where words are shown."""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Any


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


class LogFile(logging.FileHandler):
    """Where lines cannot be written, says so once and goes on: what a full disk means for the run, the run says."""

    def __init__(self, filename: str, **others: Any) -> None:
        super().__init__(filename, **others)
        self._has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            sys.stderr.write(f"{self.baseFilename}: {error.strerror}, so lines are missing in it\n")
