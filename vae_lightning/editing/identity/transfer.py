"""Gives faces the identity of another person; they keep their pose and expression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.editing.attributes.amplification import words_on_finer
from vae_lightning.editing.identity.bases import (
    FITTING_IMAGES,
    LatentBasis,
    Person,
    encode_rows,
    fit_basis,
    identities_of,
    person_share,
)
from vae_lightning.latents.finer import with_finer
from vae_lightning.pictures.charts import COLORS, Chart, figure_pixels
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Row

SHOWN_COMPONENTS = (0, 8, 16, 32, 64)  # and all of them
PICTURES_PER_ROW = 8
SHARE_BY_DEFAULT = 4  # one of so many components is the anchor's
SHARE_IMAGES = 5_000  # of the split, for the share of each component between people

Images = UInt8[Tensor, "images channels height width"]


@dataclass(frozen=True)
class _Anchor:
    """A person whose identity is taken."""

    person: Person
    latents: Float[Tensor, "pictures latent"]
    num_coarse: int  # of the latents that identity is in, the first ones

    @property
    def essence(self) -> Float[Tensor, " latent"]:
        """Mean over the pictures: what differs between them averages out."""
        return self.latents.mean(0)

    @property
    def nearest_row(self) -> int:
        """The picture that is most like the essence."""
        distance = (self.latents - self.essence)[:, : self.num_coarse].square().sum(1)
        return int(self.person.rows[int(distance.argmin())])


def choose_subjects(subject: Subject, anchors: Sequence[Person], count: int) -> Int64[np.ndarray, " images"]:
    """Rows of the split, evenly spaced over the pictures of all people but the anchors."""
    identities = identities_of(subject, subject.split)
    rows = np.flatnonzero(~np.isin(identities, [anchor.identity for anchor in anchors]))
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]


def transfer(
    subject: Subject,
    anchors: Sequence[Person],
    rows: Int64[np.ndarray, " images"],
    components: int | None = None,
    basis: str = "pca",
    fitting_images: int = FITTING_IMAGES,
    finer: str = "keep",
) -> Result:
    """The images in `rows` take on the identities of the anchors, who are people of the same split.

    Of the anchor are the first `components`, of the image the rest. None: a quarter of them, as in the system that
    experiment=residual reproduces (64 of 256). Of a hierarchical model they are components of the subject's levels; the
    finer ones are the image's, or as `with_finer` makes them.

    Pictures: `sources_<identity>` of each anchor, `identity_transfer` (a row per image, a column per anchor),
    `components` (the first image and the first anchor, more and more components) and `explained_variance`.

    Raises:
        ValueError: no anchors or no images, no or all components, no such basis, or too few training images for it.
    """
    if not anchors or not len(rows):
        raise ValueError(f"{len(anchors)} anchors and {len(rows)} images: at least 1 of each")
    components = components_to_take(components, subject.num_coarse)
    fitted = fit_basis(subject, basis, fitting_images)
    split, coarse = subject.split, subject.num_coarse

    def encoded(rows: Int64[np.ndarray, " images"]) -> Float[Tensor, "images latent"]:
        return with_finer(encode_rows(subject, split, rows), coarse, finer, subject.seed)

    sources = [_Anchor(person, encoded(person.rows), coarse) for person in anchors]
    latents, shares = encoded(rows), _person_share(subject, fitted)
    pictures = {f"sources_{source.person.identity}": _draw_sources(subject, source) for source in sources}
    pictures["identity_transfer"] = _draw_transfer(subject, fitted, sources, rows, latents, components, finer)
    pictures["components"] = _draw_components(subject, fitted, sources[0], int(rows[0]), latents[:1], finer)
    pictures["explained_variance"] = draw_basis(fitted, components, shares, f"{split} split")
    numbers = {
        "components": components,
        "basis": basis,
        "fitting_images": fitted.num_images,
        "variance_share": float(fitted.variance_share[:components].sum()),
        "anchors": {source.person.identity: _names(subject, source.person.rows) for source in sources},
        "images": _names(subject, rows),
    }
    return Result((), numbers, (), {"components": _component_rows(fitted, shares)}, pictures)


def components_to_take(asked: int | None, latent_dim: int) -> int:
    """
    Raises:
        ValueError: none or all of them, so that nothing or everything would be the anchor's.
    """
    if latent_dim < 2:
        raise ValueError("this model has 1 latent: identity transfer takes some of several, so 2 or more are needed")
    if asked is None:
        return max(1, latent_dim // SHARE_BY_DEFAULT)
    if not 0 < asked < latent_dim:
        raise ValueError(
            f"components={asked}: of {latent_dim} latents, 0 would change nothing and {latent_dim} would make every "
            f"face the anchor's, so 1 to {latent_dim - 1} are allowed"
        )
    return asked


def _person_share(subject: Subject, basis: LatentBasis) -> Float[np.ndarray, " components"]:
    latents = subject.codes(subject.split, SHARE_IMAGES).numpy()
    return person_share(basis, latents, subject.people(subject.split, SHARE_IMAGES))


def _names(subject: Subject, rows: Int64[np.ndarray, " images"]) -> list[str]:
    return subject.data.image_names(subject.split, torch.from_numpy(rows))


def _component_rows(basis: LatentBasis, shares: Float[np.ndarray, " components"]) -> list[Row]:
    columns = zip(basis.variance_share.tolist(), basis.variance_share.cumsum().tolist(), shares.tolist(), strict=True)
    return [
        {"component": number, "variance_share": share, "cumulative_share": total, "between_people_share": between}
        for number, (share, total, between) in enumerate(columns, start=1)
    ]


def _draw_sources(subject: Subject, source: _Anchor) -> UInt8[np.ndarray, "_height _width 3"]:
    pixels = subject.pixels(subject.split, source.person.rows).cpu()
    columns = min(PICTURES_PER_ROW, len(pixels))
    essence = subject.decode_uint8(source.essence[None]).cpu()
    parts = [essence, *pixels.split(columns)]
    firsts = range(1, len(pixels) + 1, columns)
    labels = [f"{first}–{min(first + columns - 1, len(pixels))}" for first in firsts]
    return labelled_grid(
        torch.stack([torch.cat([part, _blank(part, columns - len(part))]) for part in parts]),
        ["essence,\ndecoded", *(f"pictures\n{label}" for label in labels)],
        title=f"{source.person.label}: {len(pixels)} pictures of the {subject.split} split and their mean latents",
    )


def _blank(like: Images, count: int) -> UInt8[Tensor, "blank channels height width"]:
    return like.new_full((count, *like.shape[1:]), 255)


def _draw_transfer(
    subject: Subject,
    basis: LatentBasis,
    sources: Sequence[_Anchor],
    rows: Int64[np.ndarray, " images"],
    latents: Float[Tensor, "images latent"],
    components: int,
    finer: str,
) -> UInt8[np.ndarray, "_height _width 3"]:
    essences = torch.stack([source.essence for source in sources])
    moved = [basis.transfer(latents, essence[None], components) for essence in essences]
    originals = subject.pixels(subject.split, rows).cpu()
    shown = [originals, *(subject.decode_uint8(part).cpu() for part in (latents, *moved))]
    nearest = np.array([source.nearest_row for source in sources])
    blank = _blank(originals, 2)
    header = [
        torch.cat([blank, subject.pixels(subject.split, nearest).cpu()]),
        torch.cat([blank, subject.decode_uint8(essences).cpu()]),
    ]
    return labelled_grid(
        torch.cat([torch.stack(header), torch.stack(shown, dim=1)]),
        ["one picture\nof the anchor", "anchor's essence,\ndecoded", *_names(subject, rows)],
        ["original", _before(finer), *(source.person.label for source in sources)],
        f"Identity transfer: first {components} of {len(basis.readers)} components by {basis.name} from the anchor, "
        f"the rest from the image{words_on_finer(subject, finer)}",
    )


def _before(finer: str) -> str:
    """What latents show that nothing was transferred to."""
    return "reconstruction" if finer == "keep" else "before"


def _draw_components(
    subject: Subject, basis: LatentBasis, source: _Anchor, row: int, latents: Float[Tensor, "1 latent"], finer: str
) -> UInt8[np.ndarray, "_height _width 3"]:
    all_of_them = len(basis.readers)
    counts = [*(count for count in SHOWN_COMPONENTS if count < all_of_them), all_of_them]
    essence = source.essence[None]
    moved = torch.cat([basis.transfer(latents, essence, count) for count in counts])
    original = subject.pixels(subject.split, np.array([row])).cpu()
    return labelled_grid(
        torch.cat([original, subject.decode_uint8(moved).cpu()])[None],
        [f"{_names(subject, np.array([row]))[0]}\nbecomes\n{source.person.label}"],
        ["original", *(f"K = {count}" for count in counts[:-1]), f"all {all_of_them}"],
        f"First K components by {basis.name} from the anchor's essence: K = 0 is "
        f"{'the reconstruction' if finer == 'keep' else 'nothing'}{words_on_finer(subject, finer)}",
    )


def draw_basis(
    basis: LatentBasis, components: int, shares: Float[np.ndarray, " components"] | None, where: str
) -> Chart:
    """Variance per component, its sum, and how much of each is between people; a line at the components in use."""
    panels: Sequence[tuple[str, Float[np.ndarray, " components"] | None]] = (
        ("share of the variance", basis.variance_share),
        (
            f"sum: {basis.variance_share[:components].sum():.1%} in the first {components}",
            basis.variance_share.cumsum(),
        ),
        (f"between people (intra-class correlation, {where})", shares),
    )
    drawn = [(title, values) for title, values in panels if values is not None]
    figure = Figure(figsize=(4.2 * len(drawn), 3.4), dpi=100, layout="constrained", facecolor="white")
    for axis, color, (title, values) in zip(figure.subplots(1, len(drawn)), COLORS, drawn, strict=False):
        axis.bar(np.arange(1, len(values) + 1), values, width=1.0, color=color)
        axis.axvline(components + 0.5, color="black", linestyle="--", linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="component", ylim=(0, None))
        axis.grid(axis="y", alpha=0.3)
    figure.suptitle(f"Components by {basis.name}, of {basis.num_images:,} training images; dashed: {components} taken")
    return figure_pixels(figure)
