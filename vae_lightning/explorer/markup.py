"""Pictures, notes and lines of code as HTML, by the macros of parts.html.jinja, which escape every value."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import escape
from PIL import Image

from vae_lightning.system.templates import html_template

FOR_GRADIO = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def text(words: str) -> str:
    """Harmless in elements and attributes, also in Gradio's own templates, where braces and dollars mean something."""
    return str(escape(words)).translate(FOR_GRADIO)


PARTS: Any = html_template(Path(__file__).with_name("parts.html.jinja"), text).module
empty_figure, header, footer, problem = PARTS.empty_figure, PARTS.header, PARTS.footer, PARTS.problem


def figure(picture: Image.Image, caption: str, alternative: str, file_name: str, kind: str = "") -> str:
    """A picture with a link that saves it.

    Args:
        picture: shown as large as there is room, smoothed by the browser; saved as it is.
        caption: below it.
        alternative: for those who do not see it.
        file_name: proposed for saving.
        kind: a class of the page's style sheet.
    """
    encoded = io.BytesIO()
    picture.save(encoded, format="png")
    uri = _data_uri("image/png", encoded.getvalue())
    return PARTS.figure(uri, picture.size, caption, alternative, file_name, kind)


def side_by_side(figures: Sequence[str], kind: str = "") -> str:
    return PARTS.side_by_side(figures, kind)


def code(lines: str, file_name: str) -> str:
    return PARTS.code(_data_uri("text/x-python", lines.encode()), lines, file_name)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
