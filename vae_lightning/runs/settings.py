"""The resolved settings of a run, and in what those of two runs differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_lightning.runs.identity import WITHOUT_EFFECT
from vae_lightning.runs.layout import CONFIG_YAML, RunError
from vae_lightning.system.names import shown
from vae_lightning.system.plain_files import read_plain

Keys = tuple[str, ...]  # from the root to a setting
NOT_COMPARED = {  # of one command or one machine, or without effect on a run that has begun
    *(("run_dir",), ("sweep",), ("optimized_metric",), ("ckpt_path",), ("recognizer", "weights")),
    *WITHOUT_EFFECT,
}
NOTHING = object()  # where only the other configuration has something
MOST_NAMED = 8


class Difference(NamedTuple):
    """A setting in which two configurations differ; NOTHING where one of them does not have it."""

    path: Keys
    own: Any
    other: Any

    @property
    def key(self) -> str:
        return ".".join(self.path)


def _in_words(value: Any) -> str:
    if value is NOTHING:
        return "not set"
    return shown(value if isinstance(value, str) else json.dumps(value))


def differences(own: Any, other: Any, path: Keys = ()) -> Iterator[Difference]:
    """The settings in which two resolved configurations differ; a list is one setting."""
    if path in NOT_COMPARED:
        return
    if isinstance(own, Mapping) and own and (other is NOTHING or other is None):
        other = {}
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*own, *other]):
            yield from differences(own.get(name, NOTHING), other.get(name, NOTHING), (*path, str(name)))
    elif own != other or isinstance(own, int) != isinstance(other, int):  # 1 is one batch, and 1.0 are all
        yield Difference(path, own, other)


def named(found: Sequence[Difference], there: str = "there", here: str = "here") -> str:
    """Differences in words, not more than fit into a message: `beta is 4.0 there and 1.0 here`."""
    words = (f"{each.key} is {_in_words(each.own)} {there} and {_in_words(each.other)} {here}" for each in found)
    rest = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return "; ".join(list(words)[:MOST_NAMED]) + rest


def read_settings(run_dir: Path) -> dict[str, Any]:
    """The resolved settings that a run was started with; paths in its folder are those of its present place.

    Raises:
        RunError: config.yaml is missing or damaged.
    """
    file = run_dir / CONFIG_YAML
    try:
        settings = read_plain(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}), so the run's settings are not known") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("run_dir"), str):
        raise RunError(f"{file} is damaged, so the run's settings are not known")
    moved: dict[str, Any] = _moved(settings, settings["run_dir"], str(run_dir))
    return moved


def _moved(value: Any, before: str, now: str) -> Any:
    if isinstance(value, dict):
        return {name: _moved(each, before, now) for name, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, before, now) for each in value]
    is_inside = isinstance(value, str) and (value == before or value.startswith(f"{before}/"))
    return now + value[len(before) :] if is_inside else value
