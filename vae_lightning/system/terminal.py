"""Text for terminals: characters that they can print, commands that can be pasted, and log files."""

import io
import logging
import os
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import Any

from vae_lightning.system.repository import REPOSITORY


def make_output_safe() -> None:
    """Makes stdout and stderr accept every text: characters that they cannot encode become "?".

    Otherwise Python raises UnicodeEncodeError, and a bullet in a progress bar would end a training. A stream that the
    shell has closed (`>&-`) is None in Python; it is replaced by one that drops the text.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr replaces them by default
        sys.stdout.reconfigure(errors="replace")


def command(line: str) -> str:
    """The command in a form that works when it is pasted into the terminal that started this program.

    It begins with `uv run` under `uv run`, and with the path of the scripts if the environment is not activated.
    Outside the folder of the repository `python train.py` becomes `vae train`.
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
        extra = "--extra explore " if line.startswith("vae explore") else ""  # the one verb that needs an extra as such
        is_elsewhere = (project / "pyproject.toml").is_file() and not here.is_relative_to(project)
        where = f"--project {shlex.quote(str(project))} " if is_elsewhere else ""
        return f"uv run {where}{extra}{line}"
    return f"{shlex.quote(str(scripts))}/{line}" if sys.prefix != sys.base_prefix else line


class LogFile(logging.FileHandler):
    """A log file that reports once that it cannot be written, and does not end the run."""

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
