"""`vae VERB RUN`: what can be done with a run after training. A verb knows the model from the run alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_lightning.edit_verbs import Folder, edit
from vae_lightning.evaluation import METRIC_NAMES
from vae_lightning.explore_verb import explore
from vae_lightning.export_verb import export
from vae_lightning.names import short_stem
from vae_lightning.prepare_verb import prepare
from vae_lightning.score_verb import score
from vae_lightning.verbs import (
    Count,
    Device,
    Photographs,
    RunOrSweep,
    RunPath,
    Seed,
    Which,
    complete_sweep,
    ends_with_one_line,
    split_by_comma,
    whole_numbers,
)

if TYPE_CHECKING:  # torch is imported inside the verbs: --help and shell completion answer at once
    from torch import Tensor

    from vae_lightning.runs import Run

COLUMNS = 8
MOST_STEPS = 1_000  # in a row of a picture

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Get data ready, and use trained runs. RUN is a run folder (outputs/…, multirun/<sweep>/beta=4), a .ckpt "
    "file, a folder that `vae export` wrote, or `last`.",
)

Out = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Where the picture goes. Default: into the run's images folder.")
]


app.command(epilog="Example: vae prepare /path/to/celeba")(prepare)
app.command(epilog="Example: vae explore last, or: vae explore multirun/beta --no-browser")(explore)
app.command(epilog="Example: vae export last exported --onnx --demo")(export)
app.add_typer(edit, name="edit")
edit.command("score", epilog="Example: vae edit score last Smiling --judge outputs/B --orthogonal-to Male")(score)


@app.command(epilog="Example: vae sample last --temperature 0.7 --seed 1")
@ends_with_one_line
def sample(
    run: RunPath,
    count: Count = 16,
    temperature: Annotated[float, typer.Option(min=0, help="Spread of the latents; 1 is the prior.")] = 1.0,
    prior: Annotated[
        str, typer.Option(help="normal, or one that `vae evaluate` fitted: gaussian, gmm, flow.")
    ] = "normal",
    seed: Seed = 0,
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Decode samples from a prior into one picture."""
    vae = _load(run, checkpoint, device)
    faces = vae.sample(count, temperature, seed, prior)
    columns = min(count, COLUMNS)
    rows = [faces[start : start + columns] for start in range(0, count, columns)]
    which = "" if prior == "normal" else f"{prior}, "
    name = f"sample_{'' if prior == 'normal' else prior + '_'}t={temperature:g}_seed={seed}"
    _write_grid(rows, [f"{which}τ = {temperature:g}"] + [""] * (len(rows) - 1), vae, out, name)


@app.command(epilog="Example: vae reconstruct last me.jpg you.png")
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
    from vae_lightning.photographs import open_photographs

    vae = _load(run, checkpoint, device)
    if photographs:
        originals = vae.preprocess(open_photographs(photographs))
        name = "_".join(["reconstruct", *map(short_stem, photographs[:3])])
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


@app.command(epilog="Example: vae traverse last me.jpg --dimensions 8,25,68")
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
    from vae_lightning.face_grids import traversal_grid
    from vae_lightning.grids import labelled_grid
    from vae_lightning.photographs import open_photographs
    from vae_lightning.pictures import write_picture
    from vae_lightning.run_folders import run_folder
    from vae_lightning.tracking import progress

    vae = _load(run, checkpoint, device)
    chosen = whole_numbers("dimensions", dimensions)
    if beyond := [number for number in chosen if not 0 <= number < vae.model.latent_dim]:
        raise ValueError(
            f"--dimensions {dimensions}: {beyond} are not among the latents 0 to {vae.model.latent_dim - 1}"
        )
    faces = vae.preprocess(open_photographs(photographs)) if photographs else vae.held_out_faces("test", count)
    with progress() as observer:
        statistics = vae.latent_statistics(observer.track)
    chosen = chosen or statistics.most_active(top)
    names = (
        [short_stem(path) for path in photographs] if photographs else [f"test_{face}" for face in range(len(faces))]
    )
    if len(set(names)) < len(names):  # of pictures in several folders
        names = [f"{number}_{name}" for number, name in enumerate(names, start=1)]
    for name, face in zip(names, faces.to(vae.device), strict=True):
        grid = traversal_grid(vae.model, face, chosen, statistics, limit, steps)
        path = (out or run_folder(vae.path) / "images") / f"traverse_{name}.png"
        write_picture(
            path, labelled_grid(grid.images, grid.row_labels, grid.column_labels, title=f"{grid.title}: {name}")
        )
        typer.echo(path)


@app.command(epilog="Example: vae interpolate last me.jpg you.png --path spherical --mp4")
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
    from vae_lightning.editing.animation import require_pyav, write_gif, write_mp4
    from vae_lightning.editing.interpolation import frames_through
    from vae_lightning.editing.interpolation import interpolate as draw
    from vae_lightning.editing_command import finish, opened

    writers = {"gif": write_gif, **({"mp4": write_mp4} if mp4 else {})}
    if mp4:
        require_pyav()  # before anything is computed
    paths = split_by_comma(path)
    settings = {"edit": "interpolate", "paths": paths, "steps": steps, "loop": loop, "frames": frames, "fps": fps}
    with opened(run, checkpoint, device) as workplace:
        subject = workplace.subject
        faces, names = workplace.faces(photographs, count)
        outcome = draw(subject, faces, names, num_steps=steps, paths=paths, loop=loop)
        moving = {each: frames_through(subject, faces, num_steps=frames, path=each, loop=loop) for each in paths}
    name = "_".join(["interpolate", *(short_stem(Path(name)) for name in names[:3])])
    folder = finish(workplace, outcome, name, out, settings)
    for each, pictures in moving.items():
        for suffix, write in writers.items():
            write(folder / f"{each}.{suffix}", pictures, fps)
            typer.echo(folder / f"{each}.{suffix}")


@app.command(epilog="Example: vae report multirun/2026-11-20_12-00-00")
@ends_with_one_line
def report(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP", help="multirun/<time>, or `last` for the newest sweep.", autocompletion=complete_sweep
        ),
    ],
) -> None:
    """Compare all runs of a sweep on one page: numbers, curves, and the same faces in every run."""
    from vae_lightning.report import write_report
    from vae_lightning.run_folders import newest_sweep

    folder = Path(sweep)
    typer.echo(write_report(newest_sweep() if sweep == "last" and not folder.exists() else folder))


@app.command(epilog="Example: vae evaluate last --split test --metrics likelihood,iwae,probes")
@ends_with_one_line
def evaluate(
    run: RunOrSweep,
    split: Annotated[str, typer.Option(help="Which images: train, val or test.")] = "test",
    metrics: Annotated[str, typer.Option(help=f"By comma, of {', '.join(METRIC_NAMES)}. Default: all.")] = "",
    samples: Annotated[int, typer.Option(min=16, help="From each prior, for FID, KID, precision and recall.")] = 10_000,
    importance_samples: Annotated[int, typer.Option(min=2, help="Latents per image for the tighter bound.")] = 64,
    reference: Annotated[
        str | None, typer.Option(help="Split that samples are compared with. Default: --split.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder with the weights of FID's and LPIPS' networks. Default: PyTorch's cache."),
    ] = None,
    checkpoint: Which = "best",
    device: Device = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once; lower it where memory is short.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all noise, resampling and fitting.")] = 0,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the card. Default: evaluation/ in the run's.")
    ] = None,
) -> None:
    """Measure how good a run is: likelihood, faces, latents, disentanglement, probes, samplers, on one card."""
    from vae_lightning.evaluation.request import Request
    from vae_lightning.evaluation_command import show_evaluation

    request = Request(
        split=split,
        metrics=tuple(split_by_comma(metrics)),
        samples=samples,
        importance_samples=importance_samples,
        reference=reference,
        weights=None if weights is None else str(weights),
        device=device,
        seed=seed,
        batch_size=batch_size,
    )
    show_evaluation(run, request, checkpoint, out)


@app.command(epilog="Example: vae bench data.root=/path/to/celeba --models conv,residual --out today.json")
@ends_with_one_line
def bench(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for train.py.")] = None,
    models: Annotated[str, typer.Option(help="Which networks, by comma.")] = "conv",
    repeats: Annotated[int, typer.Option(min=1, help="Of each measurement; medians are reported.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 10.0,
    peer: Annotated[bool, typer.Option("--peer", help="Also the best-known repository's network and loader.")] = False,
    sharing: Annotated[str, typer.Option(help="Also so many runs at once on the device: 1,2,4,8.")] = "",
    out: Annotated[Path, typer.Option(dir_okay=False, help="Where the figures go.")] = Path("bench.json"),
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing, set two such files side by side.")
    ] = None,
) -> None:
    """Images per second of every part, and how near they are to what the device can do."""
    from rich.console import Console

    from vae_lightning import bench as benchmark
    from vae_lightning.files import write_json

    console = Console()
    if compare:
        console.print(benchmark.compare(*map(benchmark.read_report, compare)))
        return
    counts = whole_numbers("sharing", sharing)
    with console.status("composing") as status:
        report = benchmark.bench(
            overrides or [],
            split_by_comma(models),
            repeats=repeats,
            seconds=seconds,
            with_peer=peer,
            sharing=counts,
            progress=lambda part: status.update(f"measuring {part}"),
        )
    write_json(out, report)
    console.print(benchmark.tables(report))
    typer.echo(out)


def _load(run: str, checkpoint: str, device: str) -> "Run":
    from vae_lightning.runs import load_run

    return load_run(run, checkpoint, device)


def _write_grid(rows: "list[Tensor]", labels: list[str], vae: "Run", out: Path | None, name: str) -> None:
    """Rows of float [0, 1] images, short last rows filled with white -> one PNG, whose place is printed."""
    import torch.nn.functional as F
    from torch import stack

    from vae_lightning.grids import labelled_grid
    from vae_lightning.pictures import write_picture
    from vae_lightning.pixels import to_uint8
    from vae_lightning.run_folders import run_folder

    columns = len(rows[0])
    filled = [F.pad(row, (0, 0, 0, 0, 0, 0, 0, columns - len(row)), value=1.0) for row in rows]
    path = out or run_folder(vae.path) / "images" / f"{name}.png"
    write_picture(path, labelled_grid(to_uint8(stack(filled), (0.0, 1.0)), labels))
    typer.echo(path)
