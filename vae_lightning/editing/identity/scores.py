"""Scores of identity transfer: what changes and what stays, by an attribute classifier or factor regressor."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.data.rendering.factors import IDENTITY_FACTORS
from vae_lightning.editing.identity.bases import (
    BASES,
    FITTING_IMAGES,
    MIN_PICTURES,
    LatentBasis,
    Person,
    check_components,
    encode_rows,
    fit_basis,
    identities_of,
    people_with,
)
from vae_lightning.latents.finer import with_finer
from vae_lightning.pictures.charts import COLORS, Chart, figure_pixels
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.resampling import image_weights, percentile_interval
from vae_lightning.scores.result import Result, Row

POSE_AND_EXPRESSION = ("head_yaw", "head_tilt", "smile", "mouth_open", "eye_openness")  # of rendered faces
EXPRESSION = ("Smiling", "Mouth_Slightly_Open", "High_Cheekbones", "Narrow_Eyes")  # of CelebA's attributes
# those of CelebA's attributes that most pictures of one person share
OF_PERSONS = (
    *("Male", "Young", "Attractive", "Bald", "Receding_Hairline", "Bags_Under_Eyes", "Pale_Skin"),
    *("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair"),
    *("Arched_Eyebrows", "Bushy_Eyebrows", "Big_Lips", "Big_Nose", "Pointy_Nose"),
    *("Chubby", "Double_Chin", "Oval_Face"),
)
COMPONENTS = (4, 8, 16, 32, 64)
WEIGHTS = (0.25, 0.5, 0.75)  # of the essence, in plain averaging
RESAMPLES = 200
EQUAL_SHARE = 0.5  # of the way to the anchor's identity, at which methods are compared

Latents = Float[Tensor, "pairs latent"]
Readings = Float[np.ndarray, "pairs outputs"]
Edit = Callable[[Latents, Latents], Latents]


def score_transfer(
    subject: Subject, reader: Recognizer, pairs: int, min_pictures: int, fitting_images: int, finer: str = "keep"
) -> Result:
    """Tables `transfer_scores` and `at_equal_identity`, and a picture.

    Raises:
        ValueError: as `transfer_scores`.
    """
    components = [count for count in COMPONENTS if count < subject.num_coarse] or [subject.num_coarse // 2]
    rows = transfer_scores(subject, reader, pairs, components, WEIGHTS, min_pictures, fitting_images, finer)
    tables = {"transfer_scores": rows, "at_equal_identity": at_equal_identity(rows)}
    return Result(tables=tables, pictures={"transfer_scores": draw_transfer_scores(rows)})


def transfer_scores(
    subject: Subject,
    reader: Recognizer,
    pairs: int = 300,
    components: Sequence[int] = COMPONENTS,
    weights: Sequence[float] = WEIGHTS,
    min_pictures: int = MIN_PICTURES,
    fitting_images: int = FITTING_IMAGES,
    finer: str = "keep",
) -> list[Row]:
    """What transfer by each basis, and plain averaging with the essence, move on the way from an image to an anchor.

    The two ends are what the network predicts for the decoded latents and for the decoded essence: a share of 0 is the
    image's, 1 the essence's. `change` is the mean absolute change in standard deviations. `pairs` images of
    `subject.split`, each with a random anchor, another person of that split; 95 % intervals from resampled anchors.
    Of a hierarchical model the essence has the subject's levels; finer ones are the image's, or as `with_finer` makes
    them.

    Raises:
        ValueError: the network predicts nothing of identity or of expression, or as `people_with` and `fit_basis`.
    """
    groups = reading_groups(reader)
    for count in components:
        check_components(count, subject.num_coarse)
    latents, essences, anchors = _pairs(subject, pairs, people_with(subject, subject.split, min_pictures), finer)
    edits: dict[tuple[str, float], Edit] = {("averaging", weight): _averaging(weight) for weight in weights}
    for basis in (fit_basis(subject, name, fitting_images) for name in BASES):
        edits |= {(f"transfer by {basis.name}", float(count)): _transferring(basis, count) for count in components}
    before, goal = (_read(subject, reader, part) for part in (latents, essences))
    # factors are in standard deviations of real images; the unit of log-odds is that of the reconstructions
    unit = before.std(0) if reader.target == "attributes" else np.ones(before.shape[1])
    unit = np.where(unit > 0, unit, np.inf)
    people = image_weights(anchors, RESAMPLES, subject.seed_of("resampled anchors"))
    rows: list[Row] = []
    for (method, amount), edit in edits.items():
        after = _read(subject, reader, edit(latents, essences))
        row: Row = {"method": method, "amount": amount}
        for group, columns in groups.items():
            change, way = ((each - before)[:, columns] / unit[columns] for each in (after, goal))
            row |= _score(group, change, way, people)
        rows.append(row)
    return rows


def _score(
    group: str,
    change: Readings,
    way: Readings,
    people: Float[np.ndarray, "weightings pairs"],
) -> Row:
    shares = (people @ (change * way).sum(1)) / (people @ (way**2).sum(1))
    low, high = percentile_interval(shares[1:])
    return {
        f"{group} share": float(shares[0]),
        f"{group} share low": low,
        f"{group} share high": high,
        f"{group} change": float(np.abs(change).mean()),
    }


def at_equal_identity(rows: Sequence[Row], share: float = EQUAL_SHARE) -> list[Row]:
    """What else each method has moved when it has moved this share of the identity, linearly between its amounts.

    None where a method does not get that far. The first row has moved least of pose and expression.
    """
    found: list[Row] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: cast(float, row["amount"]))
        moved = np.maximum.accumulate([0.0, *(cast(float, row["identity share"]) for row in own)])
        cells: Row = {"method": method, "identity share": share}
        for name in own[0]:
            if name in ("method", "amount") or name.startswith("identity") or name.endswith((" low", " high")):
                continue
            values = [0.0, *(cast(float, row[name]) for row in own)]
            cells[name] = float(np.interp(share, moved, values)) if moved[-1] >= share else None
        found.append(cells)
    measure = "pose and expression share"
    return sorted(found, key=lambda cells: np.inf if cells[measure] is None else cast(float, cells[measure]))


def _averaging(weight: float) -> Edit:
    return lambda latents, essences: torch.lerp(latents, essences, weight)


def _transferring(basis: LatentBasis, components: int) -> Edit:
    return lambda latents, essences: basis.transfer(latents, essences, components)


def reading_groups(reader: Recognizer) -> dict[str, list[int]]:
    """The outputs for identity, for pose and expression, and for the rest: hats, light, backgrounds.

    Raises:
        ValueError: one of the groups is empty.
    """
    names = reader.names
    reads_factors = reader.target == "factors"
    of_people = IDENTITY_FACTORS if reads_factors else OF_PERSONS
    of_pictures = POSE_AND_EXPRESSION if reads_factors else EXPRESSION
    groups: dict[str, list[int]] = {"identity": [], "pose and expression": [], "rest": []}
    for column, name in enumerate(names):
        group = "identity" if name in of_people else "pose and expression" if name in of_pictures else "rest"
        groups[group].append(column)
    empty = [group for group, columns in groups.items() if not columns]
    if empty:
        raise ValueError(f"this network predicts nothing of {' or '.join(empty)}, only {', '.join(names)}")
    return groups


def _pairs(
    subject: Subject, count: int, people: Sequence[Person], finer: str
) -> tuple[Latents, Latents, Int64[np.ndarray, " pairs"]]:
    """Latents of random images, for each the essence of another person (finer latents are the image's), and that
    person's number.
    """
    random = np.random.default_rng(subject.seed_of("pairs of identity transfer"))
    identities = identities_of(subject, subject.split)
    if (identities == people[0].identity).all():
        raise ValueError(
            f"all images of the {subject.split} split show {people[0].label}: transfer needs images of other people"
        )
    essences = {person.identity: encode_rows(subject, subject.split, person.rows).mean(0) for person in people}
    anchors = random.choice(list(essences), count)
    rows = np.array([random.choice(np.flatnonzero(identities != anchor)) for anchor in anchors])
    goals = torch.stack([essences[anchor] for anchor in anchors.tolist()])[:, : subject.num_coarse]
    latents = with_finer(encode_rows(subject, subject.split, rows), subject.num_coarse, finer, subject.seed)
    return latents, torch.cat([goals, latents[:, subject.num_coarse :]], dim=1), anchors


@torch.inference_mode()
def _read(subject: Subject, reader: Recognizer, latents: Float[Tensor, "pairs latent"]) -> Readings:
    parts = [reader(subject.decode(part)) for part in latents.split(subject.batch_size)]
    return torch.cat(parts).cpu().double().numpy()


def draw_transfer_scores(rows: Sequence[Row]) -> Chart:
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
