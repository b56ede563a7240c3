"""Settings that a run folder says it was started with: a stranger's folder must not have code run, or other files read.

What a person types is theirs to answer for; what a file says is held against a list.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from vae_lightning.names import shown
from vae_lightning.plain_files import read_plain
from vae_lightning.run_folders import RunError

KEY = re.compile(r"[a-z]\w*([./@]\w+)*")
CHOICE = re.compile(r"[\w-]+")  # of a group: a file in conf/, and nowhere else
# classes of the packages that conf/ takes them from
TARGET = re.compile(
    r"(vae_lightning\.(models|losses|lr_schedule|recognition|data)|callbacks|torch\.optim"
    r"|lightning|lightning\.pytorch\.(callbacks|loggers))\.[A-Z]\w*"
)
TARGET_KEY = "_target_"
NOT_STORED = ("hydra", "run_dir")


def read_overrides(run_dir: Path, conf_dir: Path, typed: set[str]) -> list[str]:
    """What the run was started with, but for the keys that are typed anew.

    Args:
        run_dir: with .hydra/overrides.yaml.
        conf_dir: with config.yaml and a folder per group.
        typed: keys.

    Raises:
        RunError: the file is damaged, or holds what only a person may ask for.
    """
    path = run_dir / ".hydra" / "overrides.yaml"
    try:
        earlier = read_plain(path)
    except (OSError, ValueError) as error:
        raise RunError(f"ckpt_path=last: {path} cannot be read ({error}). {_otherwise(run_dir)}") from error
    if not isinstance(earlier, list) or not all(isinstance(override, str) for override in earlier):
        raise RunError(  # `[]` where there were none
            f"ckpt_path=last: {path} is damaged, so its settings are not known. {_otherwise(run_dir)}"
        )
    kept = [override for override in earlier if override.split("=")[0].lstrip("+~") not in typed]
    refused = [override for override in kept if not _is_harmless(override, conf_dir)]
    if refused:
        raise RunError(
            f"ckpt_path=last: {path} says {shown(refused[0])!r}, which could run anything or read any file, so it is "
            "not taken from there. Where it is yours, type it again beside ckpt_path=last"
        )
    return kept


def _otherwise(run_dir: Path) -> str:
    return f"The command that started the run, with hydra.run.dir={run_dir} and without ckpt_path, goes on with it"


def _is_harmless(text: str, conf_dir: Path) -> bool:
    """One setting of plain values, a choice out of conf/, or a class of those that conf/ may name."""
    try:
        override = OverridesParser.create().parse_override(text)
        value = override.value()
    except (HydraException, ValueError, RecursionError):
        return False
    key = str(override.key_or_group)
    if text.startswith("-") or not KEY.fullmatch(key) or key.split(".")[0].split("/")[0] in NOT_STORED:
        return False
    if override.is_sweep_override():
        return False
    if not all(isinstance(leaf, str | int | float | None) for _, leaf in _leaves(key, value)):
        return False
    if any("${" in str(leaf) for _, leaf in _leaves(key, value)):  # what it becomes is decided later
        return False
    targets = [leaf for name, leaf in _leaves(key, value) if name.endswith(TARGET_KEY)]
    return all(TARGET.fullmatch(str(target)) for target in targets) and _is_a_choice(override, key, value, conf_dir)


def _is_a_choice(override: Override, key: str, value: Any, conf_dir: Path) -> bool:
    if override.is_delete() or not (conf_dir / key.split("@")[0]).is_dir():
        return True
    chosen = value if isinstance(value, list) else [value]
    return all(each is None or CHOICE.fullmatch(str(each)) for each in chosen)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Plain values with the keys that they stand under; keys of dicts count as values, for they are words too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield "", str(name)
            yield from _leaves(f"{key}.{name}", each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(key, each)
    else:
        yield key, value
