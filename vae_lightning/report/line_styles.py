"""How lines are told apart: by name where they are few, else by the colour of a swept value."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from vae_lightning.pictures.charts import COLORS, verbatim
from vae_lightning.report.sweep import as_number, short_number

MOST_NAMED = 8  # lines that have a colour and a name of their own
STYLES = ("-", "--", ":", "-.")
WIDE_RANGE = 20  # of values above 0: on a logarithmic scale
GRAY = "#8a8a8a"
COLORMAP = "viridis"
BRIGHTEST = 0.9  # of the colour map: its end is too pale on white


@dataclass(frozen=True)
class LineStyles:
    """Colour and dashes of each line, and what explains them."""

    colors: list[Any]
    dashes: list[str]
    key: str = ""  # whose value is the colour; empty where each line has a name
    norm: Normalize | None = None  # of the values that are numbers
    named: tuple[tuple[str, Any, Any], ...] = ()  # value, colour and dashes, for a legend

    def explain(self, figure: Figure, axes: Sequence[Axes]) -> None:
        """Adds a scale of the colours and a legend of what else differs; nothing where each line has a name."""
        if self.norm is not None:
            colors = mpl.colormaps[COLORMAP].resampled(256)
            shown = mpl.colors.ListedColormap(colors([BRIGHTEST * place / 255 for place in range(256)]))
            figure.colorbar(ScalarMappable(self.norm, shown), ax=list(axes), label=self.key, pad=0.01)
        if self.named:
            lines = [mpl.lines.Line2D([], [], color=color, linestyle=dash) for _, color, dash in self.named]
            names = [verbatim(name) for name, _, _ in self.named]
            figure.legend(lines, names, loc="outside lower center", ncols=4, fontsize=9)


def line_styles(lines: Sequence[Mapping[str, str]], keys: Sequence[str]) -> LineStyles:
    """Styles of lines that differ in the values of some keys.

    Args:
        lines: the values of each line, by key.
        keys: that differ, the most important first.
    """
    count = range(len(lines))
    if len(lines) <= MOST_NAMED:
        return LineStyles([COLORS[n % len(COLORS)] for n in count], [STYLES[n // len(COLORS)] for n in count])
    values = {key: list(dict.fromkeys(line.get(key, "") for line in lines)) for key in keys}
    of_numbers = [key for key in keys if len(values[key]) > 2 and all(_is_finite(value) for value in values[key])]
    dashed = next((key for key in keys if 1 < len(values[key]) <= len(STYLES) and key not in of_numbers[:1]), "")
    dash = dict(zip(values.get(dashed, []), STYLES, strict=False))
    dashes = [dash.get(line.get(dashed, ""), "-") for line in lines]
    named = tuple((f"{dashed}={short_number(value)}", "#333333", style) for value, style in dash.items())
    if of_numbers:
        numbers = [float(line[of_numbers[0]]) for line in lines]
        norm = _norm(numbers)
        colors: list[Any] = [mpl.colormaps[COLORMAP](BRIGHTEST * float(norm(number))) for number in numbers]
        return LineStyles(colors, dashes, of_numbers[0], norm, named)
    named_key = next((key for key in keys if key != dashed and 1 < len(values[key]) <= len(COLORS)), "")
    color = dict(zip(values.get(named_key, []), COLORS, strict=False))
    shown = [color.get(line.get(named_key, ""), GRAY) for line in lines]
    named += tuple((f"{named_key}={short_number(value)}", each, "-") for value, each in color.items())
    return LineStyles(shown, dashes, named_key or "gray", None, named)


def _is_finite(value: str) -> bool:
    number = as_number(value)
    return number is not None and math.isfinite(number)


def _norm(numbers: Sequence[float]) -> Normalize:
    low, high = min(numbers), max(numbers)
    return LogNorm(low, high) if low > 0 and high > WIDE_RANGE * low else Normalize(low, high)
