"""Compares all ways to edit at the same change of the target."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vae_lightning.editing.attributes.amplification import words_on_finer
from vae_lightning.editing.attributes.edit import Method
from vae_lightning.editing.identity.bases import encode_rows
from vae_lightning.editing.judging.judge import Judge
from vae_lightning.editing.judging.pictures import draw_leaks, draw_trade_off
from vae_lightning.editing.judging.scores import DEFINITIONS, EditScore, interval_cells, look, score_looks
from vae_lightning.latents.finer import with_finer
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Row
from vae_lightning.system.names import not_allowed

FEWEST_IMAGES = 20
SHOWN = 6
Scores = Mapping[str, Sequence[EditScore]]  # of each method, by strength
EQUAL_CHANGE = 1.0  # standard deviations of the judge's reading
# scores of doing nothing: where every method's line starts
NOTHING = {
    "strength": 0.0,
    "success": 0.0,
    "leakage": 0.0,
    "systematic_leakage": 0.0,
    "identity_distance": 0.0,
    "normal_prior_nats": 0.0,
    "gaussian_prior_nats": 0.0,
    "sharpness": 1.0,
    "reencoding": 1.0,
}


def compare_methods(
    judge: Judge,
    subject: Subject,
    target: str,
    wanted: bool,
    methods: Mapping[str, Method],
    strengths: Sequence[float],
    max_images: int = 300,
    finer: str = "keep",
) -> Result:
    """Scores of every method at every strength, and at the same change of the target.

    Args:
        judge: has not guided any of the methods.
        subject: the one that the judge was fitted to.
        target: an attribute or a factor, as the judge calls it.
        wanted: whether it is added to images without it, or else removed from those with it.
        methods: latents and a strength -> edited latents; strength 0 leaves them as they are. On the host.
        strengths: all of one sign.
        max_images: of the split, evenly spaced.
        finer: what becomes, before the edits, of a hierarchical model's levels finer than the subject's: `with_finer`.

    Raises:
        ValueError: a strength or method is not allowed, the judge does not predict the target, or images are too few.
    """
    judge.column(target)
    ordered = _checked(methods, strengths)
    places = choose_images(subject, judge.target, target, wanted, max_images)
    means = encode_rows(subject, subject.split, subject.rows(subject.split)[places])
    start = with_finer(means, subject.num_coarse, finer, subject.seed)
    people = subject.people(subject.split)[places]
    scores, edited = _score_all(judge, target, wanted, methods, ordered, start, people)
    asked = f"{target} to be {'added' if wanted else 'removed'}"
    nearest, equal = nearest_to_equal_change(scores), at_equal_change(scores)
    judged = judge.words_on(target)
    return Result(
        pictures={
            "trade_off": draw_trade_off(scores, asked, judged, len(places)),
            "leaks": draw_leaks(nearest, asked),
            "faces": _faces(subject, places, start, edited, nearest, asked + words_on_finer(subject, finer)),
        },
        tables={
            "scores": [score.row() for each in scores.values() for score in each],
            "at_equal_change": equal,
            "judge": judge.reliability,
        },
        protocol=_numbers(judge, subject, target, wanted, people),
        remarks=[f"{judged}.", *_which_levels(subject, finer), *_why_dashes(equal)],
    )


def _which_levels(subject: Subject, finer: str) -> list[str]:
    """What the edits of a hierarchical model move; nothing of a flat one."""
    if subject.model.is_flat:
        return []
    return [f"Edits move latents{subject.which_latents}{words_on_finer(subject, finer)}."]


def _why_dashes(rows: Sequence[Row]) -> list[str]:
    """Why methods have no scores in the table at equal change; nothing where all have."""
    short = [f"{row['method']} ({row['largest_change']:+.2f} sd)" for row in rows if row["reached"] == "not reached"]
    if not short:
        return []
    return [
        f"–: at no strength is the judge's reading changed by {EQUAL_CHANGE:g} sd, where methods are compared, with "
        f"{', '.join(short)}. Larger strengths may get there; so may a judge that tells the target better."
    ]


def _score_all(
    judge: Judge,
    target: str,
    wanted: bool,
    methods: Mapping[str, Method],
    strengths: Sequence[float],
    start: Float[Tensor, "images latent"],
    people: Int64[np.ndarray, " images"],
) -> tuple[dict[str, list[EditScore]], dict[tuple[str, float], Float[Tensor, "_shown latent"]]]:
    """The scores, and the edited latents of the images in the picture."""
    subject = judge.subject
    before = look(judge, subject, start, "the latents of the reconstructions")
    scores: dict[str, list[EditScore]] = {name: [] for name in methods}
    edited = {}
    steps = [(name, strength) for name in methods for strength in strengths]
    for index in subject.track(range(len(steps)), f"Scoring edits of {target}", len(steps)):
        name, strength = steps[index]
        moved = methods[name](start.clone(), strength).detach().cpu()
        after = look(judge, subject, moved, f"{name} at strength {strength:g}")
        scores[name].append(score_looks(judge, target, wanted, before, after, name, strength, people))
        edited[name, strength] = moved[_places_in_picture(len(people))]
    return scores, edited


def _checked(methods: Mapping[str, Method], strengths: Sequence[float]) -> list[float]:
    """Strengths from the weakest."""
    if not methods:
        raise ValueError("no methods: name at least one to score")
    signs = {np.sign(strength) for strength in strengths if strength != 0}
    if len(signs) != 1 or not np.isfinite(strengths).all() or len(set(strengths)) < len(strengths):
        given = ", ".join(f"{strength:g}" for strength in strengths) or "none"
        raise ValueError(f"strengths={given}: needed are different numbers of one sign, 0 not counted")
    return sorted(strengths, key=abs)


def choose_images(
    subject: Subject, kind: str, target: str, wanted: bool, max_images: int
) -> Int64[np.ndarray, " images"]:
    """Rows of the subject's split that the edit is for, evenly spaced: by true labels, not by predictions.

    Of factors the half with the lower (to add) or higher values (to remove), never those that are at the end already.

    `kind`: "attributes" or "factors".

    Raises:
        ValueError: the data do not have the target, or fewer than 20 images are left.
    """
    is_candidate = (_by_attribute if kind == "attributes" else _by_factor)(subject, target, wanted)
    candidates = np.flatnonzero(is_candidate)
    kept = min(max_images, len(candidates))
    if kept < FEWEST_IMAGES:
        lack = "without" if wanted else "with"
        raise ValueError(
            f"{target}: {kept} images of the {subject.split} split {lack} it, of which max_images={max_images} are "
            f"taken; scores need {FEWEST_IMAGES} at least: choose another target, or data with more images"
        )
    return candidates[np.linspace(0, len(candidates) - 1, kept).round().astype(np.int64)]


def _by_attribute(subject: Subject, target: str, wanted: bool) -> Bool[np.ndarray, " images"]:
    attributes, names = subject.attributes(subject.split), subject.data.attribute_names
    if attributes is None:
        raise ValueError(f"{target}: these data have no attributes, so it is not known which images lack it")
    if target not in names:
        raise ValueError(not_allowed("target", target, names))
    return attributes[:, names.index(target)] != wanted


def _by_factor(subject: Subject, target: str, wanted: bool) -> Bool[np.ndarray, " images"]:
    known = subject.factors(subject.split)
    if known is None:
        raise ValueError(f"{target}: these data have no known factors; rendered faces do: data=faces")
    names, factors = known
    if target not in names:
        raise ValueError(not_allowed("target", target, names))
    values = factors[:, names.index(target)] * (1 if wanted else -1)
    return (values <= np.median(values)) & (values < values.max())  # a factor can be 0 on most images, as glasses


def _places_in_picture(count: int) -> Int64[np.ndarray, " shown"]:
    return np.linspace(0, count - 1, min(SHOWN, count)).round().astype(np.int64)


def _faces(
    subject: Subject,
    places: Int64[np.ndarray, " images"],
    start: Float[Tensor, "images latent"],
    edited: Mapping[tuple[str, float], Float[Tensor, "shown latent"]],
    scores: Mapping[str, EditScore],
    asked: str,
) -> UInt8[np.ndarray, "_height _width 3"]:
    """The same faces under every method, at the strength whose change is nearest to 1 sd."""
    shown = _places_in_picture(len(places))
    originals = subject.pixels(subject.split, subject.rows(subject.split)[places[shown]]).cpu()
    latents = [start[shown], *(edited[name, score.strength] for name, score in scores.items())]
    labels = ["original", "reconstruction"]
    labels += [f"{name}\nstrength {score.strength:g}: {score.target_change:+.2f} sd" for name, score in scores.items()]
    return labelled_grid(
        torch.stack([originals, *(subject.decode_uint8(each).cpu() for each in latents)]),
        labels,
        [f"face {number}" for number in range(1, len(shown) + 1)],
        f"{asked}: each method at the strength whose mean change is nearest to {EQUAL_CHANGE:g} sd",
    )


def _numbers(
    judge: Judge, subject: Subject, target: str, wanted: bool, people: Int64[np.ndarray, " images"]
) -> dict[str, Any]:
    reliability = judge.reliability[judge.column(target)]
    if judge.target == "attributes":
        chosen = f"true label: {'without' if wanted else 'with'} {target}"
    else:
        chosen = f"true {target} in the {'lower' if wanted else 'higher'} half"
    return {
        "target": target,
        "asked": "added" if wanted else "removed",
        "images": len(people),
        "images_are": f"of the {subject.split} split, {chosen}",
        "people": len(np.unique(people)) if subject.data.identities(subject.split) is not None else None,
        "judge": {**judge.summary(), "of_the_target": reliability},
        "equal_change_sd": EQUAL_CHANGE,
        "definitions": DEFINITIONS,
    }


def at_equal_change(scores: Scores) -> list[Row]:
    """A row per method: its scores where the target has changed by 1 sd, the least leakage first.

    Linear between strengths, from no edit at all. Methods that do not get there have no scores and come last.
    """
    rows: list[Row] = []
    for method, each in scores.items():
        changes = _curve(each, "target_change", 0.0)
        row: Row = {
            "method": method,
            "reached": "yes" if changes[:, 0].max() >= EQUAL_CHANGE else "not reached",
            "largest_change": float(changes[:, 0].max()),
        }
        for name, of_nothing in NOTHING.items():
            found = value_at(changes, _curve(each, name, of_nothing), EQUAL_CHANGE)
            row[name] = float(found[0]) if np.isfinite(found[0]) else None
            if name in each[0].resampled:
                row |= interval_cells(name, found[1:] if row[name] is not None else found[:0])
        rows.append(row)
    return sorted(rows, key=lambda row: np.inf if row["leakage"] is None else cast(float, row["leakage"]))


def _curve(scores: Sequence[EditScore], name: str, of_nothing: float) -> Float[np.ndarray, "points weightings"]:
    """A score at no edit and at all strengths, of the images in the first column and of resamples in the others."""
    count = len(scores[0].resampled["target_change"])
    points = [np.full(1 + count, of_nothing)]
    for score in scores:
        value = getattr(score, name)
        estimate = np.nan if value is None else value
        points.append(np.append(estimate, score.resampled.get(name, np.full(count, estimate))))
    return np.stack(points)


def value_at(
    changes: Float[np.ndarray, "points weightings"], values: Float[np.ndarray, "points weightings"], goal: float
) -> Float[np.ndarray, " weightings"]:
    """Values where the change first gets to the goal, linear between the two points about it; nan where it never does.

    The first point has not changed.
    """
    there = changes >= goal
    reached = there.any(0)
    last = np.where(reached, there.argmax(0), 1)
    column = np.arange(changes.shape[1])
    start, end = changes[last - 1, column], changes[last, column]
    share = np.divide(goal - start, end - start, out=np.full(len(column), np.nan), where=reached)
    return values[last - 1, column] * (1 - share) + values[last, column] * share


def nearest_to_equal_change(scores: Scores) -> dict[str, EditScore]:
    return {name: min(each, key=lambda score: abs(score.target_change - EQUAL_CHANGE)) for name, each in scores.items()}
