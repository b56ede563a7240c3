"""Nothing can be set that does nothing: every key in conf/ and every option of `vae` is read by some code."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from hydra.utils import get_class
from omegaconf import OmegaConf

from vae_lightning.cli.app import app
from vae_lightning.launch import train
from vae_lightning.launch.configuration import RootConfig

ROOT = Path(__file__).parents[1]
PRESETS = ("experiment", "hparams_search", "debug")  # change keys of others
OURS = ("vae_lightning", "callbacks")


@cache
def program() -> list[ast.Module]:
    files = [ROOT / "train.py", *(file for folder in OURS for file in (ROOT / folder).rglob("*.py"))]
    return [ast.parse(file.read_text(encoding="utf-8")) for file in files]


@cache
def read_attributes() -> frozenset[str]:
    """Everything that is read as `something.name` anywhere."""
    return frozenset(
        node.attr
        for module in program()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


@cache
def read_entries() -> frozenset[str]:
    """Everything that is read as `something["name"]` or `something.get("name")`, or named in a tuple of keys."""
    texts: set[str] = set()
    for module in program():
        for node in ast.walk(module):
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                entries = [node.slice]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                entries = node.args[:1]
            else:
                continue
            texts |= {
                entry.value for entry in entries if isinstance(entry, ast.Constant) and isinstance(entry.value, str)
            }
    return frozenset(texts)


def unused_parameters(function: Callable[..., Any], attributes: frozenset[str] | None = None) -> list[str]:
    """Parameters that the body never reads, or only keeps as an attribute that nothing reads."""
    attributes = read_attributes() if attributes is None else attributes
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments = tree.args
    names = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self"}
    if arguments.kwarg:
        names.add(arguments.kwarg.arg)
    kept: dict[str, set[str]] = {}
    read: set[str] = set()
    for statement in tree.body:
        for node, is_only_kept in _names_read(statement):
            if is_only_kept is None:
                read.add(node)
            else:
                kept.setdefault(node, set()).add(is_only_kept)
    return sorted(name for name in names - read if not kept.get(name, set()) & attributes)


def _names_read(statement: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Names that are read, each with the attribute that it is only stored as."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Attribute):
                yield node.value.id, target.attr
                continue
    stored = {
        id(node.value)
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Attribute) for target in node.targets)
    }
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in stored:
            yield node.id, None


def targets() -> Iterator[tuple[str, type]]:
    """Every class of ours that a YAML file asks for."""
    for file in sorted(train.CONF_DIR.rglob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        pending = [content]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                pending += node.values()
                name = node.get("_target_", "")
                if str(name).startswith(OURS):
                    yield str(name), get_class(name)


def constructors(target: type) -> Iterator[Callable[..., Any]]:
    """Of a class and of those bases of ours that `**others` reaches."""
    for base in target.__mro__:
        if base.__module__.startswith(OURS) and "__init__" in vars(base) and hasattr(base.__init__, "__code__"):
            yield base.__init__


def test_every_argument_in_a_yaml_file_is_used() -> None:
    unused = {
        f"{name}: {parameter}"
        for name, target in targets()
        for constructor in constructors(target)
        for parameter in unused_parameters(inspect.unwrap(constructor))
    }
    assert not unused


def unread_root_keys(names: Iterable[str]) -> list[str]:
    texts = [file.read_text(encoding="utf-8") for file in train.CONF_DIR.rglob("*.yaml")]
    read = read_entries() | read_attributes()
    return [name for name in names if name not in read and not any(f"${{{name}}}" in text for text in texts)]


def test_every_root_key_is_read() -> None:
    assert not unread_root_keys(RootConfig.__dataclass_fields__)


def test_every_key_of_the_root_file_is_typed_and_every_group_is_a_root_key() -> None:
    keys = set(OmegaConf.load(train.CONF_DIR / "config.yaml")) - {"defaults", "hydra"}
    groups = {path.name for path in train.CONF_DIR.iterdir() if path.is_dir()} - {*PRESETS, "hydra"}
    assert keys | groups == set(RootConfig.__dataclass_fields__)


def verbs(group: typer.Typer, path: str = "vae") -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__}", command.callback
    for each in group.registered_groups:
        assert each.typer_instance is not None
        yield from verbs(each.typer_instance, f"{path} {each.name}")


def test_every_option_of_every_verb_is_used() -> None:
    found = dict(verbs(app))
    assert {"vae sample", "vae edit attribute", "vae edit score"} <= set(found)
    unused = {
        f"{verb} {each}" for verb, function in found.items() for each in unused_parameters(inspect.unwrap(function))
    }
    assert not unused


class _Example:
    def __init__(self, used: int, kept: int, dead: int, kept_in_vain: int) -> None:
        self.kept = kept
        self.kept_in_vain = kept_in_vain
        self.sum = used + 1


def test_a_dead_argument_is_found() -> None:
    assert unused_parameters(_Example.__init__, frozenset({"kept"})) == ["dead", "kept_in_vain"]


def test_a_dead_root_key_is_found() -> None:
    assert unread_root_keys(["beta", "betta_of_nobody"]) == ["betta_of_nobody"]
