"""Reads the overrides that a run folder stores, as far as conf/ offers them.

A folder may come from a stranger. What it stores may choose among the files of conf/, may set numbers, and may set
texts of settings that conf/ has. It may name no class that does not stand there, and no place to write to. What a
person types is not restricted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from vae_lightning.launch.overrides import key_of
from vae_lightning.runs.data_record import is_place_for_data
from vae_lightning.runs.layout import OVERRIDES_YAML, RunError
from vae_lightning.system.names import shown
from vae_lightning.system.plain_files import read_plain

KEY = re.compile(r"[a-z]\w*([./]\w+)*")
CHOICE = re.compile(r"[\w-]+")  # of a group: a file in conf/
TARGET = "_target_"
PACKAGE = "# @package "
ROOT_CONFIG = "config.yaml"
OF_HYDRA = ("hydra", "defaults")
READ_FROM = ("data.root", "recognizer.weights", "perceptual.weights_path", "callbacks.evaluation.weights")
WRITTEN_TO = "data.data_dir"
OF_THE_RUN = "${run_dir}"  # in conf/: below the run's folder, and nowhere else
TRAINER_TEXTS = ("trainer.max_time", "trainer.gradient_clip_algorithm")  # Lightning's, which conf/ does not list


class Offer(NamedTuple):
    """What the files of conf/ hold.

    texts: keys whose value may be a text.
    of_the_run: keys whose value is a place in the run's folder.
    classes: pairs of a place (`callbacks.*`, `model`) and a class that is built there.
    """

    texts: frozenset[str]
    of_the_run: frozenset[str]
    classes: frozenset[tuple[str, str]]


def read_stored(run_dir: Path) -> list[str]:
    """Reads the overrides that the run was started with, whatever they say.

    Raises:
        RunError: .hydra/overrides.yaml is missing or damaged.
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
    return earlier


def read_overrides(run_dir: Path, conf_dir: Path, typed: set[str]) -> list[str]:
    """Reads the overrides that the run was started with, without those of `typed` keys.

    Args:
        run_dir: with .hydra/overrides.yaml.
        conf_dir: with config.yaml and a folder per group.
        typed: keys on the command line now.

    Raises:
        RunError: the file is damaged, or holds an override that must be typed.
    """
    kept = [override for override in read_stored(run_dir) if key_of(override) not in typed]
    check_offered(kept, run_dir / OVERRIDES_YAML, conf_dir)
    return kept


def check_offered(overrides: Sequence[str], file: Path, conf_dir: Path) -> None:
    """Refuses overrides out of a file of a run's folder that do not stay within conf/.

    Raises:
        RunError: the first of them that must be typed.
    """
    refused = [override for override in overrides if not is_offered(override, conf_dir)]
    if refused:
        raise RunError(
            f"ckpt_path=last: {file} says {shown(refused[0])!r}. A run's folder may only name classes that stand in "
            "conf/, and no place outside of it to write to. If you trust it, type it again beside ckpt_path=last"
        )


def _otherwise(run_dir: Path) -> str:
    return f"The command that started the run resumes it, with hydra.run.dir={run_dir} and without ckpt_path"


def is_offered(text: str, conf_dir: Path) -> bool:
    """Whether an override stays within conf/: a choice that stands there, or values of settings."""
    try:
        override = OverridesParser.create().parse_override(text)
        value = override.value()
    except (HydraException, ValueError, RecursionError):
        return False
    key = str(override.key_or_group)
    if text.startswith("-") or not KEY.fullmatch(key) or override.package or override.is_sweep_override():
        return False
    if key.split(".")[0].split("/")[0] in (*OF_HYDRA, "run_dir"):
        return False
    if override.is_delete() or (conf_dir / key).is_dir():
        return _is_a_choice(override, value)
    return all(_is_setting(name, leaf, offer_of(conf_dir)) for name, leaf in leaves(key, value))


def _is_a_choice(override: Override, value: Any) -> bool:
    chosen = value if isinstance(value, list) else [value]
    return override.is_delete() or all(each is None or CHOICE.fullmatch(str(each)) for each in chosen)


def _is_setting(key: str, value: Any, offer: Offer) -> bool:
    """Whether a value may come from a stranger."""
    name = key.rpartition(".")[2]
    if key in offer.of_the_run or (name.startswith("_") and name != TARGET):
        return False
    if not isinstance(value, str):
        return isinstance(value, int | float | None)
    if "${" in value or "???" in value:  # its value is decided later
        return False
    if name == TARGET:
        return (_place(key.rpartition(".")[0]), value) in offer.classes
    if key == WRITTEN_TO:
        return is_place_for_data(value)
    return key in READ_FROM or (key in {*offer.texts, *TRAINER_TEXTS} and _stays_inside(value))


def _stays_inside(text: str) -> bool:
    """Whether a text that is a file's name or becomes part of one leads to no other folder."""
    return not text.startswith(("/", "~")) and ".." not in PurePath(text).parts


def _place(key: str) -> str:
    """`callbacks.ema` -> `callbacks.*`: there are any number of them, by any name."""
    root, *inside = key.split(".")
    return ".".join([root, *("*" for _ in inside)])


@cache
def offer_of(conf_dir: Path) -> Offer:
    """Reads all files of conf/ but Hydra's own."""
    texts: set[str] = set()
    of_the_run = {"run_dir"}
    classes: set[tuple[str, str]] = set()
    for path in conf_dir.rglob("*.yaml"):
        group = path.parent.relative_to(conf_dir).as_posix()
        if group.split("/")[0] in OF_HYDRA:
            continue
        written = path.read_text(encoding="utf-8")
        package = written.removeprefix(PACKAGE).split("\n")[0].strip() if written.startswith(PACKAGE) else group
        content = yaml.safe_load(written) or {}
        start = "" if path.name == ROOT_CONFIG or package == "_global_" else package
        for key, value in leaves(start, {name: each for name, each in content.items() if name not in OF_HYDRA}):
            place, _, name = key.rpartition(".")
            if name == TARGET:
                classes.add((_place(place), str(value)))
            (of_the_run if OF_THE_RUN in str(value) else texts).add(key)
    return Offer(frozenset(texts), frozenset(of_the_run), frozenset(classes))


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Plain values with their keys; the items of a list have its key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from leaves(f"{key}.{name}" if key else str(name), each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(key, each)
    else:
        yield key, value
