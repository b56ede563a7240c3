"""Where words are shown."""

import io
import sys


def show_what_can_be_shown() -> None:
    """Letters that the terminal, or a file that the output goes to, has no code for become "?".

    Python would raise UnicodeEncodeError there: a bullet in a progress bar would end a training.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr is so already
        sys.stdout.reconfigure(errors="replace")
