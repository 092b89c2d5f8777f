"""Train with a learning rate that is too high, and receive alerts about it.

The addresses come from the environment: APPRISE_URLS='ntfy://my-topic mailto://...' python alerts.py
Without them, the example starts a local web server, which prints the alerts that it receives.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import threading

import torch
from torch.nn import functional as F

import pte_tracking as pte
from pte_backends.alerts import AlertSink
from pte_tracking import extensions


class Receiver(http.server.BaseHTTPRequestHandler):
    """Prints the title and the text of each alert."""

    def do_POST(self) -> None:
        alert = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(f"\n[{alert['type']}] {alert['title']}\n{alert['message']}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def train(lr: float) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
    loader = torch.utils.data.DataLoader(data, batch_size=32)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    manager = pte.ExtensionsManager(
        model,
        5,
        [extensions.LogReport(trigger=(4, "iteration")), extensions.FailOnNonNumber()],
        optimizers=optimizer,
        iters_per_epoch=len(loader),
        sinks=["json", AlertSink(conditions=["train/loss > 1000"], stalled_after=10)],
    )
    for x, y in manager.batches(loader):
        with manager.run_iteration():
            loss = F.mse_loss(model(x), y)
            pte.report({"train/loss": loss})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=100.0)
    arguments = parser.parse_args()
    if "APPRISE_URLS" not in os.environ:
        server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["APPRISE_URLS"] = f"json://127.0.0.1:{server.server_port}"
    train(arguments.lr)


if __name__ == "__main__":
    main()
