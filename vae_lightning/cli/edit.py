"""`vae edit VERB RUN`: change faces in a chosen way, and measure what else has changed."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vae_lightning.cli.arguments import (
    Count,
    Device,
    Photographs,
    RunPath,
    Seed,
    Which,
    ends_with_one_line,
    example,
    split_by_comma,
    whole_numbers,
)
from vae_lightning.system.terminal import command

edit = typer.Typer(
    no_args_is_help=True,
    help="Change faces in a chosen way: single latents, attributes, identity; and score it.",
    epilog=example("vae edit attribute last Smiling me.jpg"),
)

Attribute = Annotated[str, typer.Argument(help="As the data call it: Smiling, Eyeglasses, Male, …")]
Folder = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder for the result. Default: edits/… in the run's.")
]
Split = Annotated[str, typer.Option(help="Whose faces: train, val or test.")]
Unit = Annotated[
    str, typer.Option(help="std: 1 is one standard deviation of the latents; class: 1 reaches the class mean.")
]
Method = Annotated[str, typer.Option(help="means (of the classes), probe (a linear one), or another edit: one_latent.")]
Levels = Annotated[
    str, typer.Option(help="Of a ladder, by comma: move these coarsest levels. Default: up to 1,024 latents.")
]
Finer = Annotated[
    str, typer.Option(help="What becomes of a ladder's finer levels: keep, redraw (from N(0, I)), or mean (0).")
]
Remove = Annotated[bool, typer.Option("--remove", help="Remove it from faces that have it.")]


@edit.command(epilog=example("vae edit amplify last --by correlation --attribute Smiling --range 5"))
@ends_with_one_line
def amplify(
    run: RunPath,
    photographs: Photographs = None,
    by: Annotated[str, typer.Option(help="Which latents: largest variance, kl, or correlation with --attribute.")] = (
        "variance"
    ),
    attribute: Annotated[str | None, typer.Option(help="For --by correlation.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many latents.")] = 4,
    dimensions: Annotated[str, typer.Option(help="These latents, by comma, whatever --by.")] = "",
    limit: Annotated[
        float, typer.Option("--range", min=0.01, help="α goes from minus this value to this value.")
    ] = 3.0,
    steps: Annotated[int, typer.Option(min=2, max=1_000, help="Values of α.")] = 10,
    images: Annotated[int, typer.Option(min=2, help="Training images that latents are ranked by.")] = 1_000,
    levels: Levels = "",
    finer: Finer = "keep",
    count: Count = 8,
    split: Split = "test",
    seed: Seed = 0,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Move single latents: z_j + α. Ranks all of them, and shows which attribute each correlates with."""
    from vae_lightning.cli.workplace import finish, opened
    from vae_lightning.editing.attributes.amplification import (
        amplify,
        correlation_column,
        correlation_results,
        rank_dimensions,
    )

    settings = {
        **{"edit": "amplify", "by": by, "attribute": attribute, "range": limit, "steps": steps, "images": images},
        **{"photographs": [*map(str, photographs or [])], "finer": finer},
    }
    named = whole_numbers("dimensions", dimensions)
    with opened(run, checkpoint, device, split=split, seed=seed, out=out, levels=levels) as workplace:
        subject = workplace.subject
        ranking = rank_dimensions(subject, by, images, attribute)
        chosen = named or [int(row["dimension"] or 0) for row in ranking[:top]]
        moved = amplify(subject, *workplace.faces(photographs, count), chosen, limit, steps, images, attribute, finer)
        found = correlation_results(subject, images, chosen)
    name = f"amplify_{attribute or by}" if not named else "amplify_" + "_".join(map(str, named[:5]))
    tables = {"dimension_ranking": ranking, **found.tables}
    outcome = replace(moved, tables=tables, pictures={**moved.pictures, **found.pictures})
    asked = (correlation_column(attribute),) if attribute else ()
    place = () if subject.model.is_flat else ("place",)
    ranked = ("rank", "dimension", *place, *asked, "variance", "kl_nats", "best_attribute", "best_correlation")
    best = ("attribute", "dimension", "correlation")
    finish(workplace, outcome, name, out, settings, show={"dimension_ranking": ranked, "best_dimensions": best})


@edit.command(epilog=example("vae edit directions last"))
@ends_with_one_line
def directions(
    run: RunPath, levels: Levels = "", out: Folder = None, checkpoint: Which = "best", device: Device = "auto"
) -> None:
    """Fit the directions of all attributes and keep them beside the checkpoint: `load_run(…).edit` reads them."""
    from vae_lightning.cli.workplace import finish, opened
    from vae_lightning.editing.attributes.directions import direction_table, normals_picture, subject_directions
    from vae_lightning.scores.result import Result

    with opened(run, checkpoint, device, out=out, levels=levels or None) as workplace:
        fitted = subject_directions(workplace.subject, workplace.run.direction_file)
    tables = {"directions": direction_table(fitted)}
    columns = ("attribute", "with", "without", "means_gap", "means_gap_std", "cosine")
    which = workplace.subject.which_latents
    remarks = [f"Directions move latents{which}."] if which else []
    protocol = {"file": str(workplace.run.direction_file.path)}
    outcome = Result((), protocol, remarks, tables, {"normals": normals_picture(fitted)})
    finish(workplace, outcome, "directions", out, {"edit": "directions"}, show={"directions": columns})


@edit.command(epilog=example("vae edit attribute last Smiling me.jpg --method probe --orthogonal-to Male,Young"))
@ends_with_one_line
def attribute(
    run: RunPath,
    name: Annotated[str, typer.Argument(metavar="ATTRIBUTE", help="As the data call it: Smiling, Male, …")],
    photographs: Photographs = None,
    method: Method = "means",
    orthogonal_to: Annotated[str, typer.Option(help="Attributes that shall stay, by comma.")] = "",
    strengths: Annotated[str, typer.Option(help="By comma; 0 is the reconstruction.")] = "-3,-2,-1,0,1,2,3",
    unit: Unit = "std",
    images_per_class: Annotated[
        int | None, typer.Option(min=1, help="Means of so many random images. Default: all.")
    ] = None,
    levels: Levels = "",
    finer: Finer = "keep",
    count: Count = 8,
    split: Split = "test",
    seed: Seed = 0,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Add or remove an attribute along a direction, and compare the directions on one face."""
    from vae_lightning.cli.workplace import finish, opened
    from vae_lightning.editing.attributes.directions import apply_edit, compare_directions, edit_attribute
    from vae_lightning.editing.attributes.directions import subject_directions as fit
    from vae_lightning.editing.attributes.edit import attribute_edit
    from vae_lightning.latents.directions import METHODS

    steps, others = numbers("strengths", strengths), split_by_comma(orthogonal_to)
    edit = None if method in METHODS else attribute_edit(method, METHODS)
    if edit and (others or unit != "std" or images_per_class):
        raise ValueError(
            f"--method {method}: --orthogonal-to, --unit and --images-per-class are for {', '.join(METHODS)}"
        )
    settings: dict[str, Any] = {"edit": "attribute", "attribute": name, "method": method}
    settings |= {"orthogonal_to": others, "unit": unit, "strengths": steps, "images_per_class": images_per_class}
    settings |= {"photographs": [*map(str, photographs or [])], "finer": finer}
    with opened(run, checkpoint, device, split=split, seed=seed, out=out, levels=levels or None) as workplace:
        subject = workplace.subject
        faces, labels = workplace.faces(photographs, count)
        if edit:
            words = method.replace("_", " ")
            outcome = apply_edit(subject, faces, labels, name, edit(subject, name), steps, words, finer)
        else:
            fitted = fit(subject, workplace.run.direction_file, images_per_class, seed)
            outcome = edit_attribute(subject, faces, labels, fitted.direction(name, method, others), steps, unit, finer)
            held = dict.fromkeys([(), tuple(others)])
            every = [fitted.direction(name, each, kept) for kept in held for each in METHODS]
            compared = compare_directions(subject, faces[:1], every, steps, unit, finer)
            pictures = {**outcome.pictures, **compared.pictures}
            outcome = replace(outcome, protocol={**outcome.protocol, "compared": compared.protocol}, pictures=pictures)
    finish(workplace, outcome, "_".join([name, method, *(f"without_{other}" for other in others)]), out, settings)


@edit.command(epilog=example("vae edit guide last Smiling=yes,Male=no --classifier outputs/2026-11-21_12-00-00"))
@ends_with_one_line
def guide(
    run: RunPath,
    targets: Annotated[str, typer.Argument(metavar="ATTRIBUTES", help="Smiling, or Smiling=yes,Male=no")],
    photographs: Photographs = None,
    classifier: Annotated[str, typer.Option(help="Run of experiment=attribute_classifier, or last.")] = "",
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 200,
    lr: Annotated[float, typer.Option(help="Of Adam.")] = 0.01,
    distance_weight: Annotated[float, typer.Option(help="Nats for a squared distance of 1 from the start.")] = 0.1,
    hold_others: Annotated[bool, typer.Option("--hold-others", help="Hold the other attributes where they are.")] = (
        False
    ),
    levels: Levels = "",
    finer: Finer = "keep",
    count: Count = 8,
    split: Split = "test",
    seed: Seed = 0,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Follow the gradient of an attribute classifier until it predicts the wanted attributes."""
    from vae_lightning.cli.workplace import finish, made_by, opened
    from vae_lightning.editing.attributes.guidance import GuidanceSettings
    from vae_lightning.editing.attributes.guided_faces import guide_faces

    wanted = yes_or_no(targets)
    chosen = GuidanceSettings(steps, lr, distance_weight, hold_others, min(6, steps))
    if not classifier:
        raise ValueError(
            f"--classifier RUN is needed: {command('python train.py experiment=attribute_classifier')} trains one"
        )
    with opened(run, checkpoint, device, split=split, seed=seed, out=out, levels=levels) as workplace:
        network = workplace.recognizer(classifier)
        first = {name: not value for name, value in list(wanted.items())[:1]}  # faces to which it can be done
        faces, labels = workplace.faces(photographs, count, **first)
        outcome = guide_faces(workplace.subject, network, faces, labels, wanted, chosen, finer)
    settings = {"edit": "guide", "targets": wanted, **made_by(classifier=classifier), **chosen.__dict__}
    settings |= {"photographs": [*map(str, photographs or [])], "finer": finer}
    columns = ["face", *(f"{name} {when}" for name in wanted for when in ("before", "after")), "as asked", "distance"]
    how = "_".join(f"{name}_{'yes' if value else 'no'}" for name, value in wanted.items())
    finish(
        workplace,
        outcome,
        f"guide_{how}" + ("_others_held" if hold_others else ""),
        out,
        settings,
        show={"faces": columns},
    )


@edit.command(epilog=example("vae edit transfer last --anchors 2820,3227 --components 64 --basis identity"))
@ends_with_one_line
def transfer(
    run: RunPath,
    anchors: Annotated[str, typer.Option(help="Numbers of people, by comma. Default: those with most pictures.")] = "",
    num_anchors: Annotated[int, typer.Option(min=1, help="How many people, where none are named.")] = 3,
    components: Annotated[
        int | None, typer.Option(help="Of the anchor's; the rest stays the subject's. Default: a quarter of all.")
    ] = None,
    basis: Annotated[str, typer.Option(help="pca: by variance; identity: by what distinguishes people.")] = "pca",
    min_pictures: Annotated[int, typer.Option(min=2, help="Of a person, for their essence.")] = 10,
    images: Annotated[int, typer.Option(min=2, help="Training images that the components are fitted to.")] = 5_000,
    judge: Annotated[str, typer.Option(help="Also score: a run of factor_regressor or attribute_classifier.")] = "",
    pairs: Annotated[int, typer.Option(min=20, help="Images and anchors that are scored.")] = 300,
    levels: Levels = "",
    finer: Finer = "keep",
    count: Count = 8,
    split: Split = "test",
    seed: Seed = 0,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Give faces the identity of a person, keeping pose and expression."""
    from vae_lightning.cli.workplace import finish, made_by, opened
    from vae_lightning.editing.identity.bases import find_person, people_with
    from vae_lightning.editing.identity.scores import score_transfer
    from vae_lightning.editing.identity.transfer import choose_subjects
    from vae_lightning.editing.identity.transfer import transfer as give_identity

    named = whole_numbers("anchors", anchors)
    settings: dict[str, Any] = {"edit": "transfer", "basis": basis, "min_pictures": min_pictures, "finer": finer}
    with opened(run, checkpoint, device, split=split, seed=seed, out=out, levels=levels) as workplace:
        subject = workplace.subject
        if named:
            people = [find_person(subject, subject.split, identity, min_pictures) for identity in named]
        else:
            people = people_with(subject, subject.split, min_pictures)[:num_anchors]
        rows = choose_subjects(subject, people, count)
        outcome = give_identity(subject, people, rows, components, basis, images, finer)
        if judge:
            scored = score_transfer(subject, workplace.recognizer(judge), pairs, min_pictures, images, finer)
            pictures, tables = {**outcome.pictures, **scored.pictures}, {**outcome.tables, **scored.tables}
            outcome = replace(outcome, tables=tables, pictures=pictures)
    taken = outcome.protocol["components"]
    settings |= {"components": taken, "fitting_images": images, "pairs": pairs, **made_by(judge=judge)}
    columns = ("method", "identity share", "pose and expression share", "rest share")
    finish(workplace, outcome, f"transfer_{basis}_{taken}", out, settings, show={"at_equal_identity": columns})


def numbers(name: str, text: str) -> list[float]:
    """The numbers of an option, separated by commas.

    Raises:
        ValueError: a part is not a number.
    """
    try:
        return [float(part) for part in split_by_comma(text)]
    except ValueError as error:
        raise ValueError(f"--{name} {text}: numbers by comma are expected, as in --{name}=-1,0,1") from error


def yes_or_no(text: str) -> dict[str, bool]:
    """`Smiling=yes,Male=no`; a name alone is a yes.

    Raises:
        ValueError: a value is neither yes nor no.
    """
    found = {}
    for part in split_by_comma(text):
        name, _, value = part.partition("=")
        if value not in ("", "yes", "no"):
            raise ValueError(f"{part}: expected {name}=yes or {name}=no")
        found[name] = value != "no"
    return found
