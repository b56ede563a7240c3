"""Faces that take on who another person is and keep how they look into the camera."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from vae_lightning.charts import COLORS, Chart, figure_pixels
from vae_lightning.data.rendering.factors import IDENTITY_FACTORS
from vae_lightning.editing.identity_bases import (
    BASES,
    FITTING_IMAGES,
    MIN_PICTURES,
    LatentBasis,
    Person,
    check_components,
    draw_basis,
    encode_rows,
    fit_basis,
    identities_of,
    people_with,
    person_share,
)
from vae_lightning.editing.outcome import Cell, EditError, Outcome
from vae_lightning.evaluation.subject import Subject
from vae_lightning.grids import labelled_grid

SHOWN_COMPONENTS = (0, 8, 16, 32, 64)  # and all of them
PICTURES_PER_ROW = 8
SHARE_IMAGES = 5_000  # of the split that tells how much of each component is between people
POSE_AND_EXPRESSION = ("head_yaw", "head_tilt", "smile", "mouth_open", "eye_openness")

Images = UInt8[Tensor, "images channels height width"]


@dataclass(frozen=True)
class _Anchor:
    """A person whose identity is taken."""

    person: Person
    latents: Float[Tensor, "pictures latent"]

    @property
    def essence(self) -> Float[Tensor, " latent"]:
        """Mean over the pictures: what differs between them averages out."""
        return self.latents.mean(0)

    @property
    def nearest_row(self) -> int:
        """The picture that is most like the essence."""
        return int(self.person.rows[int((self.latents - self.essence).square().sum(1).argmin())])


def choose_subjects(subject: Subject, anchors: Sequence[Person], count: int) -> Int64[np.ndarray, " images"]:
    """Rows of the split, evenly spaced over the pictures of everybody else."""
    identities = identities_of(subject, subject.split)
    rows = np.flatnonzero(~np.isin(identities, [anchor.identity for anchor in anchors]))
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]


def transfer(
    subject: Subject,
    anchors: Sequence[Person],
    rows: Int64[np.ndarray, " images"],
    components: int = 64,
    basis: str = "pca",
    fitting_images: int = FITTING_IMAGES,
) -> Outcome:
    """The images in `rows` take on the identities of the anchors, who are people of the same split.

    Pictures: `sources_<identity>` of each anchor, `identity_transfer` (a row per image, a column per anchor),
    `components` (the first image and the first anchor, more and more components) and `explained_variance`.

    Raises:
        EditError: no anchors or no images, too many components, no such basis, or too few training images for it.
    """
    if not anchors or not len(rows):
        raise EditError(f"{len(anchors)} anchors and {len(rows)} images: at least 1 of each")
    check_components(components, subject.model.latent_dim)
    fitted = fit_basis(subject, basis, fitting_images)
    split = subject.split
    sources = [_Anchor(person, encode_rows(subject, split, person.rows)) for person in anchors]
    latents = encode_rows(subject, split, rows)
    shares = _person_share(subject, fitted)
    how = f"first {components} of {len(fitted.readers)} components by {basis}"
    pictures = {f"sources_{source.person.identity}": _draw_sources(subject, source) for source in sources}
    pictures["identity_transfer"] = _draw_transfer(subject, fitted, sources, rows, latents, components, how)
    pictures["components"] = _draw_components(subject, fitted, sources[0], int(rows[0]), latents[:1])
    pictures["explained_variance"] = draw_basis(fitted, components, shares, f"{split} split")
    numbers = {
        "components": components,
        "basis": basis,
        "fitting_images": fitted.num_images,
        "variance_share": float(fitted.variance_share[:components].sum()),
        "anchors": {source.person.identity: _names(subject, source.person.rows) for source in sources},
        "images": _names(subject, rows),
    }
    return Outcome(pictures, {"components": _component_rows(fitted, shares)}, numbers)


def _person_share(subject: Subject, basis: LatentBasis) -> Float[np.ndarray, " components"]:
    latents = subject.posterior(subject.split, SHARE_IMAGES).mean.numpy()
    return person_share(basis, latents, subject.people(subject.split, SHARE_IMAGES))


def _names(subject: Subject, rows: Int64[np.ndarray, " images"]) -> list[str]:
    return subject.data.image_names(subject.split, torch.from_numpy(rows))


def _component_rows(basis: LatentBasis, shares: Float[np.ndarray, " components"]) -> list[dict[str, Cell]]:
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
    how: str,
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
        ["original", "reconstruction", *(source.person.label for source in sources)],
        f"Identity transfer: {how} from the anchor, the rest from the image",
    )


def _draw_components(
    subject: Subject, basis: LatentBasis, source: _Anchor, row: int, latents: Float[Tensor, "1 latent"]
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
        f"First K components by {basis.name} from the anchor's essence: K = 0 is the reconstruction",
    )


Edit = Callable[[Float[Tensor, "pairs latent"], Float[Tensor, "pairs latent"]], Float[Tensor, "pairs latent"]]
Readings = Float[np.ndarray, "pairs factors"]


def transfer_scores(
    subject: Subject,
    reader: nn.Module,
    pairs: int = 300,
    components: Sequence[int] = (4, 8, 16, 32, 64),
    weights: Sequence[float] = (0.25, 0.5, 0.75),
    min_pictures: int = MIN_PICTURES,
    fitting_images: int = FITTING_IMAGES,
) -> list[dict[str, Cell]]:
    """What transfer by each basis, and plain averaging with the essence, move on the way from an image to an anchor.

    `reader` reads factors of rendered faces. Its readings of the decoded latents and of the decoded essence are the
    two ends: a share of 0 is the image's, 1 the essence's. `change` is the mean absolute change in the reader's unit,
    standard deviations. `pairs` images of `subject.split`, each with a random anchor, another person of that split.

    Raises:
        EditError: a network that does not read these factors, or as `people_with` and `fit_basis`.
    """
    groups = _factor_groups(reader)
    for count in components:
        check_components(count, subject.model.latent_dim)
    latents, essences = _pairs(subject, pairs, people_with(subject, subject.split, min_pictures))
    edits: dict[tuple[str, float], Edit] = {("averaging", weight): _averaging(weight) for weight in weights}
    for basis in (fit_basis(subject, name, fitting_images) for name in BASES):
        edits |= {(f"transfer by {basis.name}", float(count)): _transferring(basis, count) for count in components}
    before, goal = (_read(subject, reader, part) for part in (latents, essences))
    rows: list[dict[str, Cell]] = []
    for (method, amount), edit in edits.items():
        after = _read(subject, reader, edit(latents, essences))
        row: dict[str, Cell] = {"method": method, "amount": amount}
        for group, columns in groups.items():
            change, way = (after - before)[:, columns], (goal - before)[:, columns]
            row[f"{group} share"] = float((change * way).sum() / (way**2).sum())
            row[f"{group} change"] = float(np.abs(change).mean())
        rows.append(row)
    return rows


def _averaging(weight: float) -> Edit:
    return lambda latents, essences: torch.lerp(latents, essences, weight)


def _transferring(basis: LatentBasis, components: int) -> Edit:
    return lambda latents, essences: basis.transfer(latents, essences, components)


def _factor_groups(reader: nn.Module) -> Mapping[str, list[int]]:
    names = cast(tuple[str, ...], reader.names)
    if cast(str, reader.target) != "factors":
        raise EditError(f"this network reads {reader.target}: scores of transfer need one that reads factors")
    groups: dict[str, list[int]] = {"identity": [], "pose and expression": [], "rest": []}
    for column, name in enumerate(names):
        is_pose = "pose and expression" if name in POSE_AND_EXPRESSION else "rest"
        groups["identity" if name in IDENTITY_FACTORS else is_pose].append(column)
    empty = [group for group, columns in groups.items() if not columns]
    if empty:
        raise EditError(f"this network reads no factor of {' or '.join(empty)}, only {', '.join(names)}")
    return groups


def _pairs(
    subject: Subject, count: int, people: Sequence[Person]
) -> tuple[Float[Tensor, "pairs latent"], Float[Tensor, "pairs latent"]]:
    """Latents of random images, and for each the essence of somebody else."""
    random = np.random.default_rng(subject.seed_of("pairs of identity transfer"))
    identities = identities_of(subject, subject.split)
    if (identities == people[0].identity).all():
        raise EditError(f"everybody in the {subject.split} split is {people[0].label}: nobody else to become them")
    essences = {person.identity: encode_rows(subject, subject.split, person.rows).mean(0) for person in people}
    anchors = random.choice(list(essences), count)
    rows = np.array([random.choice(np.flatnonzero(identities != anchor)) for anchor in anchors])
    return encode_rows(subject, subject.split, rows), torch.stack([essences[anchor] for anchor in anchors.tolist()])


@torch.inference_mode()
def _read(subject: Subject, reader: nn.Module, latents: Float[Tensor, "pairs latent"]) -> Readings:
    parts = [reader(subject.decode(part)) for part in latents.split(subject.batch_size)]
    return torch.cat(parts).cpu().double().numpy()


def draw_transfer_scores(rows: Sequence[Mapping[str, Cell]]) -> Chart:
    """Identity that has moved (across) against what should have stayed, a line per method from the image itself."""
    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained", facecolor="white")
    panels = {"share": "share moved to the essence's", "change": "mean change, standard deviations"}
    for axis, (measure, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for line, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            chosen = [row for row in rows if row["method"] == method]
            across = [cast(float, row["identity share"]) for row in chosen]
            up = [cast(float, row[f"pose and expression {measure}"]) for row in chosen]
            axis.plot([0.0, *across], [0.0, *up], marker="o", color=COLORS[line], label=str(method))
            for row, step, *place in zip(chosen, np.diff(across, prepend=-1.0), across, up, strict=True):
                if abs(step) > 0.005:  # where many lie on one place, the first has the label
                    below = (4, 5 - 10 * line)
                    axis.annotate(
                        f"{row['amount']:g}",
                        place,
                        xytext=below,
                        textcoords="offset points",
                        color=COLORS[line],
                        fontsize=8,
                    )
        axis.set_title("pose and expression", fontsize=10)
        axis.set(xlabel="identity: share moved to the essence's", ylabel=label)
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.suptitle("Identity transfer, lower is better; at the points: components K, or the weight of the essence")
    return figure_pixels(figure)
