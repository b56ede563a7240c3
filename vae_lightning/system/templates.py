"""Jinja templates in which every value is escaped, so that text from files cannot add markup."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from vae_lightning.system.names import as_markdown


def html_template(file: Path, escaped: Callable[[str], str] = escape) -> Template:
    """A template that makes HTML.

    Args:
        file: the template.
        escaped: makes a value harmless in elements and in quoted attributes.
    """
    return _template(file, escaped)


def markdown_template(file: Path) -> Template:
    """A template that makes Markdown; no tag, link, code or column of a table begins in a value."""
    return _template(file, as_markdown)


@cache
def _template(file: Path, escaped: Callable[[str], str]) -> Template:
    def finalize(value: Any) -> Any:
        return value if hasattr(value, "__html__") else Markup(escaped(str(value)))

    environment = Environment(
        loader=FileSystemLoader(file.parent),
        autoescape=True,  # what a macro of the template made is marked as safe, and nothing else
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(file.name)
