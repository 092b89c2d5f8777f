"""Minimal W&B server, which records what ``wandb sync`` uploads."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PROJECT = {"id": "cA==", "name": "p", "entity": {"id": "ZQ==", "name": "team"}}
_BUCKET = {
    "id": "cg==",
    "name": "run",
    "displayName": "run",
    "project": _PROJECT,
    "historyLineCount": 0,
    "config": "{}",
}
_ARTIFACT = {"id": "YQ==", "digest": "", "state": "COMMITTED", "aliases": [], "artifactSequence": {"id": "cw=="}}
_VIEWER = {"id": "dg==", "entity": "team", "username": "user", "email": "", "flags": "{}", "teams": {"edges": []}}
_RESPONSES: dict[str, dict[str, Any]] = {
    "viewer": {"viewer": _VIEWER},
    "serverInfo": {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.0.0"}, "latestLocalVersionInfo": None}},
    "upsertBucket": {"upsertBucket": {"bucket": _BUCKET, "inserted": True}},
    "createArtifact": {"createArtifact": {"artifact": _ARTIFACT}},
    "createRunFiles": {"createRunFiles": {"runID": "cg==", "uploadHeaders": [], "files": []}},
}


class WandbServer(ThreadingHTTPServer):
    """Server for one run.

    Attributes:
        rows: Uploaded rows of the history.
        operations: Names of the called GraphQL operations.
        variables: Variables of these operations.
        exit_code: Uploaded exit code. None before the end of the run.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows: list[dict[str, Any]] = []
        self.operations: list[str] = []
        self.variables: list[dict[str, Any]] = []
        self.exit_code: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a client."""
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": "0" * 40}

    def answer(self, path: str, body: Any) -> dict[str, Any]:
        """Record an upload or a query.

        Args:
            path: Path of the request.
            body: Decoded body of the request.

        Returns:
            The response.
        """
        if path.endswith("/file_stream"):
            for name, chunk in (body.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    self.rows += [json.loads(line) for line in chunk["content"]]
            self.exit_code = body.get("exitcode", self.exit_code)
            return {}
        query = body.get("query", "")
        names = [name for name in _RESPONSES if re.search(rf"\b{name}\b", query)]
        self.operations.append(query.split("(")[0].strip())
        self.variables.append(body.get("variables") or {})
        return {"data": _RESPONSES[names[-1]] if names else {}}


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        response = self.server.answer(self.path, json.loads(body or b"{}"))
        encoded = json.dumps(response).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:
        pass
