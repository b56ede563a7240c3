"""Quotes paths on the command line for Hydra, and reads them again."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from vae_lightning.launch.signatures import ConfigError

PATHS = (
    *("data.root", "data.data_dir", "ckpt_path", "hydra.run.dir", "hydra.sweep.dir", "sweep"),
    *("recognizer.weights", "perceptual.weights_path", "callbacks.evaluation.weights"),
)
READ_BEFORE_HYDRA = (*PATHS, "run_dir", "hydra.mode", "hparams_search")
WORDS = re.compile(r"(['\"])(last|RUN|MULTIRUN)\1")  # that mean something
OF_HYDRA = re.compile(r"\$\{|^(choice|range|interval|glob|sort|shuffle|tag)\(.*\)$")


def plainly_written(argument: str) -> str:
    """An override of a key that is read before Hydra reads it, without `+` and needless quotes."""
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in READ_BEFORE_HYDRA:
        return argument
    word = WORDS.fullmatch(value)
    return f"{key.lstrip('+')}={word[2] if word else value}"


def quote_paths(arguments: Iterable[str], *, sweeps: bool) -> list[str]:
    """Quotes each path that Hydra would misread, and replaces `~` by the home folder.

    Args:
        arguments: as typed.
        sweeps: whether a comma may separate two paths; it does not if the whole text is the name of a folder.

    Raises:
        ConfigError: `~NAME`, and there is no user NAME; or one of several paths is empty.
    """
    return [_quoted(argument, sweeps) for argument in arguments]


def path_override(key: str, path: Path | str) -> str:
    """An override that Hydra reads as exactly this path."""
    return f"{key}={_in_quotes(str(path))}"


def quoted_value(value: Any) -> str:
    """A plain value as Hydra reads it in an override."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{quoted_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(quoted_value, value)) + "]"
    if isinstance(value, str):
        return _in_quotes(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def key_of(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


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
        if not all(part.strip(" '\"") for part in value.split(",")):
            raise ConfigError(f"{argument}: one of its values is empty; if a shell variable stands there, is it set?")
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
