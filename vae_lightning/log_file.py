"""`train.log`, the log of a run in its own folder."""

import logging
import sys
from typing import Any


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
