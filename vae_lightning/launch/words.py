"""Refuses words of the command line that are no overrides, and says how to write them."""

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from vae_lightning.launch.signatures import ConfigError
from vae_lightning.system.names import did_you_mean

EMPTY = re.compile(r"""\s*|'\s*'|"\s*\"""")
KEY = re.compile(r"[a-z]\w*([./]\w+)*")


def read_line(words: Sequence[str]) -> tuple[Namespace, list[str]]:
    """What Hydra's own parser reads, and the override that makes it look for YAML files in `--config-dir` too."""
    line = get_args_parser().parse_args(list(words))
    line.config_name = line.config_name or "config"
    return line, [f"hydra.searchpath=[file://{Path(line.config_dir).absolute()}]"] if line.config_dir else []


def options_first(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """Checks that every word is an option of Hydra or an override with a value, and puts the options first.

    Hydra's parser takes no override after an option, and no option's value for an override.

    Args:
        words: of the command line as typed.
        known: the root keys and groups.

    Raises:
        ConfigError: a word that is neither, or an empty value; the message says how to write it.
    """
    overrides = dict(_overrides_among(words, known))
    for position, word in overrides.items():
        following = words[position + 1] if position + 1 < len(words) else ""
        _check_spaces(words, position, following)
        key, equals, value = word.partition("=")
        if not word.strip() or (equals and not key.strip("+~ ")):
            raise ConfigError(
                f"{word or repr(word)}: a word without a key; if a shell variable stands there, is it set?"
            )
        if equals and EMPTY.fullmatch(value):
            raise ConfigError(f"{word} has no value; if a shell variable stands there, is it set?")
        if not equals and not word.startswith("~"):
            raise ConfigError(f"{word}: {_as_override(words, position, known)}")
    options = [word for position, word in enumerate(words) if position not in overrides]
    return [*options, *overrides.values()]


def _as_override(words: Sequence[str], position: int, known: Sequence[str]) -> str:
    before, word = words[position - 1] if position else "", words[position]
    if "=" in before and not before.startswith("-"):
        return f"quote a value with spaces: '{before} {word}'"
    key = re.split(r"\W", word)[0]
    return f"write {word}=…" if key in known else f"write KEY=VALUE{did_you_mean(key, known)}"


def _overrides_among(words: Sequence[str], known: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The words that are no options, with their positions.

    Raises:
        ConfigError: an option that Hydra does not have.
    """
    options = get_args_parser()._option_string_actions
    is_value = False
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if is_value or not word.startswith("-"):
            if not is_value:
                yield position, word
            is_value = False
        elif name in options:
            if equals and not value:
                raise ConfigError(f"{word} has no value; if a shell variable stands there, is it set?")
            is_value = options[name].nargs != 0 and not equals
        else:
            raise ConfigError(_without_dashes(words, position, known, list(options)))


def _without_dashes(words: Sequence[str], position: int, known: Sequence[str], options: Sequence[str]) -> str:
    name, equals, value = words[position].partition("=")
    key = name.lstrip("-").replace("-", "_")
    if KEY.fullmatch(key) and re.split(r"[./]", key)[0] in known:
        following = words[position + 1] if position + 1 < len(words) else ""
        is_apart = not equals and following and "=" not in following and not following.startswith("-")
        shown = f"{words[position]} {following}" if is_apart else words[position]
        return f"{shown}: a setting has no dashes; write {key}={value or (following if is_apart else '…')}"
    hint = did_you_mean(name, options) or did_you_mean(key, known)
    return f"{words[position]}: there is no such option{hint}; settings are written without dashes, KEY=VALUE"


def _check_spaces(words: Sequence[str], position: int, following: str) -> None:
    """Refuses `beta = 4`, `beta =4` and `beta= 4`."""
    word, last = words[position], words[position + 2] if position + 2 < len(words) else ""
    if "=" not in word and following.startswith("="):
        parts = [word, following, last] if following == "=" and last else [word, following]
    elif word.endswith("=") and word != "=" and following and not re.search(r"=|^[-~]", following):
        parts = [word, following]
    else:
        return
    raise ConfigError(f"{' '.join(parts)}: write it without spaces, {''.join(parts)}")
