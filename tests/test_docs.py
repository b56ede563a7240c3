"""README.md and docs/: size, links, pictures, promises, papers, and the generated reference of configuration keys."""

import re
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md")), REPOSITORY / "multirun/README.md"]
PICTURES = {".png", ".jpg", ".gif"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub and MyST make them of headings."""
    tokens = MarkdownIt().parse(text_of(page))
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(text_of(README).splitlines()) <= 250
    assert README.stat().st_size <= 15_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(REPOSITORY), target
        assert not anchor or anchor in anchors(there), target


def test_every_picture_is_shown() -> None:
    shown = "\n".join(text_of(page) for page in PAGES)
    pictures = [path for path in (DOCS / "images").rglob("*") if path.suffix in PICTURES]
    assert pictures
    assert not [path.name for path in pictures if str(path.relative_to(DOCS)) not in shown]


def test_every_page_is_in_the_index_of_the_site() -> None:
    listed = {
        name
        for index in DOCS.rglob("index.md")
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text_of(index), flags=re.DOTALL)
        for name in (str((index.parent / line).relative_to(DOCS)) for line in block.split() if line[0] != ":")
    }
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} - {"index"} <= listed


def test_every_promise_is_held_by_a_test_that_exists() -> None:
    file, named = None, []
    promises = text_of(DOCS / "guarantees.md").partition("## How this was tried")[0]
    for path, name in re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", promises):
        file = path or file
        named.append((file, name))
    assert len(named) > 60
    for file, name in named:
        code = text_of(REPOSITORY / "tests" / str(file))
        assert f"def {name}(" in code or not name, f"{file}::{name}"


def test_the_map_names_all_rooms() -> None:
    rooms = {path.parent.name for path in (REPOSITORY / "vae_lightning").glob("*/__init__.py")}
    layout = text_of(REPOSITORY / "CONTRIBUTING.md").partition("| floor |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", layout)) == rooms
    assert set(re.findall(r"^\| \d \| `(\w+)/`", text_of(DOCS / "architecture.md"), flags=re.MULTILINE)) == rooms


def test_files_that_pages_name_exist() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    there = tracked.splitlines() or [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.py")]
    for page in (REPOSITORY / "CONTRIBUTING.md", DOCS / "architecture.md", DOCS / "extending.md"):
        for name in re.findall(
            r"`((?:vae_lightning|tests|callbacks|training|launch|losses|models|data|runs)/[\w/]+\.py)`", text_of(page)
        ):
            assert any(path == name or path.endswith(f"/{name}") for path in there), (page.name, name)


def test_versions_and_licence_agree() -> None:
    project = tomllib.loads(text_of(REPOSITORY / "pyproject.toml"))["project"]
    citation = yaml.safe_load(text_of(REPOSITORY / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"]
    assert str(citation["version"]) == project["version"]
    assert project["version"] in text_of(REPOSITORY / "CHANGELOG.md")
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text_of(REPOSITORY / "LICENSE")


@pytest.mark.extra
def test_the_reference_has_every_key_of_every_yaml_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(DOCS))
    reference = __import__("configuration_reference").reference()
    for choice in ("data=auto", "model=conv", "kl=free_bits", "trainer=default", "+callbacks=projector"):
        assert f"### `{choice}`" in reference
    for row in (
        r"\| `beta` \| `1.0` \| a number \| weight of the KL",  # a root key
        r"\| `model.hidden_dim` \| `512` \| a whole number \| \w+",  # meaning from the docstring
        r"\| `callbacks.temperature.temperatures` \| `\[0.2, 0.5, 1.0, 1.5\]` \| \[a list of a number\] \| \w+",
    ):
        assert re.search(row, reference), row
