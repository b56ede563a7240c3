"""Checks every request before Gradio sees it: its host, origin, path and size, and how many are under way."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from vae_lightning.explorer.photographs import MOST_BYTES

PHOTOGRAPH = "/photograph"
EVENTS = "/gradio_api/run/"
OPEN_PAGES = "/gradio_api/heartbeat/"  # each open page holds one
# what the page needs of Gradio; not its routes to files, uploads, proxies, documentation and monitoring
ALLOWED = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/pwa_icon(/\d{1,4})?|/(assets|static|svelte)/[\w./-]{1,200}"
    r"|/gradio_api/(run/predict/?|heartbeat/\w{1,32}|startup-events|app_id/?|theme\.css)|" + PHOTOGRAPH,
    re.ASCII,
)
MOST_BYTES_OF_AN_EVENT = 2**17  # positions of controls
SECONDS_TO_SEND = 30  # a body, from its first byte to its last
AT_ONCE = {PHOTOGRAPH: 16, EVENTS: 128, OPEN_PAGES: 256}  # requests under way; beyond, the server says it is busy
WORKED_ON = {PHOTOGRAPH: 2, EVENTS: 4}  # of those; a photograph of 40 million pixels takes 300 MB while it is decoded
SECONDS_UNTIL_AGAIN = 2
# Gradio's page has scripts and styles in it, and makes functions of the templates of HTML parts
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
GUARDS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class DisconnectedError(Exception):
    """The client closed the connection."""


class Gate:
    """Lets through only what the page needs.

    Args:
        app: behind it.
        names: host names under which the page answers; empty for any. Without them a page of another site could point
            its own name at this machine and read the answers. Starlette's TrustedHostMiddleware would do the same, but
            its refusal does not say what to do.
        num_values: number of an event's function -> how many values it takes.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], num_values: Mapping[int, int]) -> None:
        self.app = app
        self.names = names
        self.num_values = num_values
        self._under_way: Counter[str] = Counter()
        self._worked_on = {kind: asyncio.Semaphore(most) for kind, most in WORKED_ON.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kind, guarded = kind_of(scope["path"]), guarding(send)
        refusal = refused(scope, self.names) or self._busy(kind)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        self._under_way[kind] += 1
        try:
            await self._let_through(kind, trusted(scope, self.names), receive, guarded)
        except (DisconnectedError, asyncio.CancelledError):  # the latter when the server ends, which closes connections
            return
        finally:
            self._under_way[kind] -= 1

    def _busy(self, kind: str) -> Response | None:
        if self._under_way[kind] < AT_ONCE.get(kind, self._under_way[kind] + 1):
            return None
        words = "too many ask at once: try again in some seconds"
        return JSONResponse({"error": words, "problem": words}, 503, {"Retry-After": str(SECONDS_UNTIL_AGAIN)})

    async def _let_through(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SECONDS_TO_SEND):
                sent = await read_body(receive)
        except TimeoutError:
            refusal = PlainTextResponse(f"nothing whole in {SECONDS_TO_SEND} s", 408, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        content = plain_event(sent, self.num_values) if kind == EVENTS else sent
        if content is None:
            await PlainTextResponse("only positions of controls", 400)(scope, receive, send)
            return
        headers = Headers(scope=scope).mutablecopy()
        headers["Content-Length"] = str(len(content))
        async with self._worked_on[kind]:
            await self.app({**scope, "headers": headers.raw}, replayed(content, receive), send)


def kind_of(path: str) -> str:
    """The kind of request, of which only AT_ONCE may be under way; empty for all others."""
    return next((kind for kind in AT_ONCE if path.startswith(kind)), "")


def guarding(send: Send) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(GUARDS)
        await send(message)

    return send_guarded


def refused(scope: Scope, names: Collection[str]) -> Response | None:
    path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
    host = headers.get("host", "")
    if names and name_in(host) not in names:
        return PlainTextResponse("vae explore answers by this machine's own name; say --host to let others in", 421)
    if any(origin.partition("://")[2].lower() != host.lower() for origin in headers.getlist("origin")):
        return PlainTextResponse("pages of other sites get nothing", 403)
    if not ALLOWED.fullmatch(path) or ".." in path:
        return PlainTextResponse("not found", 404)
    takes = ("POST",) if path == PHOTOGRAPH or path.startswith(EVENTS) else ("GET", "HEAD")
    if method not in takes:
        return PlainTextResponse(f"only {' and '.join(takes)}", 405, {"Allow": ", ".join(takes)})
    if method == "POST":
        most = MOST_BYTES if path == PHOTOGRAPH else MOST_BYTES_OF_AN_EVENT
        length = headers.get("content-length", "")
        # the length does not count where a transfer encoding is said, too
        if "transfer-encoding" in headers or not re.fullmatch("[0-9]{1,9}", length) or int(length) > most:
            return PlainTextResponse(f"at most {most} bytes, with a Content-Length", 413)
    return None


def name_in(host: str) -> str:
    """The host's name without the port; empty where the header is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def trusted(scope: Scope, names: Collection[str]) -> Scope:
    """Removes what the page never sends and Gradio would obey.

    That is a query, which names stored states, and, on a page for this machine alone, the headers of a proxy.
    """
    forwarded = (b"forwarded", b"x-forwarded-")
    headers = [(name, value) for name, value in scope["headers"] if not (names and name.startswith(forwarded))]
    return {**scope, "query_string": b"", "headers": headers}


async def read_body(receive: Receive) -> bytes:
    """The whole body; the server reads no more than the Content-Length.

    Raises:
        DisconnectedError: a part of it did not come.
    """
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def replayed(content: bytes, receive: Receive) -> Receive:
    """Gives the content, and then what the client sends: that it has disconnected."""
    parts: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive_again() -> Message:
        return parts.pop() if parts else await receive()

    return receive_again


def plain_event(content: bytes, num_values: Mapping[int, int]) -> bytes | None:
    """The event with nothing but the fields that are needed; None where they are missing or of another kind.

    Values are words, numbers and lists of words, because Gradio fetches the file that an object names.
    """
    try:
        event = json.loads(content)
        values, number, session = event["data"], event["fn_index"], event["session_hash"]
        known = type(number) is int and isinstance(values, list) and num_values.get(number) == len(values)
        if not known or not all(map(is_plain, values)) or not re.fullmatch("[A-Za-z0-9]{1,32}", session):
            return None
        plain = {"data": values, "fn_index": number, "session_hash": session}
        return json.dumps(plain, ensure_ascii=False).encode()  # which refuses half characters
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def is_plain(value: object) -> bool:
    words = value if isinstance(value, list) else []
    return not isinstance(value, dict) and all(isinstance(word, str) for word in words)
