"""Two faces and the way between them."""

from typing import Any

import gradio as gr

from vae_lightning.explorer import controls
from vae_lightning.explorer.pictures import shown_between, shown_end
from vae_lightning.explorer.workbench import Workbench
from vae_lightning.latents.paths import PATHS

HALFWAY = 50


def two_faces_tab(workbench: Workbench) -> None:
    run = controls.run_choice(workbench)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=240):
            first = controls.FaceChooser(workbench, "First face", number=1)
            first_end = gr.HTML()
        with gr.Column(scale=3, min_width=280):
            problem = controls.problem_part()
            picture = gr.HTML()
            percent = gr.Slider(0, 100, HALFWAY, step=1, label="Way from the first to the second face (%)")
            path = gr.Radio(list(PATHS), value=PATHS[0], label="Path", info="straight, or round the origin")
            code = controls.code_part()
        with gr.Column(scale=2, min_width=240):
            second = controls.FaceChooser(workbench, "Second face", number=2)
            second_end = gr.HTML()
    inputs = [run, percent, path, *first.inputs, *second.inputs]

    def between_shown(run: object, percent: object, path: object, *faces: Any) -> tuple[str, ...]:
        ends = (
            controls.face_of(*faces[: controls.NUM_FACE_VALUES]),
            controls.face_of(*faces[controls.NUM_FACE_VALUES :]),
        )
        return shown_between(workbench, controls.chosen_run(workbench, run), *ends, percent, path)

    def end_shown(run: object, *values: Any) -> tuple[str, ...]:
        return (shown_end(workbench, controls.chosen_run(workbench, run), controls.face_of(*values)),)

    show, show_end = controls.answering(workbench, between_shown, 2), controls.answering(workbench, end_shown, 1)
    between = [picture, code, problem]
    gr.on([percent.change, path.change], show, inputs, between, **controls.QUIET)
    for chooser, end in ((first, first_end), (second, second_end)):
        of_end = [run, *chooser.inputs]
        event = gr.on([run.input, *chooser.triggers], show_end, of_end, [end, problem], **controls.QUIET)
        event.then(show, inputs, between, **controls.QUIET)
        controls.fill([end, problem], show_end(0, *chooser.values))
    controls.fill(between, show(0, HALFWAY, PATHS[0], *first.values, *second.values))
