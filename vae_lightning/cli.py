"""`vae VERB RUN`: what can be done with a run after training. A verb knows the model from the run alone."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from vae_lightning.evaluation import METRIC_NAMES

if TYPE_CHECKING:  # torch is imported inside the verbs: --help and shell completion answer at once
    from torch import Tensor

    from vae_lightning.runs import Run

P = ParamSpec("P")
COLUMNS = 8

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Use a trained run. RUN is a run folder (outputs/…, multirun/<sweep>/beta=4), a .ckpt file, or `last`.",
)

RunPath = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, .ckpt file, or `last` for the newest run.")]
Which = Annotated[
    str, typer.Option("--checkpoint", help="Which checkpoint of the folder: best, last, or a .ckpt file.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, …")]
Out = Annotated[Path | None, typer.Option(help="Where the picture goes. Default: into the run's images folder.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, help="How many faces.")]


def ends_with_one_line(verb: Callable[P, None]) -> Callable[P, None]:
    """Errors that a person can mend end the program with their message, without a traceback."""

    @wraps(verb)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.secho(str(error), fg="red", err=True)
            raise typer.Exit(2) from error

    return guarded


@app.callback()
def verbs() -> None:
    """Keeps typer from taking a single verb for the whole program."""


@app.command(epilog="Example: vae sample last --temperature 0.7 --seed 1")
@ends_with_one_line
def sample(
    run: RunPath,
    count: Count = 16,
    temperature: Annotated[float, typer.Option(min=0, help="Spread of the latents; 1 is the prior.")] = 1.0,
    prior: Annotated[
        str, typer.Option(help="normal, or one that `vae evaluate` fitted: gaussian, gmm, flow.")
    ] = "normal",
    seed: Annotated[int, typer.Option(help="The same seed gives the same faces.")] = 0,
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "cpu",
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
    photographs: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Your own pictures. Default: test faces.")
    ] = None,
    count: Count = 8,
    out: Out = None,
    checkpoint: Which = "best",
    device: Device = "cpu",
) -> None:
    """Originals above their reconstructions, in one picture."""
    from PIL import Image

    vae = _load(run, checkpoint, device)
    if photographs:
        originals = vae.preprocess([Image.open(path) for path in photographs])
        name = "reconstruct_" + "_".join(path.stem for path in photographs[:3])
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


@app.command(epilog="Example: vae report multirun/2026-11-20_12-00-00")
@ends_with_one_line
def report(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="multirun/<time>, or `last` for the newest sweep.")],
) -> None:
    """Compare all runs of a sweep on one page: numbers, curves, and the same faces in every run."""
    from vae_lightning.report import write_report
    from vae_lightning.run_folders import newest_sweep

    folder = Path(sweep)
    typer.echo(write_report(newest_sweep() if sweep == "last" and not folder.exists() else folder))


@app.command(epilog="Example: vae evaluate last --split test --metrics likelihood,iwae,probes")
@ends_with_one_line
def evaluate(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN|SWEEP", help="Run folder, .ckpt file, `last`, or a sweep's folder: all its runs."),
    ],
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, …")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once; lower it where memory is short.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all noise, resampling and fitting.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the card. Default: evaluation/ in the run's.")] = None,
) -> None:
    """Measure how good a run is: likelihood, faces, latents, disentanglement, probes, samplers, on one card."""
    from vae_lightning.evaluation.request import Request
    from vae_lightning.evaluation_command import show_evaluation

    request = Request(
        split=split,
        metrics=tuple(name for name in metrics.split(",") if name),
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
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("bench.json"),
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing, set two such files side by side.")
    ] = None,
) -> None:
    """Images per second of every part, and how near they are to what the device can do."""
    import json

    from rich.console import Console

    from vae_lightning import bench as benchmark
    from vae_lightning.files import write_json

    console = Console()
    if compare:
        console.print(benchmark.compare(*(json.loads(path.read_text(encoding="utf-8")) for path in compare)))
        return
    with console.status("composing") as status:
        report = benchmark.bench(
            overrides or [],
            models.split(","),
            repeats=repeats,
            seconds=seconds,
            with_peer=peer,
            sharing=[int(count) for count in sharing.split(",") if count],
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
