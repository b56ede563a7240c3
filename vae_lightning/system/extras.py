"""Libraries that only some commands need: each is installed with an extra of this package."""

import importlib.util
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"  # of a clone; beside an installed wheel there is none


class MissingExtraError(ValueError):
    """An extra of this package is not installed."""


def check_extra(extra: str, what: str, *modules: str, otherwise: str = "") -> None:
    """Refuses what needs an extra that is not installed.

    Args:
        extra: its name in pyproject.toml.
        what: needs it, in the words of the message.
        modules: that the extra installs and `what` imports.
        otherwise: what to do without the extra.

    Raises:
        MissingExtraError: one of the modules is missing; the message says how to install the extra.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        in_a_clone = f"uv sync --extra {extra}, or pip install -e '.[{extra}]'"
        how = in_a_clone if PROJECT.is_file() else f"pip install 'vae-lightning[{extra}]'"
        raise MissingExtraError(f"{what} needs the extra `{extra}` (missing: {', '.join(missing)}): {how}{otherwise}")


def _is_installed(module: str) -> bool:
    if sys.modules.get(module) is not None:
        return True
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the package that holds the module is missing too
        return False
    return found is not None and found.origin is not None  # a removed library may leave a folder without code
