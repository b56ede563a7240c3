"""The command `vae VERB RUN`. A verb needs only the run: its checkpoint describes the model."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from vae_lightning.cli.arguments import (
    Device,
    RunOrSweep,
    Verbs,
    Which,
    complete_override,
    complete_sweep,
    ends_with_one_line,
    example,
    split_by_comma,
    whole_numbers,
)
from vae_lightning.cli.edit import edit
from vae_lightning.cli.explore import explore
from vae_lightning.cli.export import export
from vae_lightning.cli.faces import interpolate, levels, reconstruct, sample, traverse
from vae_lightning.cli.places import new_file
from vae_lightning.cli.prepare import prepare
from vae_lightning.cli.score import score
from vae_lightning.evaluation import METRIC_NAMES

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Get data ready, train, and use trained runs. RUN is a run folder (outputs/…, multirun/<sweep>/beta=4), "
    "a .ckpt file, a folder that `vae export` wrote, or `last`.",
)


@app.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, epilog=example("vae train -m beta=1,4,10")
)
def train(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", autocompletion=complete_override)
    ] = None,
) -> None:
    """Train a run, or with -m a sweep, as `python train.py` does; `vae train --help` lists what can be set."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback
    from vae_lightning.launch.train import start
    from vae_lightning.system.repository import REPOSITORY

    sys.argv[0] = str(REPOSITORY / "train.py")  # which Lightning starts its other processes with
    sys.exit(start(arguments or []))


app.command(epilog=example("vae prepare /path/to/celeba"))(prepare)
app.command(epilog=example("vae reconstruct last me.jpg you.png"))(reconstruct)
app.command(epilog=example("vae sample last --temperature 0.7 --seed 1"))(sample)
app.command(epilog=example("vae interpolate last me.jpg you.png --path spherical --mp4"))(interpolate)
app.command(epilog=example("vae traverse last me.jpg --dimensions 8,25,68"))(traverse)
app.command(epilog=example("vae levels last me.jpg --temperature 0.7"))(levels)
app.command(epilog=example("vae explore multirun/beta --no-browser"))(explore)
app.command(epilog=example("vae export last exported --onnx --demo"))(export)
app.add_typer(edit, name="edit")
edit.command("score", epilog=example("vae edit score last Smiling --judge outputs/B --orthogonal-to Male"))(score)


@app.command(epilog=example("vae report multirun/2026-11-20_12-00-00"))
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
    from vae_lightning.runs.layout import newest_sweep

    folder = Path(sweep)
    typer.echo(write_report(newest_sweep() if sweep == "last" and not folder.exists() else folder))


@app.command(epilog=example("vae evaluate last --split test --metrics likelihood,iwae,probes"))
@ends_with_one_line
def evaluate(
    run: RunOrSweep,
    split: Annotated[str, typer.Option(help="Which images: train, val or test.")] = "test",
    metrics: Annotated[str, typer.Option(help=f"By comma, of {', '.join(METRIC_NAMES)}. Default: all.")] = "",
    levels: Annotated[
        str,
        typer.Option(
            help="Of a ladder: its coarsest levels by comma, for priors, probes and disentanglement. "
            "Default: as many as have at most 1,024 latents."
        ),
    ] = "",
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
    from vae_lightning.cli.evaluate import show_evaluation
    from vae_lightning.evaluation.request import Request

    request = Request(
        split=split,
        metrics=tuple(split_by_comma(metrics)),
        levels=tuple(split_by_comma(levels)),
        samples=samples,
        importance_samples=importance_samples,
        reference=reference,
        weights=None if weights is None else str(weights),
        device=device,
        seed=seed,
        batch_size=batch_size,
    )
    show_evaluation(run, request, checkpoint, out)


@app.command(epilog=example("vae bench data.root=/path/to/celeba --models conv,residual --out today.json"))
@ends_with_one_line
def bench(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for train.py.")] = None,
    models: Annotated[str, typer.Option(help="Which networks, by comma.")] = "conv",
    repeats: Annotated[int, typer.Option(min=1, help="Of each measurement; medians are reported.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 10.0,
    peer: Annotated[bool, typer.Option("--peer", help="Also the best-known repository's network and loader.")] = False,
    sharing: Annotated[str, typer.Option(help="Also so many runs at once on the device: 1,2,4,8.")] = "",
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Where the figures go. Default: bench.json here.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Measure nothing, set two such files side by side.")
    ] = None,
) -> None:
    """Images per second of every part, and how near they are to what the device can do."""
    from rich.console import Console

    from vae_lightning.cli import bench as benchmark
    from vae_lightning.system.whole_files import write_json

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
    place = out or new_file(Path("bench.json"))
    write_json(place, report)
    console.print(benchmark.tables(report))
    typer.echo(place)
