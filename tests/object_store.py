"""An object store that speaks S3: moto's server, in a process of its own."""

from __future__ import annotations

import contextlib
import re
import sys
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from tests.servers import free_port, server_process

BUCKET = "artifacts"


class ObjectStore:
    """A store with one bucket.

    Args:
        uri: Where it listens.

    Attributes:
        environment: What its clients have to be told.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": uri,
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{uri}/{BUCKET}", method="PUT"), timeout=10).close()

    def objects(self, prefix: str = "") -> dict[str, int]:
        """The objects whose names begin so, a thousand at most, with their sizes."""
        with urllib.request.urlopen(f"{self._uri}/{BUCKET}?list-type=2&prefix={prefix}", timeout=10) as answer:
            matches = re.findall(r"<Key>(.*?)</Key>.*?<Size>(\d+)</Size>", answer.read().decode(), re.DOTALL)
        return {unescape(key): int(size) for key, size in matches}


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A store whose log lies in ``folder``."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with server_process([sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], folder, uri):
        yield ObjectStore(uri)
