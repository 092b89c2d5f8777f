"""Fine-tune a pretrained text classifier of Hugging Face in a plain loop.

python fine_tuning.py                        # downloads distilbert-base-uncased, 268 MB
python fine_tuning.py --model ./my-model     # a directory that save_pretrained wrote
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

import pte_tracking as pte
from pte_tracking import extensions

OPINIONS = {"excellent": 1, "great": 1, "good": 1, "poor": 0, "bad": 0, "terrible": 0}
REVIEWS = [
    (f"this {thing} is {opinion}", label)
    for thing in ("film", "book", "song", "play", "game", "meal", "phone", "hotel")
    for opinion, label in OPINIONS.items()
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="distilbert/distilbert-base-uncased", help="name or directory of a model")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2).train()  # for dropout

    def collate(reviews: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
        texts, labels = zip(*reviews, strict=True)
        return {**tokenizer(list(texts), padding=True, return_tensors="pt"), "labels": torch.tensor(labels)}

    train: DataLoader[Any] = DataLoader(REVIEWS[:36], 6, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    val: DataLoader[Any] = DataLoader(REVIEWS[36:], 6, collate_fn=collate)  # type: ignore[arg-type]
    head = [parameter for name, parameter in model.named_parameters() if "classifier" in name]
    body = [parameter for name, parameter in model.named_parameters() if "classifier" not in name]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 5e-5}, {"params": head, "lr": 1e-3}])
    steps = args.epochs * len(train)
    scheduler = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)

    def evaluate(**batch: torch.Tensor) -> None:
        output = model(**batch)
        pte.report(
            {"val/loss": output.loss, "val/accuracy": (output.logits.argmax(1) == batch["labels"]).double().mean()}
        )

    manager = pte.ExtensionsManager(
        model,
        max_epochs=args.epochs,
        extensions=[
            extensions.Evaluator(val, model, eval_func=evaluate),
            extensions.observe_lr(optimizer, param_group=1),
            extensions.LRScheduler(scheduler, trigger=(1, "iteration")),
            *extensions.defaults(),
        ],
        optimizers=optimizer,
        out_dir="fine_tuning",
        params={"model": args.model},
    )
    manager.resume()  # replaces the pretrained weights by those of the newest snapshot, if there is one
    for batch in manager.iterations(train):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})

    model.save_pretrained("fine_tuned")  # from_pretrained("fine_tuned") loads it
    tokenizer.save_pretrained("fine_tuned")


if __name__ == "__main__":
    main()
