"""Draws guided faces, and says how many of them the classifier finds as they were asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from vae_lightning.editing.attributes.amplification import encode_faces, words_on_finer
from vae_lightning.editing.attributes.guidance import GuidanceSettings, Guided, guide
from vae_lightning.editing.judging.judge import POOR, attribute_aucs
from vae_lightning.pictures.charts import COLORS, Chart, figure_pixels
from vae_lightning.pictures.face_grids import decode_uint8
from vae_lightning.pictures.grids import labelled_grid
from vae_lightning.recognition import Recognizer
from vae_lightning.runs.subject import Subject
from vae_lightning.scores.result import Result, Row


def guide_faces(
    subject: Subject,
    classifier: Recognizer,
    faces: UInt8[Tensor, "faces channels height width"],
    face_labels: Sequence[str],
    targets: Mapping[str, bool],
    settings: GuidanceSettings,
    finer: str = "keep",
) -> Result:
    """Pictures `guidance` (a row per face) and `loss`, and a table of the faces.

    Of a hierarchical model the latents in the subject's levels are guided; the finer ones are as `with_finer` makes
    them.

    Raises:
        ValueError: as `guide`.
    """
    start = encode_faces(subject, faces, finer)
    guided = guide(subject.model, classifier, start, targets, settings, subject.track, subject.num_coarse)
    before, after = guided.log_odds_before.sigmoid(), guided.log_odds_after.sigmoid()
    with torch.inference_mode():
        decoded = decode_uint8(subject.model, torch.cat([start[None], guided.path]).to(subject.device)).cpu()
    found = _found(guided, targets, attribute_aucs(classifier, subject, targets))
    asked = f"{_in_words(targets)} in {settings.num_steps} steps"
    asked += ", other attributes held" if settings.hold_others else ""
    asked += words_on_finer(subject, finer)
    labels = [
        f"{label}\n{_changes(list(targets), *found)}"
        for label, *found in zip(face_labels, before.tolist(), after.tolist(), strict=True)
    ]
    grid = labelled_grid(
        torch.cat([faces.cpu()[None], decoded]).transpose(0, 1),
        labels,
        [
            "original",
            "reconstruction" if finer == "keep" else "step 0",
            *(f"step {step}" for step in settings.shown_steps),
        ],
        f"{asked}: {found}",
    )
    return Result(
        pictures={"guidance": grid, "loss": _draw_losses(guided, settings, _in_words(targets))},
        tables={"faces": _face_rows(face_labels, guided, targets)},
        protocol={"targets": dict(targets), "found": found, "median": _medians(guided, list(targets))},
        remarks=[f"As asked {found}."],
    )


def _as_asked(log_odds: Float[Tensor, "faces targets"], targets: Mapping[str, bool]) -> list[bool]:
    """Whether the classifier finds all targets on a face, each with a probability above one half."""
    return ((log_odds > 0) == torch.tensor(list(targets.values()))).all(1).tolist()


def _found(guided: Guided, targets: Mapping[str, bool], aucs: Mapping[str, float | None]) -> str:
    """What was reached, by whose judgement, and how well the judge tells the attributes (0.5 is chance)."""
    before, after = (sum(_as_asked(odds, targets)) for odds in (guided.log_odds_before, guided.log_odds_after))
    medians = _medians(guided, list(targets))
    shifts = [
        f"{name + ' ' if len(targets) > 1 else ''}{medians['probability_before'][name]:.2f} → {now:.2f}"
        for name, now in medians["probability_after"].items()
    ]
    known = [f"{auc:.2f}" + (f" ({name})" if len(aucs) > 1 else "") for name, auc in aucs.items() if auc is not None]
    quality = f"AUC {', '.join(known)}" if known else "whose AUC is not known here"
    is_poor = any(auc is not None and auc < POOR["AUC"] for auc in aucs.values())
    return (
        f"on {after} of {len(guided.latents)} faces, before on {before}; median p {', '.join(shifts)}; judge: the "
        f"guiding classifier, {quality}{', too poor to tell' if is_poor else ''}"
    )


def _changes(targets: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    names = [f"{name} " for name in targets] if len(targets) > 1 else ["p = "]  # the title names a single target
    return "\n".join(f"{name}{was:.2f} → {now:.2f}" for name, was, now in zip(names, before, after, strict=True))


def _in_words(targets: Mapping[str, bool]) -> str:
    return ", ".join(f"{name} to be {'added' if value else 'removed'}" for name, value in targets.items())


def _face_rows(face_labels: Sequence[str], guided: Guided, targets: Mapping[str, bool]) -> list[Row]:
    before, after = guided.log_odds_before.sigmoid().tolist(), guided.log_odds_after.sigmoid().tolist()
    distances, as_asked = guided.squared_distance[-1].sqrt().tolist(), _as_asked(guided.log_odds_after, targets)
    rows: list[Row] = []
    for face, label in enumerate(face_labels):
        row: Row = {"face": label}
        for column, name in enumerate(targets):
            row |= {f"{name} before": before[face][column], f"{name} after": after[face][column]}
        row |= {"as asked": "yes" if as_asked[face] else "no"}
        row |= {"distance": distances[face], "others_nats": float(guided.others_nats[-1, face])}
        rows.append(row | {"loss first": float(guided.losses[0, face]), "loss last": float(guided.losses[-1, face])})
    return rows


def _medians(guided: Guided, targets: Sequence[str]) -> dict[str, Any]:
    before, after = (found.sigmoid().quantile(0.5, dim=0) for found in (guided.log_odds_before, guided.log_odds_after))
    return {
        "probability_before": dict(zip(targets, before.tolist(), strict=True)),
        "probability_after": dict(zip(targets, after.tolist(), strict=True)),
        "distance": float(guided.squared_distance[-1].sqrt().quantile(0.5)),
        "others_nats": float(guided.others_nats[-1].quantile(0.5)),
    }


def _draw_losses(guided: Guided, settings: GuidanceSettings, title: str) -> Chart:
    panels = {
        "loss": guided.losses,
        "cross-entropy of the targets": guided.classification_nats,
        f"{settings.distance_weight:g} × squared distance": settings.distance_weight * guided.squared_distance,
        f"change of the others, {'' if settings.hold_others else 'not '}in the loss": guided.others_nats,
    }
    figure = Figure(figsize=(3.2 * len(panels), 3.2), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(panels))
    for color, axis, (name, values) in zip(COLORS, axes, panels.items(), strict=False):
        axis.plot(values.numpy(), color=color, alpha=0.25, linewidth=0.8)
        axis.plot(values.quantile(0.5, dim=1).numpy(), color=color, linewidth=2)
        axis.set_title(name, fontsize=10)
        axis.set(xlabel="step", ylabel="nats")
        axis.grid(alpha=0.3)
    figure.suptitle(f"{title} by guidance: thin lines are faces, thick ones their median", fontsize=11)
    return figure_pixels(figure)
