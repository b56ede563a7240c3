"""Builds the documentation site: `uv run --extra docs sphinx-build -W --keep-going docs docs/_build/html`."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]  # configuration_reference.py, callbacks/

project = "vae-lightning"
author = "The vae-lightning authors"
copyright = "the vae-lightning authors, Apache License 2.0"
release = installed_version("vae-lightning")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "configuration_reference"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of Lightning's hooks say nothing about ours
autodoc_default_options = {"members": True, "show-inheritance": True}
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
default_role = "code"
# Napoleon takes what stands before a colon in the docstring of a property for its type.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"vae-lightning {release}"


def setup(app: Sphinx) -> None:
    """Two things that autodoc cannot know of our docstrings and of PyTorch's signatures."""

    def escape_bars(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
        """A bar is a bar; reStructuredText reads |words between bars| as a substitution."""
        lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda part: part[1] or r"\|", line) for line in lines]

    def drop_any(
        app: Sphinx, what: str, name: str, found: object, options: object, signature: str, returned: str
    ) -> tuple[str, str] | None:
        """Modules without a constructor of their own take no arguments."""
        return ("", returned) if what == "class" and str(signature).startswith("(*args") else None

    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-signature", drop_any)
