"""Samples of a prior."""

import secrets
from typing import Any

import gradio as gr

from vae_lightning.explorer import controls
from vae_lightning.explorer.pictures import MOST_SAMPLES, shown_samples
from vae_lightning.explorer.positions import HIGHEST_TEMPERATURE
from vae_lightning.explorer.workbench import Workbench
from vae_lightning.latents.priors import PRIORS
from vae_lightning.runs.layout import run_folder
from vae_lightning.system.terminal import command

COUNT = 16
NEW_SEEDS = 1_000_000


def samples_tab(workbench: Workbench) -> None:
    priors = [name for name in PRIORS if any(name in run.priors for run in workbench.runs)]
    if not priors:
        gr.Markdown("A plain autoencoder has no prior to sample from. " + _how_to_fit(workbench))
        return
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            run = controls.run_choice(workbench)
            prior = gr.Radio(priors, value=priors[0], label="Prior", info=_how_to_fit(workbench))
            temperature = gr.Slider(
                0,
                HIGHEST_TEMPERATURE,
                controls.TEMPERATURE,
                step=0.05,
                label="Temperature",
                info="spread of the latents; 1 is the prior",
            )
            count = gr.Slider(1, MOST_SAMPLES, COUNT, step=1, label="How many")
            seed = gr.Number(0, label="Seed", precision=0)
            other = gr.Button("Other faces")
        with gr.Column(scale=5, min_width=280):
            problem = controls.problem_part()
            picture = gr.HTML()
            code = controls.code_part()
    inputs = [run, count, temperature, seed, prior]

    def samples_shown(run: object, *values: Any) -> tuple[str, str]:
        return shown_samples(workbench, controls.chosen_run(workbench, run), *values)

    show = controls.answering(workbench, samples_shown, 2)
    controls.fill([picture, code, problem], show(0, COUNT, controls.TEMPERATURE, 0, priors[0]))
    changes = [run.input, prior.input, temperature.change, count.change, seed.change]
    gr.on(changes, show, inputs, [picture, code, problem], **controls.QUIET)
    other.click(lambda: secrets.randbelow(NEW_SEEDS), None, seed, **controls.QUIET)


def _how_to_fit(workbench: Workbench) -> str:
    missing = [name for name in PRIORS if not all(name in run.priors for run in workbench.runs) and name != "normal"]
    if not missing:
        return ""
    folder = run_folder(workbench.runs[0].place) if len(workbench.runs) == 1 else "RUN"
    return f"{', '.join(missing)} can be fitted: {command(f'vae evaluate {folder} --metrics samplers')}"
