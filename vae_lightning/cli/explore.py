"""`vae explore`: a page in the browser on which trained runs can be tried with sliders."""

from typing import Annotated

import typer

from vae_lightning.cli.arguments import Device, RunOrSweep, Which, ends_with_one_line
from vae_lightning.system.extras import check_extra


@ends_with_one_line
def explore(
    run: RunOrSweep,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: 7860, or the next free one.", show_default=False)
    ] = None,
    browser: Annotated[bool, typer.Option("--open/--no-browser", help="Open the page in a browser.")] = True,
    fit: Annotated[
        bool,
        typer.Option("--fit/--no-fit", help="Fit missing attribute directions, and keep them with the run."),
    ] = True,
    checkpoint: Which = "best",
    device: Device = "auto",
) -> None:
    """Samples, reconstructions, edits, interpolations, and the runs of a sweep side by side, with sliders."""
    check_extra("explore", "vae explore", "gradio")
    import webbrowser

    from vae_lightning.explorer.listening import is_for_this_machine, open_socket

    listener = open_socket(host, port)  # before anything is loaded
    with listener:
        shared = not is_for_this_machine(listener.getsockname()[0])
        if shared:
            words = f"--host {host}: everybody who reaches this machine can open the page, without a password"
            typer.secho(words, fg="yellow", err=True)
        from vae_lightning.explorer.opening import open_workbench
        from vae_lightning.explorer.server import serve

        workbench = open_workbench(run, checkpoint, device, fits=fit, shared=shared)
        address = address_for_browsers(host, listener.getsockname()[1])

        def announce() -> None:
            typer.echo(f"{workbench.name}: {address} (Ctrl-C ends it)")
            if browser:
                webbrowser.open(address)

        serve(workbench, listener, announce)


def address_for_browsers(host: str, port: int) -> str:
    """The address of the page on this machine, also if the server listens at all addresses."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}/" if ":" in here else f"http://{here}:{port}/"
