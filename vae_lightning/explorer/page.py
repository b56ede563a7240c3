"""The page: a title, tabs, and what a visitor should know."""

from pathlib import Path

import gradio as gr

from vae_lightning.data.sources.resolution import data_sources
from vae_lightning.explorer import markup
from vae_lightning.explorer.tabs.one_face import one_face_tab
from vae_lightning.explorer.tabs.samples import samples_tab
from vae_lightning.explorer.tabs.several_runs import several_runs_tab
from vae_lightning.explorer.tabs.two_faces import two_faces_tab
from vae_lightning.explorer.workbench import OpenedRun, Workbench
from vae_lightning.models.levels import level_words

STYLE = Path(__file__).with_name("page.css")
PRIVACY = "Photographs stay on this machine: in memory, until others take their place; nothing is written to disk."
CELEBA = "Models of CelebA are for non-commercial research, as CelebA is."
SESSIONS_KEPT = 64  # of visitors; the page keeps nothing in them


def build_page(workbench: Workbench) -> gr.Blocks:
    with gr.Blocks(title=f"{workbench.name} · vae explore", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(markup.header(workbench.name, describe(workbench), missing(workbench)))
        with gr.Tabs():
            if len(workbench.runs) > 1:
                with gr.Tab("All runs"):
                    several_runs_tab(workbench)
            with gr.Tab("One face"):
                one_face_tab(workbench)
            with gr.Tab("Two faces"):
                two_faces_tab(workbench)
            with gr.Tab("Samples"):
                samples_tab(workbench)
        licence = f" {CELEBA}" if any(source_of(run) == "celeba" for run in workbench.runs) else ""
        gr.HTML(markup.footer(PRIVACY + licence))
    page.state_session_capacity = SESSIONS_KEPT
    return page


def theme() -> gr.Theme:
    """With the fonts that the visitor's system has: nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def describe(workbench: Workbench) -> str:
    if len(workbench.runs) > 1:
        data = dict.fromkeys(data_sources()[source_of(run)].title for run in workbench.runs)
        return f"A sweep of {len(workbench.runs)} runs on {' and '.join(data)}"
    return describe_run(workbench.runs[0])


def describe_run(run: OpenedRun) -> str:
    model, source = run.vae.model, source_of(run)
    kind = "" if model.has_prior else ", plain autoencoder"
    beta = run.vae.config.get("beta")
    strength = f", β = {beta:g}" if model.has_prior and isinstance(beta, int | float) else ""
    size = f"{model.image_size}×{model.image_size}"
    return (
        f"{type(model).__name__}{kind}, {level_words(model.latent_levels)}{strength}, "
        f"trained on {data_sources()[source].title} at {size} pixels"
    )


def source_of(run: OpenedRun) -> str:
    return str(run.vae.record["data"]["source"])


def missing(workbench: Workbench) -> list[str]:
    """What the page cannot show, each sentence once, with the run's name where there are several runs."""
    several = len(workbench.runs) > 1
    notes = [f"{run.label}: {note}" if several else note for run in workbench.runs for note in run.notes]
    return list(dict.fromkeys([*workbench.left_out, *notes]))
