"""Pictures with one row per run: what the runs make of the same faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.report.exhibits import NUM_STEPS, Exhibit, Exhibition, Images, TraversalRow, fit_to
from vae_lightning.report.sweep import Sweep
from vae_lightning.report.traversals import VALUES

Pixels = UInt8[np.ndarray, "h w 3"]
Row = tuple[str, Images]
OF_AUTOENCODERS = " The values of plain autoencoders are standard deviations over held-out faces, around the mean."


@dataclass(frozen=True)
class Picture:
    """One file of the report, with what it shows in words."""

    name: str
    pixels: Pixels
    title: str
    caption: str
    alt: str
    is_aside: bool = False  # folded away on the page


def draw_faces(sweep: Sweep, exhibition: Exhibition) -> list[Picture]:
    """All pictures of faces that can be drawn; those without any row are left out."""
    exhibits = exhibition.exhibits
    numbers = range(len(exhibition.latents))
    pictures = [
        _of_faces(
            sweep,
            exhibits,
            "reconstructions",
            "The same held-out test faces in every run, decoded posterior means. The row of originals is what went in.",
            "Test faces in the first row, below them their reconstructions by {runs}.",
        ),
        *(_traversal(sweep, exhibition, number, by_index) for by_index in (False, True) for number in numbers),
        _of_faces(
            sweep,
            exhibits,
            "interpolation",
            "The same two held-out test faces, and the straight line between their posterior means, decoded.",
            f"One test face turning into another in {NUM_STEPS} steps, a row for each of {{runs}}.",
            [f"{step / (NUM_STEPS - 1):.3g}" for step in range(NUM_STEPS)],
        ),
        _samples(sweep, exhibits),
    ]
    return [picture for picture in pictures if picture is not None]


def grid(rows: list[Row], column_labels: list[str]) -> Pixels:
    """Rows of any sizes and lengths as one grid, at the size of the largest images."""
    size = max(images.shape[-1] for _, images in rows)
    num_columns = max(len(images) for _, images in rows)
    images = torch.stack([fit_to(images, size, num_columns) for _, images in rows])
    return labelled_grid(images, [label for label, _ in rows], column_labels)


def _label(sweep: Sweep, exhibit: Exhibit) -> str:
    """The run's overrides, and its status where it is not finished, because it cannot be judged like the others."""
    state = "" if exhibit.job.status == "done" else f"\n({exhibit.job.status})"
    return sweep.label(exhibit.job) + state


def _with_originals(sweep: Sweep, exhibits: list[Exhibit], kind: str) -> list[Row]:
    """One row per run; above each group that saw the same data, its faces at the largest size they come in."""
    rows: list[Row] = []
    for data in dict.fromkeys(exhibit.data for exhibit in exhibits):
        group = [exhibit for exhibit in exhibits if exhibit.data == data and exhibit.originals is not None]
        if not group:
            continue
        originals = [exhibit.originals for exhibit in group if exhibit.originals is not None]
        faces = max(originals, key=lambda images: images.shape[1] * images.shape[-1] ** 2)
        if kind == "interpolation":  # the two ends, white between
            white = torch.full_like(faces[:1], 255).expand(NUM_STEPS - 2, -1, -1, -1)
            faces = torch.cat([faces[:1], white, faces[-1:]])
        rows.append(("originals", faces))
        rows += [(_label(sweep, exhibit), getattr(exhibit, kind)) for exhibit in group]
    return rows


def _of_faces(
    sweep: Sweep, exhibits: list[Exhibit], kind: str, caption: str, alt: str, columns: Sequence[str] = ()
) -> Picture | None:
    rows = _with_originals(sweep, exhibits, kind)
    if not rows:
        return None
    caption += _several_data(rows)
    return Picture(f"{kind}.png", grid(rows, list(columns)), kind.capitalize(), caption, alt.format(runs=_runs(rows)))


def _several_data(rows: list[Row]) -> str:
    several = sum(label == "originals" for label, _ in rows) > 1
    return (
        " The runs did not all use the same data or crop: each group of rows has its own originals." if several else ""
    )


def _runs(rows: list[Row]) -> str:
    count = sum(label != "originals" for label, _ in rows)
    return "1 run" if count == 1 else f"{count} runs"


def _samples(sweep: Sweep, exhibits: list[Exhibit]) -> Picture | None:
    rows = [(_label(sweep, shown), shown.samples) for shown in exhibits if shown.samples is not None]
    if not rows:
        return None
    without = [sweep.label(shown.job, ", ") for shown in exhibits if not shown.has_prior]
    left_out = f" Left out, since a plain autoencoder has no prior to sample from: {'; '.join(without)}."
    return Picture(
        "samples.png",
        grid(rows, []),
        "Samples",
        "Decoded samples of the prior at temperature 1. Runs with as many latents get the same noise, column by column."
        + (left_out if without else ""),
        f"Faces sampled from the prior of {_runs(rows)}, one row each.",
    )


def _traversal(sweep: Sweep, exhibition: Exhibition, number: int, by_index: bool) -> Picture | None:
    rows = []
    for exhibit in exhibition.exhibits:
        row = _moved_latent(exhibit, number, by_index)
        if row is not None:
            is_reference = exhibit.job is exhibition.reference
            rows.append((_traversal_label(_label(sweep, exhibit), row, by_index, is_reference), row.images))
    if not rows:
        return None
    latent = exhibition.latents[number]
    return Picture(
        f"traversal_{number + 1}_{'by_index' if by_index else 'matched'}.png",
        grid(rows, [f"{value:+g}" if value else "0" for value in VALUES]),
        f"Traversal {number + 1}: {latent}" + (" by index" if by_index else ""),
        _caption_by_index(exhibition, latent, len(rows)) if by_index else _caption_matched(sweep, exhibition, number),
        f"One face with one latent moved from {VALUES[0]:g} to {VALUES[-1]:g}, a row for each of {_runs(rows)}"
        + (f", always {latent}." if by_index else ", latents matched by their effect."),
        is_aside=by_index,
    )


def _moved_latent(exhibit: Exhibit, number: int, by_index: bool) -> TraversalRow | None:
    if not exhibit.matched:  # its data or its checkpoint is gone
        return None
    return exhibit.by_index[number] if by_index else exhibit.matched[number]


def _caption_matched(sweep: Sweep, exhibition: Exhibition, number: int) -> str:
    assert exhibition.reference is not None
    name = sweep.label(exhibition.reference, ", ")
    unit = "nats of KL" if exhibition.reference.has_prior else "standard deviation"
    latent = f"{exhibition.latents[number]} of {name} ({exhibition.activities[number]:.2f} {unit})"
    return (
        f"{latent}, and in each other run the latent whose effect on this face is most similar. cos is the "
        "similarity, 0 to 1; reversed: it works the other way round there and is shown mirrored."
        + ("" if all(exhibit.has_prior for exhibit in exhibition.exhibits) else OF_AUTOENCODERS)
    )


def _caption_by_index(exhibition: Exhibition, latent: str, num_rows: int) -> str:
    missing = sum(bool(exhibit.matched) for exhibit in exhibition.exhibits) - num_rows
    fewer = f" Runs without such a latent left out: {missing}." if missing else ""
    return f"{latent} in every run. Training permutes latents: the rows need not show the same thing.{fewer}"


def _traversal_label(label: str, row: TraversalRow, by_index: bool, is_reference: bool) -> str:
    if by_index:
        return label
    if is_reference:
        return f"{label}\n{row.name}, reference"
    reversed_too = " reversed" if row.match.sign < 0 else ""
    return f"{label}\n{row.name}{reversed_too}, cos {row.match.similarity:.2f}"
