"""The page over HTTP: what may be asked for, how large a request may be, and what a browser may load."""

import json
import os
import re
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from urllib.parse import urlsplit

# before Gradio is imported: it would ask a server for its newest version, and send figures of use
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vae_lightning.explorer.faces import ExplorerError
from vae_lightning.explorer.listening import LOOPBACK
from vae_lightning.explorer.page import STYLE, build_page, theme
from vae_lightning.explorer.photographs import MOST_BYTES
from vae_lightning.explorer.workbench import Workbench

SECONDS_TO_FINISH = 1  # on Ctrl-C; open pages hold a connection for as long as they are open
MOST_BYTES_OF_AN_EVENT = 2**17  # positions of controls
PHOTOGRAPH = "/photograph"
EVENTS = "/gradio_api/run/"
# what the page needs of Gradio; not its routes to files, uploads, proxies, documentation and monitoring
ALLOWED = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/pwa_icon(/\d+)?|/(assets|static|svelte)/[\w./-]+"
    r"|/gradio_api/(run/predict/?|heartbeat/\w+|startup-events|app_id/?|theme\.css)|" + PHOTOGRAPH
)
# Gradio's page has scripts and styles in it, and makes functions of the templates of HTML parts
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


class Gate:
    """Lets only through what the page needs.

    Args:
        app: behind it.
        names: that the page may be asked for by; empty for any. Without them a page of another site could point its
            own name at this machine, and read what is answered.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        refusal, body = refused(scope, self.names), receive
        if refusal is None and scope["path"].startswith(EVENTS):
            content = await read_body(receive)
            body = replayed(content)
            if not holds_positions(content):
                refusal = PlainTextResponse("only positions of controls", 400)
        await (refusal or self.app)(scope, body, send_guarded)


def refused(scope: Scope, names: Collection[str]) -> PlainTextResponse | None:
    path, headers = scope["path"], Headers(scope=scope)
    if names and urlsplit(f"//{headers.get('host', '')}").hostname not in names:
        return PlainTextResponse("vae explore answers by this machine's own name; say --host to let others in", 421)
    if not ALLOWED.fullmatch(path) or ".." in path:
        return PlainTextResponse("not found", 404)
    if scope["method"] not in ("GET", "HEAD"):
        length = headers.get("content-length", "")
        most = MOST_BYTES if path == PHOTOGRAPH else MOST_BYTES_OF_AN_EVENT
        if not length.isdigit() or int(length) > most:
            return PlainTextResponse(f"at most {most} bytes, with a Content-Length", 413)
    return None


async def read_body(receive: Receive) -> bytes:
    """At most MOST_BYTES_OF_AN_EVENT: the server reads no more than the Content-Length."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def replayed(content: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


def holds_positions(content: bytes) -> bool:
    """Whether an event brings words and numbers alone. Gradio would fetch what an object among them names as a file."""
    try:
        values = json.loads(content)["data"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(values, list) and not any(
        isinstance(value, dict) or (isinstance(value, list) and not all(isinstance(word, str) for word in value))
        for value in values
    )


def build_app(workbench: Workbench, names: Collection[str] = LOOPBACK) -> ASGIApp:
    """`names` as of `Gate`."""
    app = FastAPI(title="vae explore", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post(PHOTOGRAPH)
    async def receive(request: Request) -> JSONResponse:
        # a type that no form of another site can send without asking first
        if request.headers.get("content-type") != "application/octet-stream":
            return JSONResponse({"problem": "send the file itself, as application/octet-stream"}, 415)
        try:
            token = await run_in_threadpool(workbench.photographs.keep, await request.body())
        except ExplorerError as error:
            return JSONResponse({"problem": str(error)}, 400)
        return JSONResponse({"token": token})

    page = build_page(workbench)
    gr.mount_gradio_app(
        app, page, path="/", show_error=True, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, pwa=False, mcp_server=False, theme=theme(), css_paths=[STYLE],
    )  # fmt: skip
    return Gate(app, names)


class AnnouncedServer(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, app: ASGIApp, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_FINISH, server_header=False)
        )
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def serve(workbench: Workbench, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Until Ctrl-C."""
    names = LOOPBACK if listener.getsockname()[0] in LOOPBACK else ()
    with suppress(KeyboardInterrupt):
        AnnouncedServer(build_app(workbench, names), announce).run(sockets=[listener])
