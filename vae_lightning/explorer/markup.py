"""Pictures, notes and lines of code as HTML. Everything is escaped here."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image


def text(words: str) -> str:
    """Safe in elements and attributes, also of the page's templates, to which braces and dollars mean something."""
    return escape(words).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def png(picture: Image.Image) -> str:
    """A data: URI, at the picture's own resolution."""
    encoded = io.BytesIO()
    picture.save(encoded, format="png")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def figure(picture: Image.Image, caption: str, alternative: str, file_name: str, kind: str = "") -> str:
    """With a link that saves it.

    Args:
        picture: shown as large as there is room, smoothed by the browser; saved as it is.
        caption: below it.
        alternative: for those who do not see it.
        file_name: proposed for saving.
        kind: a class of the page's style sheet.
    """
    uri = png(picture)
    width, height = picture.size
    return (
        f'<figure class="picture {text(kind)}">'
        f'<img src="{uri}" alt="{text(alternative)}" width="{width}" height="{height}" decoding="sync">'
        f"<figcaption><span>{text(caption)}</span> "
        f'<a href="{uri}" download="{text(file_name)}" aria-label="Save {text(alternative)} as PNG">PNG</a>'
        "</figcaption></figure>"
    )


def empty_figure(caption: str, reason: str) -> str:
    """In place of a picture that cannot be."""
    below = f"<figcaption><span>{text(caption)}</span></figcaption>"
    return f'<figure class="picture absent"><p>{text(reason)}</p>{below}</figure>'


def side_by_side(figures: Sequence[str], kind: str = "") -> str:
    return f'<div class="pictures {text(kind)}">{"".join(figures)}</div>'


def code(lines: str, file_name: str) -> str:
    uri = "data:text/x-python;base64," + base64.b64encode(lines.encode()).decode()
    return (
        f'<pre class="code" tabindex="0" aria-label="Python code"><code>{text(lines)}</code></pre>'
        f'<p><a href="{uri}" download="{text(file_name)}">Save as {text(file_name)}</a></p>'
    )


def notes(sentences: Sequence[str]) -> str:
    """Nothing where there are none."""
    unique = list(dict.fromkeys(sentences))
    return f'<ul class="notes">{"".join(f"<li>{text(each)}</li>" for each in unique)}</ul>' if unique else ""


def problem(words: str) -> str:
    """Read aloud at once; nothing for no words."""
    return f'<p class="problem" role="alert">{text(words)}</p>' if words else ""
