"""Composes the configuration of a command line before Hydra does, and refuses overrides that would have no effect."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.launch.configuration import LISTS, RootConfig, resolved
from vae_lightning.launch.explanations import explain, group_choices, unknown_key
from vae_lightning.launch.signatures import ConfigError, takes
from vae_lightning.launch.words import read_line

OF_A_SWEEP = ("hydra.sweep", "hydra.sweeper", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
KEY_OF_A_PART = re.compile(r"(?!hydra\.)\w+(\.\w+)+")
GONE = object()


def compose_command_line(words: Sequence[str], typed: Sequence[str], conf_dir: Path, *, sweeps: bool) -> list[str]:
    """Checks that the words compose, and that each typed override says something that is then so.

    Args:
        words: of the whole command line, as Hydra gets them.
        typed: those of them that a person typed.
        conf_dir: with config.yaml.
        sweeps: whether several jobs are made; the first one is composed.

    Returns:
        The words, with `++` before settings that a YAML file does not name and its class takes.

    Raises:
        ConfigError: a word that cannot be used, or that would have no effect.
    """
    line, search_path = read_line(words)
    if not line.overrides or line.config_path:  # the path is of a subprocess, or of somebody's own project
        return list(words)
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        overrides = parse_words([*line.overrides, *search_path])
        own = [override for override in overrides if override.input_line in typed]
        check_alone(own, sweeps=sweeps)
        check_together(own)
        config, added = compose_words(line.config_name, _of_first_job(overrides).values())
        added += _of_swept_groups(own)
        said = [replace(each, input_line=word) for word, each in _of_first_job(own).items()]
        check_effects(config, said, sweeps=sweeps)
    return [f"++{word}" if word.partition("=")[0] in added else word for word in words]


def parse_words(words: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = []
    for word in words:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{word}: Hydra cannot read this ({reason}); put the value into quotes") from error
    return parsed


def _of_first_job(overrides: Sequence[Override]) -> dict[str, Override]:
    """By what was typed each override with its first value; without those whose values a search draws."""
    first = {}
    for override in overrides:
        if override.is_discrete_sweep():
            value = next(iter(override.sweep_string_iterator()))
            first[str(override.input_line)] = parse_words([f"{override.get_key_element()}={value}"])[0]
        elif not override.is_sweep_override():
            first[str(override.input_line)] = override
    return first


def compose_words(config_name: str, overrides: Collection[Override]) -> tuple[Any, list[str]]:
    """The configuration, and the keys that had to be added because only a class knows them."""
    words = [str(override.input_line) for override in overrides]
    added: list[str] = []
    while True:
        try:
            return compose(config_name, words, return_hydra_config=True), added
        except (HydraException, ValueError) as error:
            key = unknown_key(error)
            if key is None or key in added or not takes(_of_choices(config_name, words), key):
                raise ConfigError(explained(error, config_name, words)) from error
            added.append(key)
            words = [f"++{word}" if word.partition("=")[0] == key else word for word in words]


def _of_swept_groups(overrides: Sequence[Override]) -> list[str]:
    """The keys that a part of the first job may name in its YAML file, and a part of another job may not."""
    swept = {each.key_or_group for each in overrides if each.is_sweep_override() and _is_choice(each)}
    keys = [each.get_key_element() for each in overrides if not _is_choice(each)]
    return [key for key in keys if KEY_OF_A_PART.fullmatch(key) and swept & {key.split(".")[0], "experiment"}]


def explained(error: Exception, config_name: str, words: Sequence[str]) -> str:
    """Why Hydra refuses to compose these overrides, in one line."""
    base = _of_choices(config_name, words) if unknown_key(error) else None
    return explain(error, parse_words(words), base)


def _of_choices(config_name: str, words: Sequence[str]) -> Any:
    """The configuration of the chosen groups, without other overrides."""
    return compose(
        config_name, [word for word in words if _is_choice(parse_words([word])[0])], return_hydra_config=True
    )


def check_alone(overrides: Sequence[Override], *, sweeps: bool) -> None:
    """Checks each override for itself.

    Raises:
        ConfigError: a part put elsewhere, null for a group, several values without -m, or a setting of sweeps alone.
    """
    for override in overrides:
        word, key = override.input_line, override.key_or_group
        choices = group_choices(key)
        if override.package is not None:
            raise ConfigError(f"{word}: a part cannot be put at another place; write {key}=… without @")
        if key in LISTS and override.is_delete():
            raise ConfigError(f"{word}: write {key}=[…] with what you want, {key}=[] for none")
        if choices and not override.is_delete() and override.value() is None:
            raise ConfigError(f"{word}: {_instead_of_null(key, choices)}")
        if override.is_sweep_override() and not sweeps:
            raise ConfigError(f"{word}: several values are a sweep, which needs -m; a list is written {key}=[…]")
        if override.is_sweep_override() and override.is_hydra_override():
            raise ConfigError(f"{word}: Hydra's own settings cannot be swept; give one value")
        if key.startswith(OF_A_SWEEP) and not sweeps:
            raise ConfigError(f"{word} is a setting of sweeps, and this is one run: add -m, or leave it out")
        if key.startswith("hydra.run.") and sweeps:
            raise ConfigError(f"{word} is the folder of one run: with -m set hydra.sweep.dir=… or sweep=NAME")


def _instead_of_null(group: str, choices: Sequence[str]) -> str:
    if group in LISTS:
        return f"write {group}=[] for none; allowed are {', '.join(choices)}"
    return f"allowed are {', '.join(choices)}; where nothing is chosen, leave it out"


def _is_choice(override: Override) -> bool:
    """Whether an override chooses of a group; `trainer={max_epochs:3}` sets values."""
    return bool(group_choices(override.key_or_group)) and not isinstance(override.value(), dict)


def check_together(overrides: Sequence[Override]) -> None:
    """Checks that no choice of a group makes another one void.

    Raises:
        ConfigError: a group is chosen, extended or removed twice.
    """
    first: dict[str, Override] = {}
    for override in overrides:
        group = override.key_or_group
        if not _is_choice(override):
            continue
        before = first.setdefault(group, override)
        if before is not override and before.input_line != override.input_line:
            raise ConfigError(
                f"{before.input_line} and {override.input_line}: one of them would have no effect; "
                f"write one{_joined(group, before, override)}"
            )


def _joined(group: str, *overrides: Override) -> str:
    if group not in LISTS or any(override.is_delete() or override.is_sweep_override() for override in overrides):
        return f" {group}=…"
    names: dict[str, None] = {}
    for override in overrides:
        value = override.value()
        names |= dict.fromkeys(map(str, value if isinstance(value, list) else [value]))
    sign = "+" if all(override.is_add() for override in overrides) else ""
    return f", {sign}{group}=[{','.join(names)}]"


def check_effects(config: Any, overrides: Sequence[Override], *, sweeps: bool) -> None:
    """Checks that what each override says is so in the composed configuration, and that something reads it.

    Raises:
        ConfigError: an override without effect.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    for override in overrides:
        if not _is_choice(override):
            _check_effect(raw, override)
            with _one_line(str(override.input_line)):
                if OmegaConf.select(config, override.key_or_group) == "":
                    raise ConfigError(f"{override.input_line} is empty here; is its variable set?")
    _check_search(raw["hydra"]["sweeper"], overrides, sweeps=sweeps)
    with open_dict(config):
        del config["hydra"]
        config.run_dir = ""
    resolved(config)


def _check_effect(raw: dict[Any, Any], override: Override) -> None:
    word, key = override.input_line, override.key_or_group
    known = [entry.name for entry in fields(RootConfig)]
    if override.is_delete():
        if key in known:
            raise ConfigError(f"{word}: {key} cannot be removed")
        if _at(raw, key) is not GONE:
            raise ConfigError(f"{word} has no effect, because {key} is set beside it: leave one of them out")
        return
    if key.split(".")[0] not in (*known, "hydra"):
        raise ConfigError(f"{word}: nothing reads {key}; the root keys and groups are {', '.join(sorted(known))}")
    if not _is_so(_at(raw, key), override.value()):
        raise ConfigError(f"{word} has no effect, because a later override sets {key} too: leave one of them out")
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group in LISTS and "_target_" not in (_at(raw, f"{group}.{name}") or {}):
        if override.value() is None:
            raise ConfigError(f"{word}: leave {name} out of {group}=[…], or write {group}=[] for none")
        raise ConfigError(f"{word}: {name} is not chosen, so this has no effect; add {name} to {group}=[…]")


def _check_search(sweeper: Mapping[str, Any], overrides: Sequence[Override], *, sweeps: bool) -> None:
    swept = sweeper.get("params") or {}
    is_search = sweeps and str(sweeper["_target_"]).endswith("OptunaSweeper")
    for override in overrides:
        word, key = override.input_line, override.key_or_group
        if key in swept and override.get_key_element() != key:
            raise ConfigError(f"{word}: hparams_search=… sweeps {key}; write {str(word).lstrip('+~')} to replace that")
        if key == "optimized_metric" and not is_search:
            raise ConfigError(
                f"{word} is what a search optimises: add -m hparams_search=rate_distortion, or leave this out"
            )


@contextmanager
def _one_line(word: str) -> Iterator[None]:
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"{word}: {str(error).splitlines()[0]}") from error


def _at(raw: Any, key: str) -> Any:
    """What stands at a dotted key."""
    for name in key.split("."):
        if isinstance(raw, Mapping):
            raw = raw.get(name, GONE)
        elif isinstance(raw, list) and name.isdigit() and int(name) < len(raw):
            raw = raw[int(name)]
        else:
            return GONE
    return raw


def _is_so(there: Any, said: Any) -> bool:
    """Whether a value of the configuration is the one of an override; a dict only adds to what is there."""
    if isinstance(said, dict):
        return isinstance(there, Mapping) and all(
            _is_so(there.get(str(name), GONE), each) for name, each in said.items()
        )
    if isinstance(said, list):
        return isinstance(there, list) and len(there) == len(said) and all(map(_is_so, there, said))
    if there == said or str(there).casefold() == str(said).casefold():
        return True
    try:
        return float(there) == float(said)  # beta='4'
    except (TypeError, ValueError):
        return False
