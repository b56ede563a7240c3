"""Shows the figures of one benchmark as a table, or those of two side by side."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vae_lightning.system.names import LONGEST_REASON, reason_of, shown

PART_NAMES = {
    "cache_build": "cache build",
    "loader": "loader alone",
    "full_stack": "full train.py",
    "whole_fit": "… with validation, pictures, checkpoints",
    "bare_loop": "bare PyTorch loop",
    "plain_loop": "… as PyTorch comes: fp32, NCHW",
    "validation": "validation",
    "sampling": "sampling",
}


def parts_of(report: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Model (empty for the data), part, figures."""
    for part, figures in report["data"]["parts"].items():
        yield "", part, figures
    for model, measured in report["models"].items():
        for part, figures in measured["parts"].items():
            yield model, part, figures
    if "peer" in report:
        yield "peer", "bare_loop", report["peer"]


def tables(report: dict[str, Any]) -> RenderableType:
    """All measurements as a table, with sentences below it."""
    machine, limits = report["machine"], report["limits"]
    table = Table(
        title=f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {report['date'][:10]}",
        caption=f"limits: {limits['matrix_flops_per_second'] / 1e12:.3g} TFLOP/s ({limits['precision']} matrices), "
        f"{limits['copied_bytes_per_second'] / 1e9:.3g} GB/s copied",
    )
    for column in ("model", "part"):
        table.add_column(column)
    for column in ("images/s", "lowest to highest", "of limit"):
        table.add_column(column, justify="right")
    for model, part, figures in parts_of(report):
        spread = f"{min(figures['all']):,.0f} to {max(figures['all']):,.0f}"
        share = f"{figures['share_of_limit']:.1%}" if "share_of_limit" in figures else ""
        table.add_row(model, PART_NAMES[part], f"{figures['images_per_second']:,.0f}", spread, share)
    return Group(table, *_sentences(report))


def _sentences(report: dict[str, Any]) -> Iterator[str]:
    loader = report["data"]["parts"]["loader"]["images_per_second"]
    for name, model in report["models"].items():
        step_rate = model["parts"]["full_stack"]["images_per_second"]
        ratios = ", ".join(f"{ratio} {values['median']:.2f}" for ratio, values in model["ratios"].items())
        yield (
            f"{name} ({model['precision']}, batch {model['batch_size']}, compile {model['compile']}): {ratios}, "
            f"loader / full stack {loader / step_rate:.0f}; an epoch of all of CelebA "
            f"{model['seconds_per_celeba_epoch']:.3g} s"
        )
        if "peer" in report:
            yield f"{name} / peer: {step_rate / report['peer']['images_per_second']:.1f}"
    for count, speed in report.get("sharing", {}).items():
        yield f"{count} runs at once: {speed:,.0f} images/s together"


def read_report(file: Path) -> dict[str, Any]:
    """Reads the figures that `vae bench` wrote.

    Raises:
        ValueError: the file holds no such figures.
        OSError: the file cannot be opened.
    """
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        compare(report, report)  # reads everything that a comparison needs
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {shown(reason_of(error), LONGEST_REASON)}"
        raise ValueError(f"{file} holds no figures that vae bench wrote with --out ({reason})") from error
    return report


def compare(before: dict[str, Any], after: dict[str, Any]) -> RenderableType:
    """Two benchmarks side by side; on different machines, compare the ratios of the shares.

    Raises:
        ValueError: they have no part in common, or one is of another format.
    """
    if before.get("format") != after.get("format"):
        raise ValueError(f"formats {before.get('format')} and {after.get('format')}: measure both with one version")
    first, second = ({(model, part): figures for model, part, figures in parts_of(each)} for each in (before, after))
    both = [key for key in first if key in second]
    if not both:
        raise ValueError("the two benchmarks measured nothing in common")
    table = Table(title=f"{before['date']} → {after['date']}")
    table.add_column("model")
    table.add_column("part")
    for column in ("before", "after", "ratio", "ratio of shares"):
        table.add_column(column, justify="right")
    for model, part in both:
        one, other = first[model, part], second[model, part]
        speeds = [figures["images_per_second"] for figures in (one, other)]
        shares = [figures.get("share_of_limit") for figures in (one, other)]
        ratios = [f"{new / old:.2f}" if old and new else "" for old, new in (speeds, shares)]
        table.add_row(model, PART_NAMES[part], *(f"{speed:,.0f}" for speed in speeds), *ratios)
    return Group(table, *(Text(words, style="yellow") for words in _differences(before, after)))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Other differences, which may be the reason."""
    for name in before["machine"].keys() & after["machine"].keys():
        one, other = before["machine"][name], after["machine"][name]
        if one != other:
            yield f"{name}: {one} → {other}"
    if before["overrides"] != after["overrides"]:
        yield f"overrides: {before['overrides']} → {after['overrides']}"
    for model in before["models"].keys() & after["models"].keys():
        for name in ("precision", "batch_size", "compile", "image_size"):
            one, other = before["models"][model][name], after["models"][model][name]
            if one != other:
                yield f"{model} {name}: {one} → {other}"
