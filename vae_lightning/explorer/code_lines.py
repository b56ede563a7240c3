"""The lines of Python under each picture, which make it again, pixel for pixel."""

from collections.abc import Sequence

from vae_lightning.explorer.edits import PATH_STEPS, UNIT, Edit
from vae_lightning.explorer.faces import Face, Source
from vae_lightning.explorer.workbench import TEST_FACES, OpenedRun, default_prior
from vae_lightning.latents.temperature import Temperature

OURS = ("latents_between", "load_run", "to_pil", "with_finer")  # names that the lines may need of vae_lightning
OTHERS = {"Image.open": "from PIL import Image", "make_grid": "from torchvision.utils import make_grid"}


def program(lines: Sequence[str]) -> str:
    """Lines below the imports that they need."""
    body = "\n".join(lines)
    others = [f"{line}\n" for word, line in OTHERS.items() if word in body]
    ours = ", ".join(name for name in OURS if f"{name}(" in body)
    return f"{''.join(others)}{chr(10) if others else ''}from vae_lightning import {ours}\n\n{body}\n"


def opening(run: OpenedRun) -> str:
    device = "" if run.vae.device.type == "cpu" else f", device={str(run.vae.device)!r}"
    return f"vae = load_run({str(run.place)!r}{device})"


def original(face: Face) -> str:
    """An expression for the image that `encode` takes."""
    if face.source == Source.TEST:
        return f'vae.held_out_faces("test", {TEST_FACES})[{face.number - 1}]'
    return f"Image.open({face.name!r})"


def latents_of(run: OpenedRun, face: Face) -> str:
    """An expression for the face's latents.

    Raises:
        ValueError: the run cannot be sampled.
    """
    if face.source == Source.SAMPLE:
        settings = f"temperature={face.temperature!r}, seed={face.seed}, prior={default_prior(run)!r}"
        return f"vae.sample_latents(1, {settings})"
    return f"vae.encode({original(face)}).mean.cpu().clone()"


def editing(run: OpenedRun, edit: Edit) -> list[str]:
    """Lines that change `latents`."""
    shifts, measured = edit.shifts(run), run.statistics is not None
    lines = []
    if edit.finer != "keep":
        drawn = f", {edit.seed}" if edit.finer == "redraw" else ""
        lines.append(f"latents = with_finer(latents, {run.num_coarse}, {edit.finer!r}{drawn})")
    lines += ["std = vae.latent_statistics().std"] if shifts and measured else []
    for latent, shift in shifts.items():
        lines.append(f"latents[:, {latent}] += {shift!r}" + (f" * std[{latent}]" if measured else ""))
    strengths = {attribute: strength for attribute, strength in edit.attributes.items() if strength}
    lines += ["directions = vae.directions()"] if strengths else []
    for attribute, strength in strengths.items():
        arguments = f"{attribute!r}, {edit.method!r}, {edit.others(attribute)!r}"
        lines.append(f"latents += directions.direction({arguments}).shift({strength!r}, {UNIT!r})")
    return lines


def saving(file_name: str) -> list[str]:
    return ["picture = vae.decode(latents, as_pil=True)[0]", f"picture.save({file_name!r})"]


def edited_face(run: OpenedRun, face: Face, edit: Edit, file_name: str) -> list[str]:
    return [opening(run), f"latents = {latents_of(run, face)}", *editing(run, edit), *saving(file_name)]


def face_between(run: OpenedRun, first: Face, second: Face, percent: int, path: str, file_name: str) -> list[str]:
    levels = "" if run.vae.model.is_flat else ", vae.model.latent_levels"
    return [
        opening(run),
        f"first = {latents_of(run, first)}",
        f"second = {latents_of(run, second)}",
        f"latents = latents_between(first, second, {PATH_STEPS}, {path!r}{levels})[:, {percent}]",
        *saving(file_name),
    ]


def samples(
    run: OpenedRun, count: int, temperature: Temperature, seed: int, prior: str, columns: int, file_name: str
) -> list[str]:
    return [
        opening(run),
        f"faces = vae.sample({count}, temperature={temperature!r}, seed={seed}, prior={prior!r})",
        f"picture = to_pil(make_grid(faces, nrow={columns}, padding=0)[None])[0]",
        f"picture.save({file_name!r})",
    ]
