"""What fuzz tests share: thousands of inputs that are nearly right, each made from a number.

    FUZZ_INPUTS=100000 python -m pytest -n 2 --dist load -m fuzz

Only the errors that a reader documents may come out, and no input may take much memory. Hypothesis prints the
number when one fails. Where a decoder written in C brings the process down, the file that did it is the newest in
pytest's temporary folder.
"""

import os
import resource
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INPUTS = int(os.environ.get("FUZZ_INPUTS", "12"))
MOST_MEMORY = 1.25 * 2**30  # libwebp takes 1.1 GiB for 50 million pixels, which are allowed


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    """The test gets its argument `number` INPUTS times."""

    @wraps(test)
    def with_little_memory(*arguments: Any, **named: Any) -> None:
        before = _most_memory_so_far()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of much that they can still read
            test(*arguments, **named)
        assert _most_memory_so_far() - before < MOST_MEMORY

    bounded = settings(
        max_examples=INPUTS, deadline=None, database=None, derandomize=INPUTS < 1000, suppress_health_check=HealthCheck
    )
    return pytest.mark.fuzz(bounded(given(number=st.integers(0, 2**64 - 1))(with_little_memory)))


def _most_memory_so_far() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_words(error: Exception) -> None:
    """One line that a terminal can show."""
    assert str(error).isprintable()
    assert 10 < len(str(error)) < 2_000


def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all inputs: hypothesis runs many in one test."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    return folder
