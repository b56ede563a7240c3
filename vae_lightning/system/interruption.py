"""Ctrl-C and SIGTERM: a key that is held down counts as one signal, and each signal raises an exception."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HELD_KEY_SECONDS = 1.0  # longer than keyboards wait before they repeat a key
_last_signal_at = -HELD_KEY_SECONDS


def is_repeated() -> bool:
    """Whether the current signal repeats the one before it; call this once for each signal."""
    global _last_signal_at
    before, _last_signal_at = _last_signal_at, time.monotonic()
    return _last_signal_at - before < HELD_KEY_SECONDS


def stop_by_exception() -> None:
    """Makes both signals raise an exception, so that unfinished work is cleaned up; repeats are ignored."""
    for signum in SIGNALS:
        signal.signal(signum, _stop)
    sys.unraisablehook = _raise_again


def _raise_again(swallowed: "sys.UnraisableHookArgs") -> None:
    """Python drops exceptions raised while it deletes an object; this sends the signal of such an exception again."""
    global _last_signal_at
    signals = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}
    if swallowed.exc_type in signals:
        _last_signal_at = -HELD_KEY_SECONDS
        threading.Timer(0.01, os.kill, (os.getpid(), signals[swallowed.exc_type])).start()
    else:
        sys.__unraisablehook__(swallowed)


def _stop(signum: int, frame: FrameType | None) -> None:
    if is_repeated():
        return
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


@contextmanager
def sigterm_of_the_system() -> Iterator[None]:
    """Restores the system's SIGTERM during a block that handles this signal in its own way."""
    if signal.getsignal(signal.SIGTERM) is not _stop:
        yield
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _stop)
