"""As much of a model hub as an upload needs, on this machine."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = "somebody"
ORGANISATION = "laboratory"
TOKEN = "hf_stand_in"


@dataclass
class StandInHub:
    """What a hub knows; tests change and read it."""

    role: str = "write"  # of TOKEN
    may_create: bool = True
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> private, files
    requests: list[str] = field(default_factory=list)
    address: str = ""


class HubServer(ThreadingHTTPServer):
    def __init__(self, hub: StandInHub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    @property
    def hub(self) -> StandInHub:
        assert isinstance(self.server, HubServer)
        return self.server.hub

    def log_message(self, format: str, *arguments: Any) -> None:
        self.hub.requests.append(format % arguments)

    def answer(self, content: Any, status: int = 200, code: str = "") -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def is_known(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self.answer({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        if not self.is_known():
            return
        if self.path == "/api/whoami-v2":
            access = {"accessToken": {"role": self.hub.role}}
            self.answer({"name": OWNER, "orgs": [{"name": ORGANISATION}], "auth": access})
            return
        named = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(/revision/main)?(\?.*)?", self.path)
        if named and named[1] in self.hub.repositories:
            self.answer({"id": named[1], "private": self.hub.repositories[named[1]]["private"]})
        else:
            self.answer({"error": "Repository not found"}, 404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_known():
            return
        if self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [{"uploadMode": "regular", "shouldIgnore": False}]
            self.answer({"files": [{"path": file["path"], **modes[0]} for file in json.loads(body)["files"]]})
        else:
            self.commit(self.path.removeprefix("/api/models/").partition("/commit/")[0], body)

    def create(self, wanted: dict[str, Any]) -> None:
        if not self.hub.may_create:
            self.answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return
        name = f"{wanted.get('organization') or OWNER}/{wanted['name']}"
        is_private = wanted.get("private", wanted.get("visibility") == "private")
        self.hub.repositories[name] = {"private": is_private, "commits": []}
        self.answer({"url": f"{self.hub.address}/{name}", "name": name})

    def commit(self, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        self.hub.repositories[name]["commits"].append(files)
        url = f"{self.hub.address}/{name}/commit/1"
        self.answer({"commitUrl": url, "commitOid": "1", "pullRequestUrl": None})


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Answers while the block runs."""
    hub = StandInHub()
    with HubServer(hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
