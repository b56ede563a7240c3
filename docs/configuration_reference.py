"""Sphinx extension: writes every configuration key into docs/configuration.md, from YAML, signatures and docstrings."""

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_class
from sphinx.application import Sphinx

from vae_lightning.launch.configuration import RootConfig
from vae_lightning.launch.signatures import describe_type

CONF = Path(__file__).parents[1] / "conf"
OURS = ("vae_lightning.", "callbacks.")
GROUPS = (
    *("data", "model", "reconstruction", "kl", "beta_schedule", "perceptual", "recognizer"),
    *("optimizer", "lr_schedule", "trainer", "callbacks", "logger"),
)
MARK = "<!-- every key -->"
HEADER = "| key | default | takes | meaning |\n|---|---|---|---|\n"


@dataclass
class Argument:
    """One argument of a constructor; `takes` is its type in words, `meaning` its line of the docstring."""

    takes: str
    default: Any
    meaning: str


def reference() -> str:
    """The whole reference in Markdown: the root keys, then each choice of each group."""
    parts = ["## Root keys\n", HEADER + "".join(_root_rows())]
    for group in GROUPS:
        parts.append(f"## {group}\n")
        parts += [_choice(path, group) for path in sorted((CONF / group).glob("*.yaml"))]
    return "\n".join(parts)


def _root_rows() -> Iterator[str]:
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    comments, types = _comments(text), typing.get_type_hints(RootConfig)
    for key, value in yaml.safe_load(text).items():
        if key not in {"defaults", "hydra", "run_dir"}:
            yield _row(key, value, describe_type(types[key]), comments.get(key, ""))


def _choice(path: Path, group: str) -> str:
    text = path.read_text(encoding="utf-8")
    head = re.match(r"(?:#.*\n)*", text)
    sentences = [line.lstrip("# ") for line in (head[0] if head else "").splitlines() if "@package" not in line]
    package = re.search(r"# @package (\S+)", text)
    prefix = {"_global_": "", None: group}.get(package and package[1], package and package[1])
    rows = list(_rows(_without(yaml.safe_load(text), "defaults"), str(prefix), _comments(text)))
    table = HEADER + "".join(rows) if rows else ""
    sentences = sentences or [_summary(text)]
    name = f"+callbacks={path.stem}" if group == "callbacks" and "+callbacks=" in text else f"{group}={path.stem}"
    return f"### `{name}`\n\n{' '.join(sentences)}\n\n{table}"


def _rows(node: dict[str, Any], prefix: str, comments: dict[str, str]) -> Iterator[str]:
    """A row for each key of the YAML file, then one for each argument that only the constructor knows."""
    target = node.get("_target_", "")
    arguments = _arguments(get_class(target)) if target.startswith(OURS) else {}
    given = _without(node, "_target_", "_partial_", "_convert_", "_recursive_")
    for name, value in given.items():
        key = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, dict):
            yield from _rows(value, key, comments)
        elif not (isinstance(value, str) and value.startswith("${")):
            known = arguments.get(name, Argument("", None, ""))
            yield _row(key, value, known.takes, comments.get(name) or known.meaning)
    for name, argument in arguments.items():
        if name not in given and argument.default is not inspect.Parameter.empty:
            yield _row(f"{prefix}.{name}".lstrip("."), argument.default, argument.takes, argument.meaning)


def _arguments(target: type) -> dict[str, Argument]:
    """All arguments of a class, those that `**others` passes on to its base classes included."""
    found: dict[str, Argument] = {}
    for base in target.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None or base is object or not base.__module__.startswith(tuple(o[:-1] for o in OURS)):
            continue
        hints, meanings = typing.get_type_hints(constructor), _docstring_arguments(base)
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                takes = describe_type(hints.get(parameter.name, Any))
                found.setdefault(parameter.name, Argument(takes, parameter.default, meanings.get(parameter.name, "")))
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _summary(text: str) -> str:
    """The first line of the docstring of the class that a YAML file names."""
    target = re.search(r"_target_: (\S+)", text)
    return (inspect.getdoc(get_class(target[1])) or "").split("\n")[0] if target else ""


def _docstring_arguments(documented: type) -> dict[str, str]:
    section = (inspect.getdoc(documented) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def _comments(text: str) -> dict[str, str]:
    """The comment behind each `key: value  # comment` line."""
    return dict(re.findall(r"^\s*(\w+):[^#\n]*\s# (.*)$", text, flags=re.MULTILINE))


def _row(key: str, default: Any, takes: str, meaning: str) -> str:
    written = yaml.safe_dump(default, default_flow_style=True, width=1_000).strip().removesuffix("...").strip()
    cells = (f"`{key}`", f"`{written}`", "" if takes == "Any" else takes, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _without(node: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    return {name: value for name, value in (node or {}).items() if name not in names}


def setup(app: Sphinx) -> dict[str, bool]:
    """Puts the reference where docs/configuration.md has the mark."""

    keys = reference()  # before autodoc puts the source text of defaults into signatures

    def insert(app: Sphinx, page: str, source: list[str]) -> None:
        if page == "configuration":
            source[0] = source[0].replace(MARK, keys)

    app.connect("source-read", insert)
    return {"parallel_read_safe": True}
