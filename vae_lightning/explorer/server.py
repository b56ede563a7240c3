"""Serves the page over HTTP."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

# before Gradio is imported: it would ask a server for its newest version, and send figures of use
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from vae_lightning.explorer.gate import PHOTOGRAPH, Gate
from vae_lightning.explorer.listening import LOOPBACK, is_for_this_machine
from vae_lightning.explorer.page import STYLE, build_page, theme
from vae_lightning.explorer.workbench import Workbench

SECONDS_TO_FINISH = 1  # on Ctrl-C
SECONDS_TO_ASK = 30  # at most, and half of it at least
MOST_CONNECTIONS = 512  # a page and its pictures hold up to seven


def build_app(workbench: Workbench, names: Collection[str] = LOOPBACK) -> ASGIApp:
    """`names` as of `Gate`."""
    app = FastAPI(title="vae explore", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(PHOTOGRAPH)
    async def receive(request: Request) -> JSONResponse:
        # a type that no form of another site can send without asking first
        if request.headers.get("content-type") != "application/octet-stream":
            return JSONResponse({"problem": "send the file itself, as application/octet-stream"}, 415)
        sender = request.client.host if request.client else ""
        try:
            token = await run_in_threadpool(workbench.photographs.keep, await request.body(), sender)
        except ValueError as error:
            return JSONResponse({"problem": str(error)}, 400)
        return JSONResponse({"token": token})

    page = build_page(workbench)
    gr.mount_gradio_app(
        app, page, path="/", show_error=False, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, pwa=False, mcp_server=False, theme=theme(), css_paths=[STYLE],
    )  # fmt: skip
    return Gate(app, names, {number: len(each.inputs) for number, each in page.fns.items()})


class ImpatientProtocol(H11Protocol):
    """Closes a connection that sends no whole request for SECONDS_TO_ASK; uvicorn alone would wait for ever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._last_seen: object = self  # no request
        self._next_look = self.loop.call_later(SECONDS_TO_ASK / 2, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self.cycle is self._last_seen:
            self.transport.abort()
            return
        self._last_seen = self.cycle if is_answered else self
        self._next_look = self.loop.call_later(SECONDS_TO_ASK / 2, self._look)


class AnnouncedServer(uvicorn.Server):
    """Calls `announce` as soon as it answers."""

    def __init__(self, app: ASGIApp, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ImpatientProtocol,
                log_level="warning",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=SECONDS_TO_FINISH,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._announce = announce

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends it; a second one, while the program ends, would print a traceback."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: setattr(self, "should_exit", True))
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):  # each open page holds one
            connection.transport.abort()
        await super().shutdown(sockets)


def serve(workbench: Workbench, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serves until Ctrl-C or SIGTERM; afterwards the program has to end."""
    address = listener.getsockname()[0]
    names = (*LOOPBACK, address) if is_for_this_machine(address) else ()
    AnnouncedServer(build_app(workbench, names), announce).run(sockets=[listener])
