"""Compute metrics of the whole validation set, not means over batches: python segmentation.py"""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

import pte_tracking as pte
from pte_tracking import extensions

CLASSES = ["background", "bright", "dark"]


class IntersectionOverUnion:
    """Metric that counts pixels over all batches and reports at the last one.

    Args:
        run: Run in which the confusion matrix is logged.
    """

    def __init__(self, run: pte.Run) -> None:
        self.run = run
        self.counts = torch.zeros(3, 3)

    def __call__(self, batch: tuple[Tensor, Tensor], output: Tensor, is_last: bool) -> None:
        _, label = batch
        self.counts += torch.bincount((label * 3 + output.argmax(1)).flatten(), minlength=9).view(3, 3)
        if not is_last:
            return
        overlap = self.counts.diag() / (self.counts.sum(0) + self.counts.sum(1) - self.counts.diag())
        pte.report({f"val/iou/{name}": value for name, value in zip(CLASSES, overlap.tolist(), strict=True)})
        self.run.log_confusion_matrix("val/pixels", self.counts, labels=CLASSES)
        self.counts = torch.zeros(3, 3)


def main() -> None:
    torch.manual_seed(0)
    label = torch.randint(3, (200, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = torch.tensor([0.5, 1.0, 0.0])[label][:, None] + 0.2 * torch.randn(200, 1, 16, 16)
    train, val = random_split(TensorDataset(image, label), [160, 40])
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    manager = pte.ExtensionsManager(
        model,
        max_epochs=4,
        extensions=extensions.defaults(),
        optimizers=optimizer,
        out_dir="segmentation",
    )
    metric = IntersectionOverUnion(manager.run)
    validation = extensions.Evaluator(
        DataLoader(val, 16), model, eval_func=lambda image, label: model(image), metrics=[metric]
    )
    manager.extend(validation)
    manager.resume()
    for image, label in manager.iterations(DataLoader(train, 16, shuffle=True)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(image), label)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()
