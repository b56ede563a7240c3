"""Reads the overrides that a run folder stores, and quotes paths for Hydra.

A folder may come from a stranger, so stored overrides may name only classes and choices from lists: they must not
run code or read other files. What a person types is not restricted.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.runs.layout import OVERRIDES_YAML, RunError
from vae_lightning.system.names import shown
from vae_lightning.system.plain_files import read_plain

KEY = re.compile(r"[a-z]\w*([./@]\w+)*")
CHOICE = re.compile(r"[\w-]+")  # of a group: a file in conf/
# classes of the packages that conf/ takes them from
TARGET = re.compile(
    r"(vae_lightning\.(models|losses|training|recognition|data)|callbacks|torch\.optim"
    r"|lightning|lightning\.pytorch\.(callbacks|loggers))\.[A-Z]\w*"
)
TARGET_KEY = "_target_"
NOT_STORED = ("hydra", "run_dir")
PATHS = (
    *("data.root", "data.data_dir", "ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "sweep"),
    *("recognizer.weights", "perceptual.weights_path", "callbacks.evaluation.weights"),
)
OF_HYDRA = re.compile(r"\$\{|^(choice|range|interval|glob|sort|shuffle|tag)\(.*\)$")


def read_overrides(run_dir: Path, conf_dir: Path, typed: set[str]) -> list[str]:
    """Reads the overrides that the run was started with, without those of `typed` keys.

    Args:
        run_dir: with .hydra/overrides.yaml.
        conf_dir: with config.yaml and a folder per group.
        typed: keys on the command line now.

    Raises:
        RunError: the file is damaged, or holds an override that must be typed.
    """
    path = run_dir / OVERRIDES_YAML
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
            f"ckpt_path=last: {path} says {shown(refused[0])!r}, which could run any program or read any file, so it "
            "is not taken from there. If you trust it, type it again beside ckpt_path=last"
        )
    return kept


def _otherwise(run_dir: Path) -> str:
    return f"The command that started the run resumes it, with hydra.run.dir={run_dir} and without ckpt_path"


def _is_harmless(text: str, conf_dir: Path) -> bool:
    """Whether an override is a plain value, a choice in conf/, or one of the classes that conf/ may name."""
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
    if any("${" in str(leaf) for _, leaf in _leaves(key, value)):  # its value is decided later
        return False
    targets = [leaf for name, leaf in _leaves(key, value) if name.endswith(TARGET_KEY)]
    return all(TARGET.fullmatch(str(target)) for target in targets) and _is_a_choice(override, key, value, conf_dir)


def _is_a_choice(override: Override, key: str, value: Any, conf_dir: Path) -> bool:
    if override.is_delete() or not (conf_dir / key.split("@")[0]).is_dir():
        return True
    chosen = value if isinstance(value, list) else [value]
    return all(each is None or CHOICE.fullmatch(str(each)) for each in chosen)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Plain values with their keys; the keys of dicts are values too, because a stranger chooses them as well."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield "", str(name)
            yield from _leaves(f"{key}.{name}", each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(key, each)
    else:
        yield key, value


def quote_paths(arguments: Sequence[str], *, sweeps: bool) -> list[str]:
    """Quotes each path that Hydra would misread, and replaces `~` by the home folder.

    Args:
        arguments: as typed.
        sweeps: whether a comma may separate two paths; it does not if the whole text is the name of a folder.

    Raises:
        ConfigError: `~NAME`, and there is no user NAME.
    """
    return [_quoted(argument, sweeps) for argument in arguments]


def path_override(key: str, path: Path | str) -> str:
    """An override that Hydra reads as exactly this path."""
    return f"{key}={_in_quotes(str(path))}"


def typed_path(override: str) -> Path:
    """The path that an override gives, quoted or not."""
    value = override.partition("=")[2]
    read = _read(override) if _is_quoted(value) else None
    return Path(read if isinstance(read, str) else value)


def _quoted(argument: str, sweeps: bool) -> str:
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATHS or OF_HYDRA.search(value):
        return argument
    if _is_quoted(value) and isinstance(_read(argument), str):
        text = str(typed_path(argument))
        return f"{key}={_in_quotes(_at_home(argument, text))}" if text.startswith("~") else argument
    if sweeps and "," in value and not Path(value).expanduser().exists():
        return f"{key}={','.join(_as_text(argument, part) for part in value.split(','))}"
    return f"{key}={_as_text(argument, value)}"


def _as_text(argument: str, value: str) -> str:
    """The path, quoted if Hydra would refuse it or read it as something else than text."""
    path = _at_home(argument, value)
    is_plain = _read(f"key={path}") in (path, None) or _is_quoted(path)
    return path if is_plain else _in_quotes(path)


def _read(override: str) -> object:
    """The value that Hydra reads from an override; an empty tuple, which no value is, if it refuses the override."""
    try:
        return OverridesParser.create().parse_overrides([override])[0].value()
    except HydraException:
        return ()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _at_home(argument: str, path: str) -> str:
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        name = Path(path).parts[0]
        raise ConfigError(f"{argument}: there is no user {name[1:]} here; a folder of that name is ./{name}") from error
