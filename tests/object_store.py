"""S3 object store for tests: a moto server in a separate process."""

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
    """Object store with one bucket.

    Args:
        uri: Address of the server.

    Attributes:
        environment: Environment variables that clients require.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": uri,
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{uri}/{BUCKET}", method="PUT"), timeout=60).close()

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of the objects with a prefix, by name. The server lists at most 1,000."""
        with urllib.request.urlopen(f"{self._uri}/{BUCKET}?list-type=2&prefix={prefix}", timeout=60) as response:
            matches = re.findall(r"<Key>(.*?)</Key>.*?<Size>(\d+)</Size>", response.read().decode(), re.DOTALL)
        return {unescape(key): int(size) for key, size in matches}


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run an object store that logs to ``folder``."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with server_process([sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], folder, uri):
        yield ObjectStore(uri)
