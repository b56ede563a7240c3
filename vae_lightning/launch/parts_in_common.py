"""Parts that are built once for all jobs of a plan that have them alike: a sweep over β checks its model once."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Part = TypeVar("Part")
Kept = dict[tuple[str, str], tuple[Any, Any]]  # arguments and part, by function and arguments as text
_kept: list[Kept] = []  # of the block that is under way


@contextmanager
def parts_in_common() -> Iterator[None]:
    """Within the block equal parts are one object, and models have no memory for weights: nothing can be trained."""
    _kept.append({})
    try:
        yield
    finally:
        _kept.pop()


def is_only_planned() -> bool:
    """Whether what is built now is only checked."""
    return bool(_kept)


def built_once(build: Callable[Arguments, Part]) -> Callable[Arguments, Part]:
    """A function that builds a part from plain settings and from other parts, which does so once in a plan."""

    @wraps(build)
    def build_unless_kept(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Part:
        if not _kept:
            return build(*args, **kwargs)
        arguments = (args, kwargs)  # kept with the part, so that no other object can get the id of one of them
        key = (build.__qualname__, json.dumps(arguments, sort_keys=True, default=id))
        if key not in _kept[-1]:
            _kept[-1][key] = (arguments, build(*args, **kwargs))
        part: Part = _kept[-1][key][1]
        return part

    return build_unless_kept
