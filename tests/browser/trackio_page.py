"""Pages of Trackio with a run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests import servers

_SHOW = """
import sys, trackio
trackio.show(host="127.0.0.1", server_port=int(sys.argv[1]), open_browser=False, share=False, block_thread=True)
"""


@contextlib.contextmanager
def trackio(folder: Path, project: str) -> Iterator[str]:
    """Deliver the run in ``folder/result`` to a new Trackio project, and yield the address of its metrics page."""
    env = {**os.environ, "TRACKIO_DIR": str(folder / "trackio")}
    sync = ["-m", "pte_tracking._cli", "sync", "result", "--to", "trackio", "--option", f"project={project}"]
    subprocess.run([sys.executable, *sync], cwd=folder, env=env, check=True)
    port = servers.free_port()
    server = subprocess.Popen([sys.executable, "-c", _SHOW, str(port)], cwd=folder, env=env)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
                break
            time.sleep(0.2)
        yield f"{address}/metrics?project={project}"
    finally:
        server.terminate()
        server.wait(20)
