"""Minimal ClearML server, which records the requests of the client library."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NEW_TASK = "0" * 32


class ClearMLServer(ThreadingHTTPServer):
    """Server for one task, as API server and as server for files.

    Attributes:
        calls: Names of the called endpoints, with the body of each request.
        files: Number of uploaded files.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, Any]] = []
        self.files: list[str] = []
        self.task: dict[str, Any] = {"id": NEW_TASK, "status": "in_progress", "project": "1", "execution": {}}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a client."""
        url = f"http://127.0.0.1:{self.server_port}"
        hosts = {f"CLEARML_{kind}_HOST": url for kind in ("API", "WEB", "FILES")}
        return {**hosts, "CLEARML_API_ACCESS_KEY": "key", "CLEARML_API_SECRET_KEY": "secret"}

    def answer(self, endpoint: str, body: Any) -> dict[str, Any]:
        """Record a call.

        Args:
            endpoint: Name of the endpoint.
            body: Body of the request.

        Returns:
            The data of the response.
        """
        self.calls.append((endpoint, body))
        if endpoint == "auth.login":
            parts = ({"alg": "HS256", "typ": "JWT"}, {"exp": 4102444800, "api_version": "2.9", "server_version": "1.0"})
            encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
            return {"token": ".".join([*encoded, "c2lnbmF0dXJl"])}
        if endpoint == "tasks.edit":
            self.task |= {key: value for key, value in body.items() if key not in ("task", "force")}
        return {
            "projects.get_all": {"projects": [{"id": "1", "name": "digits"}]},
            "projects.get_by_id": {"project": {"id": "1", "name": "digits"}},
            "tasks.create": {"id": NEW_TASK},
            "tasks.get_by_id": {"task": self.task},
            "tasks.get_all": {"tasks": [self.task]},
            "tasks.edit": {"updated": 1, "fields": {}},
        }.get(endpoint, {"updated": 1, "fields": {}})


class _Handler(BaseHTTPRequestHandler):
    server: ClearMLServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        endpoint = self.path.strip("/").rpartition("/")[2]
        if "." not in endpoint or self.headers.get("Content-Type", "").startswith("multipart/"):
            self.server.files.append(body.decode("latin-1"))
            self._respond({})
            return
        lines = [json.loads(line) for line in body.decode().splitlines() if line]
        data = self.server.answer(endpoint, lines if endpoint == "events.add_batch" else (lines or [{}])[0])
        meta = {"result_code": 200, "result_subcode": 0, "result_msg": "OK", "id": "1", "trx": "1"}
        self._respond({"meta": {**meta, "endpoint": {"name": endpoint}}, "data": data})

    do_GET = do_POST  # noqa: N815

    def _respond(self, content: dict[str, Any]) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:
        pass
