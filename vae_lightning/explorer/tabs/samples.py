"""Samples of a prior."""

import secrets
from typing import Any

import gradio as gr

from vae_lightning.explorer import controls
from vae_lightning.explorer.pictures import MOST_SAMPLES, shown_samples
from vae_lightning.explorer.positions import HIGHEST_TEMPERATURE
from vae_lightning.explorer.workbench import OpenedRun, Workbench
from vae_lightning.latents.priors import PRIORS
from vae_lightning.latents.temperature import falling_temperatures
from vae_lightning.runs.layout import run_folder
from vae_lightning.system.terminal import command

COUNT = 16
STEP = 0.05
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
            temperatures = temperature_sliders(workbench)
            count = gr.Slider(1, MOST_SAMPLES, COUNT, step=1, label="How many")
            seed = gr.Number(0, label="Seed", precision=0)
            other = gr.Button("Other faces")
        with gr.Column(scale=5, min_width=280):
            problem = controls.problem_part()
            picture = gr.HTML()
            code = controls.code_part()
    inputs = [run, count, temperatures[0], seed, prior, *temperatures[1:]]

    def samples_shown(run: object, *values: Any) -> tuple[str, str]:
        return shown_samples(workbench, controls.chosen_run(workbench, run), *values)

    show = controls.answering(workbench, samples_shown, 2)
    coarsest, *finer = (each.value for each in temperatures)
    controls.fill([picture, code, problem], show(0, COUNT, coarsest, 0, priors[0], *finer))
    changes = [prior.input, count.change, seed.change, *(each.change for each in temperatures)]
    gr.on(changes, show, inputs, [picture, code, problem], **controls.QUIET)
    relabel = controls.answering(workbench, lambda run: _updates(workbench, run), len(temperatures))
    run.input(relabel, run, [*temperatures, problem], **controls.QUIET).then(
        show, inputs, [picture, code, problem], **controls.QUIET
    )
    other.click(lambda: secrets.randbelow(NEW_SEEDS), None, seed, **controls.QUIET)


def temperature_sliders(workbench: Workbench) -> list[gr.Slider]:
    """One for each level of the run that has the most; those that the chosen run has not are hidden."""
    deepest = max((run.levels for run in workbench.runs), key=len)
    falling = falling_temperatures(deepest)[-1].values() if len(deepest) > 1 else [controls.TEMPERATURE]
    values = [round(round(each / STEP) * STEP, 2) for each in falling]
    if workbench.runs[0].vae.model.is_flat:
        values[0] = controls.TEMPERATURE
    shown = _sliders(workbench.runs[0], len(deepest))
    return [
        gr.Slider(0, HIGHEST_TEMPERATURE, value, step=STEP, **each) for value, each in zip(values, shown, strict=True)
    ]


def _updates(workbench: Workbench, number: object) -> list[Any]:
    count = max(len(run.levels) for run in workbench.runs)
    return [gr.update(**each) for each in _sliders(workbench.runs[controls.chosen_run(workbench, number)], count)]


def _sliders(run: OpenedRun, count: int) -> list[dict[str, Any]]:
    """Labels and visibility of the sliders of temperatures, coarse first."""
    names = [f"Temperature of {level.name}" for level in run.levels] if len(run.levels) > 1 else ["Temperature"]
    there = [{"label": name, "info": "spread of the latents; 1 is the prior", "visible": True} for name in names]
    return there + [{"label": "", "visible": False}] * (count - len(there))


def _how_to_fit(workbench: Workbench) -> str:
    missing = [name for name in PRIORS if not all(name in run.priors for run in workbench.runs) and name != "normal"]
    if not missing:
        return ""
    folder = run_folder(workbench.runs[0].place) if len(workbench.runs) == 1 else "RUN"
    return f"{', '.join(missing)} can be fitted: {command(f'vae evaluate {folder} --metrics samplers')}"
