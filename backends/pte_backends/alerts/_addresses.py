"""Addresses of the alerts, which contain credentials and are therefore read from the environment only."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import re
import urllib.parse
from collections.abc import Iterator

#: Variable that the command line of apprise reads, too.
VARIABLE = "APPRISE_URLS"
_SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z0-9]+://)")
_MIN_SECRET_LENGTH = 4  # characters; shorter parts of an address are words or numbers of a message
_MAX_REASON_LENGTH = 300  # characters


class Address:
    """Address that receives alerts.

    Args:
        url: URL of apprise.
        label: Name of the address in messages, which contains no credentials.

    Raises:
        ValueError: If apprise does not accept the URL.
    """

    def __init__(self, url: str, label: str) -> None:
        import apprise

        self.label = label
        self._url = url
        self._apprise = apprise.Apprise(asset=apprise.AppriseAsset(app_id="pte_tracking"))
        with _captured_messages() as messages:
            is_valid = self._apprise.add(url)
        if not is_valid:
            raise ValueError(
                f"{VARIABLE}: {label} is not a valid address of apprise{self._describe(messages)}. "
                "See https://appriseit.com/services for the form of each service."
            )

    def send(self, title: str, body: str, severity: str) -> None:
        """Send a plain text.

        Args:
            title: Title of the message.
            body: Text of the message.
            severity: ``"info"``, ``"success"``, ``"warning"`` or ``"failure"``.

        Raises:
            ConnectionError: If the service did not accept the message.
        """
        import apprise

        with _captured_messages() as messages:
            try:
                is_sent = self._apprise.notify(
                    body=body,
                    title=title,
                    notify_type=severity,
                    body_format=apprise.NotifyFormat.TEXT,
                )
            except Exception as error:  # an error of a plugin may contain the URL, also in its cause
                messages.append(f"{type(error).__name__}: {error}")
                is_sent = None
        if not is_sent:
            raise ConnectionError(f"{self.label} did not accept an alert{self._describe(messages)}")

    def _describe(self, messages: list[str]) -> str:
        """Return the messages of apprise without any part of the address."""
        text = " ".join(" ".join(messages).split())
        location = self._url.partition("://")[2]
        parts = set(re.split(r"[^\w\-]+", f"{location} {urllib.parse.unquote(location)}"))
        for part in sorted(parts, key=len, reverse=True):
            if len(part) >= _MIN_SECRET_LENGTH:
                text = text.replace(part, "***")
        return f" ({text[:_MAX_REASON_LENGTH].rstrip('.')})" if text else ""


def read_addresses() -> list[Address]:
    """Read the addresses from the environment.

    Raises:
        ValueError: If there is no address, or one of them is not valid.
    """
    urls = [url for url in _SEPARATOR.split(os.environ.get(VARIABLE, "").strip(" \t\r\n,")) if url]
    if not urls:
        raise ValueError(
            f"{VARIABLE} is not set, so the sink 'alerts' has no address. Set it in the environment, not in the "
            f"script: export {VARIABLE}='mailto://USER:PASSWORD@example.com ntfy://TOPIC'"
        )
    schemes = [url.partition("://")[0].lower() if "://" in url else "no scheme" for url in urls]
    return [
        Address(url, f"address {number} ({scheme})")
        for number, (url, scheme) in enumerate(zip(urls, schemes, strict=True), 1)
    ]


class _Capture(logging.Filter):
    """Filter that removes what apprise logs in this context, also in threads that it starts, and keeps the warnings.

    They may contain parts of an address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if _current_capture.get() is not self:
            return True
        if record.levelno >= logging.WARNING:
            self.messages.append(record.getMessage())
        return False


_current_capture: contextvars.ContextVar[_Capture | None] = contextvars.ContextVar("capture", default=None)


@contextlib.contextmanager
def _captured_messages() -> Iterator[list[str]]:
    capture, logger = _Capture(), logging.getLogger("apprise")
    token = _current_capture.set(capture)
    logger.addFilter(capture)
    try:
        yield capture.messages
    finally:
        logger.removeFilter(capture)
        _current_capture.reset(token)
