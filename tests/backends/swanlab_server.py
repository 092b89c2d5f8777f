"""Server on 127.0.0.1 that accepts what ``swanlab sync`` uploads."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers import serving

#: Fields of the responses that the client library reads.
_FIELDS = {
    "sid": "session",
    "expiredAt": "2099-01-01T00:00:00.000Z",
    "createdAt": "2026-01-01T00:00:00.000Z",
    "userInfo": {"username": "user"},
    "group": {"username": "user"},
    "_count": {"experiments": 0},
    "name": "digits",
    "path": "/user/digits",
    "cuid": "experiment",
}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = content
        if self.headers.get("Content-Type", "").startswith("application/json") and content and "/s3/" not in self.path:
            body = json.loads(content)
        self.server.uploads.append((self.path, body))  # type: ignore[attr-defined]
        files = len(body.get("paths", body.get("files", []))) if isinstance(body, dict) else 0
        urls = [f"http://{self.headers['Host']}/s3/{number}" for number in range(files)]
        answer = json.dumps({**_FIELDS, "urls": urls}).encode()
        is_creation = self.command == "POST" and self.path.endswith("/experiment")
        self.send_response(201 if is_creation else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = handle_request  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def swanlab_server() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield the address of a server, and the paths and bodies of the requests that it receives."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.uploads = []  # type: ignore[attr-defined]
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}", server.uploads  # type: ignore[attr-defined]


def sync(directory: Path, run_id: str, address: str, home: Path) -> str:
    """Upload a SwanLab run with the command line of the client library, and return its output."""
    env = {**os.environ, "HOME": str(home), "SWANLAB_API_HOST": f"{address}/api", "SWANLAB_WEB_HOST": address}
    command = [sys.executable, "-c", "from swanlab.cli import cli; cli()", "sync", "--api-key", "a" * 21]
    command += ["--id", run_id, str(directory)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
