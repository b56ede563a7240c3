"""A resumed run keeps the settings that it was started with, also where a default or a preset has changed since."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.launch.composing import compose_words, parse_words
from vae_lightning.launch.hardware import best_precision
from vae_lightning.launch.inheritance import with_inherited
from vae_lightning.launch.overrides import key_of, quoted_value
from vae_lightning.launch.signatures import ConfigError
from vae_lightning.launch.stored_overrides import check_offered, read_stored
from vae_lightning.launch.words import read_line
from vae_lightning.runs.layout import CONFIG_YAML
from vae_lightning.runs.settings import NOTHING, Difference, Keys, differences, named, read_settings

REFUSED = (ConfigError, OmegaConfBaseException)


class Composer:
    """Composes configurations of overrides, in the folder of the run that is resumed."""

    def __init__(self, run_dir: Path, arguments: Sequence[str]) -> None:
        line, self._more = read_line(arguments)
        self.typed = [str(word) for word in line.overrides]
        self.run_dir = run_dir
        self._name = line.config_name

    def __call__(self, overrides: Sequence[str]) -> Any:
        config, _ = compose_words(self._name, parse_words([*overrides, *self._more]))
        config.run_dir = str(self.run_dir)
        return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])

    def usable(self, overrides: Sequence[str]) -> list[str]:
        """Without those that conf/ no longer has: a choice, or a key."""
        usable: list[str] = []
        for override in overrides:
            try:
                self([*usable, override])
            except REFUSED:
                continue
            usable.append(override)
        return usable


def resolved(config: Any) -> dict[str, Any]:
    """A composed configuration as config.yaml would have it."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    trainer = settings["trainer"]
    if trainer.get("precision") == "auto":
        trainer["precision"] = best_precision(trainer.get("accelerator", "auto"))
    return with_inherited(settings)


def keep_settings(run_dir: Path, kept: Sequence[str], arguments: Sequence[str], conf_dir: Path) -> list[str]:
    """The overrides that resume a run with its own settings. Says on stderr what has changed since it was started.

    Args:
        run_dir: with config.yaml and .hydra/overrides.yaml.
        kept: the overrides that the run was started with, without those of keys that are typed now.
        arguments: typed now; what they change is not kept.
        conf_dir: with config.yaml and a folder per group.

    Raises:
        RunError: the run's settings are not known, or one of them must be typed.
    """
    own, stored, composer = read_settings(run_dir), read_stored(run_dir), Composer(run_dir, arguments)
    with initialize_config_dir(str(conf_dir), version_base="1.3"):
        try:
            before = composer(stored)
        except REFUSED:
            usable = composer.usable(stored)
            before, kept = composer(usable), [override for override in kept if override in usable]
        try:
            found = _to_restore(own, before, kept, composer, conf_dir)
        except REFUSED:
            return list(kept)  # the same is composed again with what is typed, and refused in words
    if found:
        sys.stderr.write(
            f"ckpt_path=last: {run_dir} keeps its own settings where defaults or presets have changed since it was "
            f"started: {named(found)}. Type a setting to change it\n"
        )
    return [*_without(kept, found), *map(_as_override, found)]


def _to_restore(
    own: Mapping[str, Any], before: Any, kept: Sequence[str], composer: Composer, conf_dir: Path
) -> list[Difference]:
    """The settings that neither the run nor what is typed has; first those that others follow.

    Raises:
        RunError: one of them must be typed; nothing is composed with it.
    """
    found: list[Difference] = []
    now = composer([*kept, *composer.typed])
    changed = [each.path for each in differences(resolved(before), resolved(now))]
    for with_followers in (False, True):
        for each in differences(own, resolved(now)):
            is_typed = any(path == each.path[: len(path)] or each.path == path[: len(each.path)] for path in changed)
            is_new = len(each.path) == 1 and each.own is NOTHING  # the run knew no such part
            if not is_typed and not is_new and (with_followers or not _follows(now, each.path)):
                found.append(each)
        if not found:
            break
        restored = [_as_override(each) for each in found]
        check_offered(restored, composer.run_dir / CONFIG_YAML, conf_dir)
        now = composer([*_without(kept, found), *restored, *composer.typed])
    return found


def _without(kept: Sequence[str], found: Sequence[Difference]) -> list[str]:
    """Without those that are replaced."""
    replaced = {each.key for each in found if each.own is not NOTHING}
    return [override for override in kept if key_of(override) not in replaced]


def _follows(config: Any, path: Keys) -> bool:
    """Whether a value is interpolated from another."""
    for name in path[:-1]:
        config = config.get(name) if OmegaConf.is_dict(config) else None
    return OmegaConf.is_dict(config) and path[-1] in config and OmegaConf.is_interpolation(config, path[-1])


def _as_override(difference: Difference) -> str:
    is_no_choice = len(difference.path) == 1 and difference.own is None  # of a group, which takes no null
    if difference.own is NOTHING or is_no_choice:
        return f"~{difference.key}"
    sign = "++" if len(difference.path) > 1 else ""
    return f"{sign}{difference.key}={quoted_value(difference.own)}"
