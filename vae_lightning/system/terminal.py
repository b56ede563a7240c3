"""What users see in a terminal: text that it can print, commands that work when they are pasted, log files."""

import io
import logging
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from vae_lightning.system.repository import REPOSITORY


def show_what_can_be_shown() -> None:
    """Writes "?" for letters that the terminal, or the file that the output goes to, cannot encode.

    Python would raise UnicodeEncodeError: a bullet in a progress bar would end a training. An output that the shell
    has closed (`>&-`) is None in Python; it is replaced by one that drops what is written.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr is so already
        sys.stdout.reconfigure(errors="replace")


def command(line: str) -> str:
    """A command as it works when it is pasted where this program was started.

    Under `uv run` it begins with `uv run`; where the environment is not activated, with the path of its scripts.
    `python train.py` becomes `vae train` outside the folder of the repository.
    """
    here = Path.cwd()
    if line.startswith("python train.py") and here != REPOSITORY:
        line = f"vae train{line.removeprefix('python train.py')}"
    scripts = Path(sysconfig.get_path("scripts")).resolve()
    num_uv_runs = int(os.environ.get("UV_RUN_RECURSION_DEPTH", 0))  # each has put the scripts into PATH once more
    if [Path(folder).resolve() for folder in os.get_exec_path() if folder].count(scripts) > num_uv_runs:
        return line
    if num_uv_runs:
        project = Path(sys.prefix).parent
        is_elsewhere = (project / "pyproject.toml").is_file() and not here.is_relative_to(project)
        return f"uv run --project {shlex.quote(str(project))} {line}" if is_elsewhere else f"uv run {line}"
    return f"{shlex.quote(str(scripts))}/{line}" if sys.prefix != sys.base_prefix else line


class LogFile(logging.FileHandler):
    """A log file that reports once that it cannot be written; whether a full disk ends the run is decided elsewhere."""

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
