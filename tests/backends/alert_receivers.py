"""Servers that record alerts: a webhook and a mail server."""

from __future__ import annotations

import email
import email.policy
import http.server
import json
import socketserver
from typing import Any


class Webhook(http.server.ThreadingHTTPServer):
    """Web server that records the JSON documents that apprise posts.

    Args:
        port: Port on 127.0.0.1. Defaults to a free port.

    Attributes:
        alerts: Received alerts.
        status: Status of the responses.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _WebhookHandler)
        self.alerts: list[dict[str, Any]] = []
        self.status = 200

    @property
    def url(self) -> str:
        """URL of apprise, with a token."""
        return f"json://127.0.0.1:{self.server_port}/SECRETTOKEN"

    @property
    def titles(self) -> list[str]:
        """Titles of the received alerts."""
        return [alert["title"] for alert in self.alerts]


class _WebhookHandler(http.server.BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 200:
            self.server.alerts.append(alert)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """SMTP server that records messages.

    Attributes:
        mails: Received mails.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.mails: list[email.message.EmailMessage] = []

    @property
    def url(self) -> str:
        """URL of apprise."""
        return f"mailto://127.0.0.1:{self.server_address[1]}?from=run@example.com&to=me@example.com"


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._answer(b"220 ready")
        for line in self.rfile:
            command = line[:4].upper()
            if command == b"DATA":
                self._answer(b"354 continue")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(email.message_from_bytes(content, policy=email.policy.default))
            self._answer(b"221 closing" if command == b"QUIT" else b"250 ok")
            if command == b"QUIT":
                return

    def _answer(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")
