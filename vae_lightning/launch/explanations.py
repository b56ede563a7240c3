"""Says in one line what Hydra refuses: the override, what is allowed, and the nearest of it."""

import re
import typing
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from vae_lightning.launch.configuration import CONF_DIR, LISTS, RootConfig
from vae_lightning.launch.signatures import describe_type, taken_by, unknown_argument
from vae_lightning.system.names import did_you_mean, not_allowed

UNKNOWN = re.compile(r"Could not override '([^']+)'\.")
MISSING = re.compile(r"Could not (?:find|load) '(.+)/([^/']*)'")
THERE_ALREADY = re.compile(r"already at '([^']+)'|Multiple values for (\S+)\.|^(\S+) appears more than once|force-add")
# of other tools, and of earlier versions of Lightning
OTHER_WORDS = {"epochs": "trainer.max_epochs", "gpus": "trainer.devices", "learning_rate": "optimizer.lr"}
NOT_THERE = re.compile(r"Could not delete")


def group_choices(group: str) -> list[str]:
    """The choices of a group on Hydra's search path; none of a key that is no group."""
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group, ObjectType.CONFIG) if "." not in group else []


def unknown_key(error: Exception) -> str | None:
    """The key that Hydra does not know, if that is what the error says."""
    found = UNKNOWN.match(str(error))
    return found[1] if found else None


def explain(error: Exception, overrides: Collection[Override], base: Any) -> str:
    """Why Hydra refuses to compose.

    Args:
        error: that Hydra raised.
        overrides: which it got.
        base: the configuration of the chosen groups without other overrides; only for an unknown key.
    """
    key = unknown_key(error)
    if key is not None:
        return explain_key(key, base if base is not None else OmegaConf.create())
    missing = MISSING.search(str(error))
    if missing and group_choices(missing[1]):
        return not_allowed(missing[1], missing[2], group_choices(missing[1]))
    text, cause = str(error).splitlines() or [type(error).__name__], str(error.__cause__ or "").splitlines()
    word = next((str(each.input_line) for each in overrides if each.input_line and str(each.input_line) in text[0]), "")
    if word and text[0].startswith("Error merging override"):
        key = word.partition("=")[0].lstrip("+")
        annotation = typing.get_type_hints(RootConfig).get(key)
        return f"{word}: must be {describe_type(annotation)}" if annotation else f"{word}: {cause[0]}"
    if NOT_THERE.match(text[0]):
        return _nothing_to_remove(overrides, text[0])
    if THERE_ALREADY.search(text[0]):
        return _there_already(overrides, text[0])
    return ": ".join([text[0].rstrip(": "), *cause[:1]])


def _nothing_to_remove(overrides: Collection[Override], text: str) -> str:
    removed = [each for each in overrides if each.is_delete() and f"'{str(each.input_line)[1:]}'" in text]
    if not removed:
        return text
    return f"{removed[0].input_line}: it is not there; leave this out"


def _there_already(overrides: Collection[Override], text: str) -> str:
    for override in overrides:
        key = override.key_or_group
        if (override.is_add() or override.is_force_add()) and re.search(rf"\b{re.escape(key)}\b", text):
            plain = str(override.input_line).lstrip("+")
            how = f"{key}=[…] with all that you want, or +{plain}" if key in LISTS else plain
            return f"{override.input_line}: {key} is there already; write {how}"
    return text


def explain_key(key: str, base: Any) -> str:
    """Which part does not take a setting, what it takes, and where there is one of that name."""
    parts = key.split(".")
    depth = next(
        (
            count
            for count in range(len(parts) - 1, 0, -1)
            if OmegaConf.select(base, ".".join(parts[:count])) is not None
        ),
        0,
    )
    place, name = ".".join(parts[:depth]), parts[depth]
    node = OmegaConf.select(base, place) if place else base
    if depth == 0 and len(parts) > 1 and parts[0] in RootConfig.__dataclass_fields__:
        return f"{key}: no {parts[0]} is chosen that has this setting; choose {parts[0]}=… first"
    if place in LISTS:
        choices = [path.stem for path in sorted((CONF_DIR / place).glob("*.yaml"))]
        if name in choices:
            return f"{key}: {name} is not chosen, so this has no effect; add {name} to {place}=[…]"
        return f"{key}: there is no {name} here{did_you_mean(name, [*node, *choices])}; there are {', '.join(node)}"
    if not OmegaConf.is_dict(node):
        return f"{key}: {place} is one value, {node}, and has no settings of its own"
    target, taken = taken_by(node)
    hint = elsewhere(name, taken)
    if target is None:
        return f"{key}: there is no such key{hint}; {place} has {', '.join(map(str, node))}"
    return unknown_argument(key, target.__name__, taken, hint)


@cache
def places() -> dict[str, str]:
    """Every setting of the groups in conf/ by its last name: `batch_size` is `data.batch_size`."""
    found: dict[str, str] = {}
    for path in sorted(CONF_DIR.glob("*/*.yaml")):
        node = OmegaConf.load(path)
        if path.parent.name in RootConfig.__dataclass_fields__ and isinstance(node, DictConfig) and "_target_" in node:
            for name in map(str, node):
                found.setdefault(name, f"{path.parent.name}.{name}")
    return found | {name: name for name in RootConfig.__dataclass_fields__}


def elsewhere(name: str, taken: Sequence[str] = ()) -> str:
    """` (did you mean X?)` for what is `taken` here or stands in another part, or nothing."""
    exact = OTHER_WORDS.get(name) or places().get(name)
    if exact:
        return f" (did you mean {exact}?)"
    return did_you_mean(name, taken) or did_you_mean(name, places().values())
