"""Holds the house: the floor of every room, and who may import Lightning and Hydra."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vae_lightning"
# A room imports from lower floors only. The words are the libraries that it may import beside the common ones.
ROOMS: dict[str, tuple[int, str]] = {
    "models": (1, ""),
    "system": (1, ""),
    "losses": (2, ""),
    "data": (2, "lightning"),
    "latents": (2, ""),
    "runs": (3, "omegaconf"),
    "pictures": (3, ""),
    "training": (4, "lightning"),
    "scores": (4, ""),
    "evaluation": (5, ""),
    "recognition": (5, "lightning"),
    "editing": (6, ""),
    "report": (6, ""),
    "export": (6, ""),
    "launch": (7, "hydra omegaconf lightning"),
    "explorer": (7, ""),
    "cli": (8, ""),
}
FRAMEWORKS = {"hydra", "omegaconf", "lightning"}
# the only modules of the package that may import callbacks
TRAINING = ("vae_lightning/launch/train.py", "vae_lightning/launch/training_run.py")
LONGEST_FILE, LONGEST_FUNCTION = 320, 50
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "callbacks").glob("*.py"), ROOT / "train.py"])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Full names of all modules imported anywhere in a file; names imported from `vae_lightning` itself too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the arrows"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    name, imported = name_of(path), imports(path)
    tops = {module.split(".")[0] for module in imported}
    if not name.startswith("vae_lightning/"):
        return
    if name not in TRAINING:
        assert "callbacks" not in tops
    if "/" not in name.removeprefix("vae_lightning/"):
        return
    room = name.split("/")[1]
    floor, frameworks = ROOMS[room]
    assert FRAMEWORKS & tops <= set(frameworks.split())
    below = {other for other, (number, _) in ROOMS.items() if number < floor}
    ours = {module.split(".")[1] for module in imported if module.startswith("vae_lightning.")}
    assert ours <= below | {room}


def test_every_module_lies_in_a_room() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()} == set(ROOMS)


def test_names_say_what_is_inside() -> None:
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & {"utils", "util", "helpers", "common", "misc", "components"}


def test_functions_and_files_stay_small() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= LONGEST_FUNCTION, f"{path}:{node.lineno} {node.name}"
