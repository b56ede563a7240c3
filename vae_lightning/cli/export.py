"""`vae export`: writes a run as a folder that other people and programs can use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_lightning.cli.arguments import RunPath, Which, ends_with_one_line
from vae_lightning.system.terminal import command

if TYPE_CHECKING:  # torch is imported inside the verb: --help and shell completion answer at once
    from vae_lightning.export import Exported
    from vae_lightning.export.hub import HubPlace


@ends_with_one_line
def export(
    run: RunPath,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; a folder that is made anew.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also encoder and decoder as ONNX; needs the extra `export`.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Also a page that runs the decoder in a browser; needs the extra `export`.")
    ] = False,
    browser_runtime: Annotated[
        Path | None, typer.Option(help="Of --demo: folder with the files of onnxruntime-web. Default: npm brings them.")
    ] = None,
    push: Annotated[
        str,
        typer.Option(metavar="OWNER/NAME", help="Then upload it to the Hugging Face Hub; needs the extra `export`."),
    ] = "",
    public: Annotated[
        bool, typer.Option("--public", help="Of --push: for everybody to see. Default: private.")
    ] = False,
    checkpoint: Which = "best",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in DIR, with all that lies there.")
    ] = False,
) -> None:
    """Write weights, settings, fitted priors and directions, and a card, into a folder that every verb takes as RUN."""
    from vae_lightning.export import export_run, hub

    if public and not push:
        raise ValueError("--public goes with --push OWNER/NAME")
    if browser_runtime is not None and not demo:
        raise ValueError("--browser-runtime goes with --demo")
    place = hub.check_access(push, public) if push else None  # before anything is computed
    exported = export_run(
        run,
        folder,
        checkpoint=checkpoint,
        onnx=onnx,
        demo=demo,
        browser_runtime=browser_runtime,
        overwrite=overwrite,
        hub_name=push or None,
    )
    _show(exported, run, folder)
    if place is not None:
        _announce(exported, place)
        typer.echo(hub.push(exported.folder, place))


def _show(exported: "Exported", run: str, folder: Path) -> None:
    """Prints the files with their sizes, what was copied and what is missing, and what to do next."""
    width = max(map(len, exported.files))
    for name, size in exported.files.items():
        typer.echo(f"{name:<{width}}  {format_bytes(size):>8}")
    for file in exported.onnx:
        typer.echo(f"{file.name}: opset {file.opset}, at most {file.largest_difference:.1g} from PyTorch")
    typer.echo(f"Included: {exported.carried.in_words()}.")
    for step in exported.carried.missing(run):
        typer.echo(f"Not included: {step}")
    typer.echo(f'\nPython:   from vae_lightning import load_run; vae = load_run("{folder}")')
    typer.echo(f"Explore:  {command(f'vae explore {folder}')}")
    demo = folder / "demo"
    if any(name.startswith("demo/") for name in exported.files):
        typer.echo(f"Browser:  {command(f'python -m http.server --directory {demo}')}")


def _announce(exported: "Exported", place: "HubPlace") -> None:
    from vae_lightning.data.sources.resolution import data_sources

    total = format_bytes(sum(exported.files.values()))
    seen_by = "everybody sees it" if place.is_public else "private"
    typer.echo(f"\nUploading {len(exported.files)} files ({total}) to {place.name}, {seen_by}.")
    reminder = data_sources()[exported.source].licence
    if reminder:
        typer.echo(reminder)


def format_bytes(size: int) -> str:
    """`1.2 MB`, `34.5 kB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
