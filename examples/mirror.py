"""Train with a mirror, and continue on a machine without the run directory.

python mirror.py --epochs 3                         # copies the snapshots to ./mirror
rm -r result                                        # or start on another machine
python mirror.py --epochs 6                         # continues the same run from the mirror
python mirror.py --mirror s3://bucket/digits        # credentials: AWS_ACCESS_KEY_ID, ..., or the files of the AWS tools
"""

from __future__ import annotations

import argparse

import torch
from digits import digits, network
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--mirror", default="mirror")
    args = parser.parse_args()

    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(0)
    train, _ = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    manager = pte.ExtensionsManager(
        model,
        args.epochs,
        [
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "iteration", "train/loss"]),
            extensions.snapshot(n_retains=2, mirror=args.mirror),
        ],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        sinks=["json", "tensorboard"],
    )
    checkpoint = manager.resume()
    print("starts a new run" if checkpoint is None else f"continues after iteration {checkpoint.step}")
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()
