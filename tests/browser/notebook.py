"""Notebook in JupyterLab, driven in the browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

CELL = """\
from digits import digits, network
import torch
from torch.nn import functional as F
import pte_tracking as pte
from pte_tracking import extensions

def evaluate(x, target):
    output = model(x)
    pte.report({"val/loss": F.cross_entropy(output, target)})
    pte.report({"val/accuracy": (output.argmax(1) == target).double().mean()})

torch.manual_seed(0)
train, val = digits()
model = network()
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
manager = pte.ExtensionsManager(model, 8, [
    extensions.Evaluator(val, model, eval_func=evaluate, progress_bar=True),
    extensions.LogReport(),
    extensions.PrintReport(["epoch", "train/loss", "val/loss", "val/accuracy"]),
    extensions.PlotReport(["train/loss", "val/loss"], "epoch"),
    extensions.ProgressBar(),
], optimizers=optimizer, iters_per_epoch=len(train))
for x, target in manager.batches(train):
    with manager.run_iteration(step_optimizers=["main"]):
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        pte.report({"train/loss": loss})
"""


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Run JupyterLab with the notebook ``train.ipynb`` in a directory, and yield the address of the notebook."""
    cell = {"cell_type": "code", "source": CELL, "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    (folder / "train.ipynb").write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip", "127.0.0.1", "--port", "0"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--LabApp.news_url="]
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / ".jupyter"), "JUPYTER_DATA_DIR": str(folder / ".jupyter")}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    assert server.stderr
    try:
        match = next(filter(None, (re.search(r"(http://127\.0\.0\.1:\d+)/", line) for line in server.stderr)), None)
        if match is None:
            raise RuntimeError(f"JupyterLab exited with status {server.wait()} before it printed its address.")
        yield f"{match[1]}/doc/tree/train.ipynb"
    finally:
        server.terminate()
        server.communicate(timeout=60)


def run_cell(page: Page, address: str) -> None:
    """Open a notebook, run its cell and wait until it has finished."""
    for attempt in range(60):  # JupyterLab prints its address before it accepts connections.
        with contextlib.suppress(OSError if attempt < 59 else ()):
            urllib.request.urlopen(address, timeout=10).close()
            break
        time.sleep(1)
    page.goto(address)
    page.locator(".jp-Cell .cm-content").first.click()
    page.get_by_text("Idle").first.wait_for(state="attached")
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea tbody tr").nth(7).wait_for(timeout=120_000)
    page.get_by_text("360/360").first.wait_for()
    page.wait_for_timeout(2000)  # The plot appears after the last text.
