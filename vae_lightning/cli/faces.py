"""The verbs that draw faces: sample, reconstruct, traverse, levels, interpolate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_lightning.cli.arguments import (
    Count,
    Device,
    Photographs,
    RunPath,
    Seed,
    Which,
    ends_with_one_line,
    split_by_comma,
    temperature_of,
    whole_numbers,
)
from vae_lightning.cli.edit import Folder
from vae_lightning.cli.places import write_new_picture
from vae_lightning.system.names import short_stem

if TYPE_CHECKING:  # torch is imported inside the verbs: --help and shell completion answer at once
    from torch import Tensor

    from vae_lightning.runs.run import Run
COLUMNS = 8
MOST_STEPS = 1_000  # in a row of a picture
MOST_NAMES = 3  # of photographs, in the name of a file
OfLatents = Annotated[
    str,
    typer.Option(
        "--temperature", help="Spread of the latents; 1 is the prior. Of a ladder also by level: 4x4=1,8x8=0.6."
    ),
]
Out = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Where the picture goes. Default: into the run's images folder.")
]


@ends_with_one_line
def sample(
    run: RunPath,
    count: Count = 16,
    temperature: OfLatents = "1",
    pixel_temperature: Annotated[
        float, typer.Option(min=0, help="Spread of each pixel; 0: its mean, 1: the model's own distribution.")
    ] = 0.0,
    prior: Annotated[
        str, typer.Option(help="normal, or one that `vae evaluate` fitted: gaussian, gmm, flow.")
    ] = "normal",
    seed: Seed = 0,
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Decode samples from a prior into one picture."""
    from vae_lightning.latents.temperature import temperature_in_words

    spread = temperature_of(temperature)
    vae = _load(run, checkpoint, device)
    faces = vae.sample(count, spread, seed, prior, pixel_temperature=pixel_temperature)
    columns = min(count, COLUMNS)
    rows = [faces[start : start + columns] for start in range(0, count, columns)]
    levels = vae.model.latent_levels
    words, names = [f"τ = {temperature_in_words(spread, levels)}"], [f"t={temperature_in_words(spread, levels, '-')}"]
    if prior != "normal":
        words, names = [f"{prior}, {words[0]}"], [prior, *names]
    if pixel_temperature:
        words, names = [*words, f"pixels {pixel_temperature:g}"], [*names, f"pixels={pixel_temperature:g}"]
    name = "_".join(["sample", *names, f"seed={seed}"])
    _write_grid(rows, ["\n".join(words)] + [""] * (len(rows) - 1), vae, out, name)


@ends_with_one_line
def reconstruct(
    run: RunPath,
    photographs: Photographs = None,
    count: Count = 8,
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Originals above their reconstructions, in one picture."""
    from vae_lightning.runs.photographs import open_photographs

    vae = _load(run, checkpoint, device)
    if photographs:
        originals = vae.preprocess(open_photographs(photographs))
        name = "_".join(["reconstruct", *_names(photographs)])
    else:
        originals = vae.held_out_faces("test", count)
        name = "reconstruct_test"
    originals_unit = originals.to(vae.device) / 255
    rows, labels = [], []
    for start in range(0, len(originals), COLUMNS):
        part = originals_unit[start : start + COLUMNS]
        rows += [part, vae.reconstruct(part)]
        labels += ["original", "reconstruction"]
    _write_grid(rows, labels, vae, out, name)


@ends_with_one_line
def traverse(
    run: RunPath,
    photographs: Photographs = None,
    dimensions: Annotated[str, typer.Option(help="Which latents, by comma. Default: the most active ones.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many of the most active ones.")] = 8,
    limit: Annotated[float, typer.Option("--range", min=0.01, help="From minus this to this.")] = 3.0,
    steps: Annotated[int, typer.Option(min=2, max=MOST_STEPS, help="Values of each latent.")] = 9,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many test faces, a picture each.")] = 1,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the pictures. Default: the run's images folder.")
    ] = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """One face, and in each row one latent set to values from -3 to 3."""
    from vae_lightning.models.levels import num_coarse_latents
    from vae_lightning.pictures.face_grids import traversal_grid
    from vae_lightning.pictures.grids import labelled_grid
    from vae_lightning.runs.layout import IMAGES, results_folder
    from vae_lightning.runs.photographs import open_photographs
    from vae_lightning.system.progress import progress

    vae = _load(run, checkpoint, device)
    chosen = whole_numbers("dimensions", dimensions)
    if beyond := [number for number in chosen if not 0 <= number < vae.model.latent_dim]:
        raise ValueError(
            f"--dimensions {dimensions}: {beyond} are not among the latents 0 to {vae.model.latent_dim - 1}"
        )
    faces = vae.preprocess(open_photographs(photographs)) if photographs else vae.held_out_faces("test", count)
    with progress() as observer:
        statistics = vae.latent_statistics(observer.track)
    chosen = chosen or statistics.most_active(top, num_coarse_latents(vae.model.latent_levels))
    names = (
        [short_stem(path) for path in photographs] if photographs else [f"test_{face}" for face in range(len(faces))]
    )
    if len(set(names)) < len(names):  # of pictures in several folders
        names = [f"{number}_{name}" for number, name in enumerate(names, start=1)]
    for name, face in zip(names, faces.to(vae.device), strict=True):
        grid = traversal_grid(vae.model, face, chosen, statistics, limit, steps)
        path = (out or results_folder(vae.path, IMAGES)) / f"traverse_{name}.png"
        picture = labelled_grid(grid.images, grid.row_labels, grid.column_labels, title=f"{grid.title}: {name}")
        typer.echo(write_new_picture(path, picture))


@ends_with_one_line
def levels(
    run: RunPath,
    photographs: Photographs = None,
    split: Annotated[Literal["val", "test"], typer.Option(help="Whose faces.")] = "test",
    count: Count = 4,
    draws: Annotated[int, typer.Option(min=1, help="Of the finer levels, for each face.")] = 2,
    temperature: OfLatents = "1",
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Which level of a ladder holds what: coarse levels kept, finer ones drawn anew, row by row."""
    from vae_lightning.pictures.face_grids import check_has_levels, levels_grid
    from vae_lightning.pictures.grids import labelled_grid
    from vae_lightning.runs.layout import IMAGES, results_folder
    from vae_lightning.runs.photographs import open_photographs

    spread = temperature_of(temperature)
    vae = _load(run, checkpoint, device)
    check_has_levels(vae.model)
    faces = vae.preprocess(open_photographs(photographs)) if photographs else vae.held_out_faces(split, count)
    grid = levels_grid(vae.model, faces.to(vae.device), draws, spread)
    name = "_".join(["levels", *_names(photographs)] if photographs else ["levels", split])
    path = out or results_folder(vae.path, IMAGES) / f"{name}.png"
    typer.echo(write_new_picture(path, labelled_grid(grid.images, grid.row_labels, grid.column_labels, grid.title)))


@ends_with_one_line
def interpolate(
    run: RunPath,
    photographs: Photographs = None,
    path: Annotated[str, typer.Option(help="linear, spherical, or both by comma.")] = "linear,spherical",
    steps: Annotated[int, typer.Option(min=2, max=MOST_STEPS, help="Pictures on each way, in the grid.")] = 9,
    loop: Annotated[bool, typer.Option("--loop", help="Back to the first at the end.")] = False,
    frames: Annotated[int, typer.Option(min=2, max=10_000, help="Of the animation, on each way.")] = 24,
    fps: Annotated[float, typer.Option(min=0.1, max=50, help="Frames per second.")] = 12.0,
    mp4: Annotated[bool, typer.Option("--mp4", help="Also as MP4; needs the extra `video`.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=2, help="How many test faces as key frames.")] = 4,
    out: Folder = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Faces that turn into each other: a grid, and an animation through all of them."""
    from vae_lightning.cli.workplace import finish, opened
    from vae_lightning.editing.animation import require_pyav, write_gif, write_mp4
    from vae_lightning.editing.interpolation import frames_through
    from vae_lightning.editing.interpolation import interpolate as draw

    writers = {"gif": write_gif, **({"mp4": write_mp4} if mp4 else {})}
    if mp4:
        require_pyav()  # before anything is computed
    paths = split_by_comma(path)
    settings = {"edit": "interpolate", "paths": paths, "steps": steps, "loop": loop, "frames": frames, "fps": fps}
    settings["photographs"] = [*map(str, photographs or [])]
    animations = [f"{each}.{suffix}" for each in paths for suffix in writers]
    with opened(run, checkpoint, device, out=out) as workplace:
        subject = workplace.subject
        faces, names = workplace.faces(photographs, count)
        outcome = draw(subject, faces, names, num_steps=steps, paths=paths, loop=loop)
        moving = {each: frames_through(subject, faces, num_steps=frames, path=each, loop=loop) for each in paths}
    name = "_".join(["interpolate", *(short_stem(Path(name)) for name in names[:MOST_NAMES])])
    folder = finish(workplace, outcome, name, out, settings, also=animations)
    for each, pictures in moving.items():
        for suffix, write in writers.items():
            write(folder / f"{each}.{suffix}", pictures, fps)
            typer.echo(folder / f"{each}.{suffix}")


def _names(photographs: list[Path]) -> list[str]:
    rest = len(photographs) - MOST_NAMES
    return [*map(short_stem, photographs[:MOST_NAMES]), *([f"and_{rest}_more"] if rest > 0 else [])]


def _load(run: str, checkpoint: str, device: str) -> "Run":
    from vae_lightning.runs.load import load_run

    return load_run(run, checkpoint, device)


def _write_grid(rows: "list[Tensor]", labels: list[str], vae: "Run", out: Path | None, name: str) -> None:
    """Rows of float [0, 1] images, short last rows filled with white -> one PNG, whose place is printed."""
    import torch.nn.functional as F
    from torch import stack

    from vae_lightning.models.pixels import to_uint8
    from vae_lightning.pictures.grids import labelled_grid
    from vae_lightning.runs.layout import IMAGES, results_folder

    columns = len(rows[0])
    filled = [F.pad(row, (0, 0, 0, 0, 0, 0, 0, columns - len(row)), value=1.0) for row in rows]
    path = out or results_folder(vae.path, IMAGES) / f"{name}.png"
    typer.echo(write_new_picture(path, labelled_grid(to_uint8(stack(filled), (0.0, 1.0)), labels)))
