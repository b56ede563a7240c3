"""The same face, or the same sample, through every run of a sweep."""

from typing import Any

import gradio as gr

from vae_lightning.explorer import controls
from vae_lightning.explorer.edits import REACH, Edit
from vae_lightning.explorer.pictures import shown_originals, shown_runs
from vae_lightning.explorer.positions import number_in, whole_in, word_of
from vae_lightning.explorer.tabs.one_face import NUM_LATENTS, STEP, attributes_of, first_attributes
from vae_lightning.explorer.workbench import Workbench
from vae_lightning.latents.directions import METHODS


def several_runs_tab(workbench: Workbench) -> None:
    attributes = attributes_of(workbench)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            chooser = controls.FaceChooser(workbench, "Face")
            originals = gr.HTML()
        with gr.Column(scale=3, min_width=280):
            rank = gr.Slider(1, NUM_LATENTS, 1, step=1, label="Latent, by its rank", info="1 is each run's most active")
            shift = gr.Slider(-REACH, REACH, 0, step=STEP, label="Shift of this latent (std)")
            attribute = gr.Dropdown(
                attributes,
                value=next(iter(first_attributes(attributes)), None),
                label="Attribute",
                visible=bool(attributes),
            )
            strength = gr.Slider(
                -REACH, REACH, 0, step=STEP, label="Strength of this attribute (std)", visible=bool(attributes)
            )
            reset = gr.Button("Reset both sliders")
    problem = controls.problem_part()
    pictures = gr.HTML()
    code = controls.code_part()
    inputs = [*chooser.inputs, rank, shift, attribute, strength]

    def runs_shown(*values: Any) -> tuple[str, ...]:
        face, edit = (
            controls.face_of(*values[: controls.NUM_FACE_VALUES]),
            shared_edit(attributes, *values[controls.NUM_FACE_VALUES :]),
        )
        return (shown_originals(workbench, face), *shown_runs(workbench, face, edit))

    show, everything = controls.answering(workbench, runs_shown, 3), [originals, pictures, code, problem]
    gr.on(
        [*chooser.triggers, rank.change, shift.change, attribute.change, strength.change],
        show,
        inputs,
        everything,
        **controls.QUIET,
    )
    reset.click(lambda: (0, 0), None, [shift, strength], **controls.QUIET)
    controls.fill(everything, show(*chooser.values, 1, 0, None, 0))


def shared_edit(attributes: list[str], rank: object, shift: object, attribute: object, strength: object) -> Edit:
    """What the sliders say.

    Raises:
        ValueError: a value that is not allowed.
    """
    reached = number_in(strength, "strength", -REACH, REACH)
    return Edit(
        ranks={whole_in(rank, "rank", 1, NUM_LATENTS) - 1: number_in(shift, "shift", -REACH, REACH)},
        attributes={word_of(attribute, "attribute", attributes): reached} if attribute else {},
        method=METHODS[0],
    )
