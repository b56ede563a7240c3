"""A face, its reconstruction, and sliders that change it."""

from typing import Any

import gradio as gr

from vae_lightning.explorer import controls
from vae_lightning.explorer.edits import REACH, Edit
from vae_lightning.explorer.pictures import shown_edit, shown_original
from vae_lightning.explorer.positions import as_seed, number_in, word_of, words_of
from vae_lightning.explorer.workbench import OpenedRun, Workbench
from vae_lightning.latents.directions import METHODS
from vae_lightning.latents.finer import FINER
from vae_lightning.models.levels import latent_name

NUM_LATENTS = 8  # sliders
NUM_ATTRIBUTES = 6  # at most
FIRST_ATTRIBUTES = ("Smiling", "Eyeglasses", "Male", "Young")  # of CelebA and rendered faces
STEP = 0.1


def one_face_tab(workbench: Workbench) -> None:
    attributes = attributes_of(workbench)
    chosen = first_attributes(attributes)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            run = controls.run_choice(workbench)
            chooser = controls.FaceChooser(workbench, "Face")
            originals = gr.HTML()
        with gr.Column(scale=3, min_width=280, elem_classes=["stage"]):
            problem = controls.problem_part()
            picture = gr.HTML(elem_classes=["shown"])
            code = controls.code_part()
        with gr.Column(scale=2, min_width=280):
            reset = gr.Button("Reset all sliders")
            names, strengths, method, others = attribute_controls(attributes, chosen)
            gr.Markdown(latents_heading(workbench))
            finer, seed = finer_controls(workbench)
            latents = [gr.Slider(-REACH, REACH, 0, step=STEP, **each) for each in latent_sliders(workbench.runs[0])]
    edit_inputs = [names, method, others, finer, seed, *strengths, *latents]

    def edit_shown(run: object, *values: Any) -> tuple[str, ...]:
        face, number = controls.face_of(*values[: controls.NUM_FACE_VALUES]), controls.chosen_run(workbench, run)
        return shown_edit(workbench, number, face, edit_of(workbench, number, *values[controls.NUM_FACE_VALUES :]))

    def all_shown(run: object, *values: Any) -> tuple[str, ...]:
        edited = edit_shown(run, *values)
        return (
            shown_original(
                workbench, controls.chosen_run(workbench, run), controls.face_of(*values[: controls.NUM_FACE_VALUES])
            ),
            *edited,
        )

    inputs = [run, *chooser.inputs, *edit_inputs]
    show_all, show_edit = controls.answering(workbench, all_shown, 3), controls.answering(workbench, edit_shown, 2)
    everything, changed = [originals, picture, code, problem], [picture, code, problem]
    controls.fill(everything, show_all(0, *chooser.values, [], METHODS[0], [], FINER[0], 0))
    gr.on(chooser.triggers, show_all, inputs, everything, **controls.QUIET)
    sliders = [*strengths, *latents]
    edits = (*sliders, method, others, finer, seed)
    gr.on([control.change for control in edits], show_edit, inputs, changed, **controls.QUIET)
    reset.click(lambda: [0] * len(sliders), None, sliders, **controls.QUIET)  # whose changes show the face
    rename = controls.answering(workbench, lambda names: strength_updates(attributes, names), NUM_ATTRIBUTES)
    names.input(rename, names, [*strengths, problem], **controls.QUIET).then(
        show_edit, inputs, changed, **controls.QUIET
    )
    relabel = controls.answering(workbench, lambda run: run_updates(workbench, run), NUM_LATENTS + 2)
    relabelled = run.input(relabel, run, [*latents, finer, seed, problem], **controls.QUIET)
    relabelled.then(show_all, inputs, everything, **controls.QUIET)


def attribute_controls(attributes: list[str], chosen: list[str]) -> tuple[gr.Dropdown, list[gr.Slider], Any, Any]:
    """Which attributes, a slider for each, and how their directions are found."""
    there = bool(attributes)
    names = gr.Dropdown(
        attributes, value=chosen, multiselect=True, max_choices=NUM_ATTRIBUTES, label="Attributes", visible=there
    )
    strengths = []
    for slot in range(NUM_ATTRIBUTES):
        label = chosen[slot] if slot < len(chosen) else ""
        strengths.append(gr.Slider(-REACH, REACH, 0, step=STEP, label=f"{label} (std)", visible=bool(label)))
    with gr.Accordion("Directions", open=False, visible=there):
        method = gr.Radio(
            list(METHODS), value=METHODS[0], label="Found by", info="difference of means, or linear probe"
        )
        others = gr.Dropdown(attributes, value=[], multiselect=True, label="Orthogonal to", info="these shall stay")
    return names, strengths, method, others


def finer_controls(workbench: Workbench) -> tuple[gr.Radio, gr.Number]:
    """What becomes of the levels that no slider moves; hidden where the run has none."""
    finer, seed = finer_updates(workbench.runs[0])
    return gr.Radio(list(FINER), **finer), gr.Number(**seed, label="Seed of redrawn levels", precision=0)


def finer_updates(run: OpenedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and visibility of the controls of finer levels."""
    label = f"Finer levels ({run.finer_levels}), which no slider moves"
    is_there = bool(run.finer_levels)
    return {"value": FINER[0], "label": label, "visible": is_there}, {"value": 0, "visible": is_there}


def edit_of(
    workbench: Workbench,
    number: int,
    names: object,
    method: object,
    others: object,
    finer: object,
    seed: object,
    *positions: object,
) -> Edit:
    """What the sliders say: first those of attributes, then those of latents.

    Raises:
        ValueError: a value that is not allowed.
    """
    attributes = attributes_of(workbench)
    reached = [number_in(position, "slider", -REACH, REACH) for position in positions]
    strengths, shifts = reached[:NUM_ATTRIBUTES], reached[NUM_ATTRIBUTES:]
    return Edit(
        latents=dict(zip(workbench.runs[number].most_active(NUM_LATENTS), shifts, strict=False)),
        attributes=dict(zip(words_of(names, "attributes", attributes, NUM_ATTRIBUTES), strengths, strict=False)),
        method=word_of(method, "directions", METHODS),
        orthogonal_to=words_of(others, "orthogonal to", attributes, len(attributes)),
        finer=word_of(finer, "finer levels", FINER),
        seed=as_seed(seed),
    )


def attributes_of(workbench: Workbench) -> list[str]:
    """Of any run."""
    return list(dict.fromkeys(name for run in workbench.runs for name in run.attributes))


def first_attributes(attributes: list[str]) -> list[str]:
    known = [name for name in FIRST_ATTRIBUTES if name in attributes]
    return known or attributes[: len(FIRST_ATTRIBUTES)]


def latents_heading(workbench: Workbench) -> str:
    measured = all(run.statistics is not None for run in workbench.runs)
    which = "" if all(run.vae.model.is_flat for run in workbench.runs) else " of the coarse levels"
    return (
        f"**Most active latents**{which}, shifted in standard deviations (std) of faces" if measured else "**Latents**"
    )


def latent_sliders(run: OpenedRun) -> list[dict[str, Any]]:
    """Label and visibility of each slider."""
    order = run.most_active(NUM_LATENTS)
    labels = [latent_label(run, latent) for latent in order]
    absent = NUM_LATENTS - len(labels)
    return [{"label": label, "visible": True} for label in labels] + [{"label": "", "visible": False}] * absent


def latent_label(run: OpenedRun, latent: int) -> str:
    name, statistics = latent_name(run.levels, latent).capitalize(), run.statistics
    if statistics is None:
        return name
    nats = "" if statistics.kl_nats is None else f", {float(statistics.kl_nats[latent]):.2g} nats"
    return f"{name} (std{nats})"


def run_updates(workbench: Workbench, number: object) -> list[Any]:
    """Of the sliders of latents, and of the controls of finer levels."""
    run = workbench.runs[controls.chosen_run(workbench, number)]
    sliders = [gr.update(value=0, **slider) for slider in latent_sliders(run)]
    return [*sliders, *(gr.update(**control) for control in finer_updates(run))]


def strength_updates(attributes: list[str], names: object) -> list[Any]:
    chosen = words_of(names, "attributes", attributes, NUM_ATTRIBUTES)
    labels = [*chosen, *[""] * (NUM_ATTRIBUTES - len(chosen))]
    return [gr.update(value=0, label=f"{label} (std)", visible=bool(label)) for label in labels]
