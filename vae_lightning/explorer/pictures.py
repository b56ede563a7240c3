"""Makes what the tabs show: HTML of pictures, and the code that makes them again."""

from collections.abc import Sequence

from PIL import Image

from vae_lightning.explorer import code_lines, markup
from vae_lightning.explorer.edits import Edit, between, moved
from vae_lightning.explorer.faces import Face, Source
from vae_lightning.explorer.positions import as_seed, as_temperature, number_in, whole_in, word_of
from vae_lightning.explorer.workbench import OpenedRun, Workbench
from vae_lightning.latents.finer import finer_words
from vae_lightning.latents.paths import PATHS
from vae_lightning.latents.temperature import Temperature, temperature_in_words
from vae_lightning.models.levels import latent_name
from vae_lightning.models.pixels import to_pil

MOST_SAMPLES = 64
COLUMNS = 8
PIXELS_PER_ROW = 512  # so many columns of large faces that a sheet is no wider


def shown_samples(
    workbench: Workbench, number: int, count: object, temperature: object, seed: object, prior: object, *finer: object
) -> tuple[str, str]:
    """A sheet of samples, and its code.

    The temperature is that of the coarsest level, `finer` are those of the others; the run reads as many as it has.

    Raises:
        ValueError: a number out of range, or no such prior.
    """
    from torchvision.utils import make_grid

    run = workbench.runs[number]
    many = whole_in(count, "how many", 1, MOST_SAMPLES)
    heat, start = temperature_by_level(run, [temperature, *finer]), as_seed(seed)
    warmth = temperature_in_words(heat, run.levels)
    kind = word_of(prior, f"priors of {run.label}", run.priors)
    columns = columns_for(many, run.vae.model.image_size)
    faces = run.vae.sample(many, heat, start, kind)
    picture = to_pil(make_grid(faces, nrow=columns, padding=0)[None])[0]
    name = f"samples_seed={start}_temperature={temperature_in_words(heat, run.levels, '_')}.png"
    words = f"{many} samples of the prior {kind}, temperature {warmth}, seed {start}"
    lines = code_lines.samples(run, many, heat, start, kind, columns, name)
    return markup.figure(picture, words, words, name, "sheet"), code_block(lines, "samples.py")


def temperature_by_level(run: OpenedRun, temperatures: Sequence[object]) -> Temperature:
    """One number where all levels have the same, else by level.

    Raises:
        ValueError: a value that is no temperature.
    """
    values = [as_temperature(each) for each in temperatures[: len(run.levels)]]
    if len(set(values)) == 1:
        return values[0]
    return {level.name: value for level, value in zip(run.levels, values, strict=True)}


def columns_for(count: int, image_size: int) -> int:
    return max(1, min(count, COLUMNS, max(2, PIXELS_PER_ROW // image_size)))


def shown_original(workbench: Workbench, number: int, face: Face) -> str:
    """What the model sees of a face, beside its reconstruction; a sample alone.

    Raises:
        ValueError: no such face.
    """
    run = workbench.runs[number]
    figures = []
    if face.source != Source.SAMPLE:
        figures.append(_original(workbench, number, face))
    reconstruction = run.vae.decode(workbench.latents(number, face), as_pil=True)[0]
    what = "sample" if face.source == Source.SAMPLE else "reconstruction"
    figures.append(markup.figure(reconstruction, what.capitalize(), f"{what} of {face.words}", f"{what}.png"))
    return markup.side_by_side(figures)


def _original(workbench: Workbench, number: int, face: Face, caption: str = "Original") -> str:
    pixels = workbench.pixels(number, face)
    picture = to_pil(pixels[None] / 255)[0]
    return markup.figure(picture, caption, f"{face.words}, as the model sees it", "original.png")


def shown_edit(workbench: Workbench, number: int, face: Face, edit: Edit) -> tuple[str, str]:
    """The face with what the sliders change, and its code.

    Raises:
        ValueError: no such face, or an edit that is not possible.
    """
    run = workbench.runs[number]
    picture = edited(workbench, number, face, edit)
    words = ", ".join(edit_words(workbench, number, edit)) or "unchanged"
    lines = code_lines.edited_face(run, face, edit, "face.png")
    return markup.figure(picture, words, f"{face.words}, {words}", "face.png", "main"), code_block(lines, "face.py")


def edited(workbench: Workbench, number: int, face: Face, edit: Edit) -> Image.Image:
    """
    Raises:
        ValueError: no such face, or an edit that is not possible.
    """
    run = workbench.runs[number]
    return run.vae.decode(moved(workbench.latents(number, face), run, edit), as_pil=True)[0]


def edit_words(workbench: Workbench, number: int, edit: Edit) -> list[str]:
    run = workbench.runs[number]
    words = [f"{latent_name(run.levels, latent)} {shift:+g}" for latent, shift in edit.shifts(run).items()]
    words += [f"{name} {strength:+g}" for name, strength in edit.attributes.items() if strength]
    finer = "" if edit.finer == "keep" else finer_words(run.levels, run.num_coarse, edit.finer, edit.seed)
    return words + ([finer.removeprefix(", ")] if finer else [])


def shown_between(
    workbench: Workbench, number: int, first: Face, second: Face, percent: object, path: object
) -> tuple[str, str]:
    """A face on the way from one to another, between both, and its code.

    Raises:
        ValueError: no such face or path, or a percentage outside 0 to 100.
    """
    run = workbench.runs[number]
    step, way = round(number_in(percent, "way in %", 0, 100)), word_of(path, "path", PATHS)
    latents = between(workbench.latents(number, first), workbench.latents(number, second), step, way, run.levels)
    picture = run.vae.decode(latents, as_pil=True)[0]
    words = f"{step} % of the {way} way"
    alternative = f"{words} from {first.words} to {second.words}"
    lines = code_lines.face_between(run, first, second, step, way, "between.png")
    return markup.figure(picture, words, alternative, "between.png", "main"), code_block(lines, "between.py")


def shown_end(workbench: Workbench, number: int, face: Face) -> str:
    """
    Raises:
        ValueError: no such face.
    """
    if face.source != Source.SAMPLE:
        return _original(workbench, number, face, face.words)
    picture = workbench.runs[number].vae.decode(workbench.latents(number, face), as_pil=True)[0]
    return markup.figure(picture, face.words, face.words, "sample.png")


def shown_runs(workbench: Workbench, face: Face, edit: Edit) -> tuple[str, str]:
    """The same face by every run, a column each, and the code of all; a run that cannot show it has the reason.

    Raises:
        ValueError: no photograph.
    """
    figures, lines = [], []
    for number, run in enumerate(workbench.runs):
        name = f"run_{number + 1}.png"
        try:
            picture = edited(workbench, number, face, edit)
            lines += [*code_lines.edited_face(run, face, edit, name), ""]
        except ValueError as error:
            figures.append(markup.empty_figure(run.label, workbench.told(error)))
            continue
        words = ", ".join([face.words, *edit_words(workbench, number, edit)])
        figures.append(markup.figure(picture, run.label, f"{words}, by {run.label}", name))
    return markup.side_by_side(figures, "runs"), code_block(lines[:-1], "runs.py")


def shown_originals(workbench: Workbench, face: Face) -> str:
    """What the runs see of a face, once for each framing; empty for a sample.

    Raises:
        ValueError: no such face in any run.
    """
    if face.source == Source.SAMPLE:
        return ""
    seen: dict[bytes, str] = {}
    reasons: Sequence[ValueError] = []
    for number in range(len(workbench.runs)):
        try:
            pixels = workbench.pixels(number, face)
        except ValueError as error:
            reasons = [*reasons, error]
            continue
        seen.setdefault(pixels.numpy().tobytes(), _original(workbench, number, face))
    if not seen:
        raise reasons[0]
    return markup.side_by_side(list(seen.values()), "originals")


def code_block(lines: Sequence[str], file_name: str) -> str:
    return markup.code(code_lines.program(lines), file_name)
