"""Meaning of a metric, judging by the words of its key."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluate", "evaluation", "dev"})
_TEST = frozenset({"test", "testing"})
_TRAINING = frozenset({"train", "training", "trn"})

_LOSS = frozenset({"loss", "losses"})
_ACCURACY = frozenset({"accuracy", "acc"})
_LOWER = frozenset(
    {"error", "err", "nll", "perplexity", "ppl", "mse", "rmse", "mae", "cer", "wer", "fid", "bpc", "bpb"}
)
_HIGHER = frozenset(
    {"f", "auc", "auroc", "ap", "map", "precision", "recall", "score", "iou", "miou", "dice", "bleu", "rouge", "psnr"}
    | {"ssim", "r", "top", "reward", "return", "ndcg", "mrr", "hits"}
)
#: Words of values that do not measure quality.
_CONDITIONS = frozenset(
    {
        *(
            "std",
            "lr",
            "time",
            "seconds",
            "elapsed",
            "count",
            "size",
            "epoch",
            "iteration",
            "step",
            "tokens",
            "samples",
        ),
        *("monitor", "system"),
    }
)
_KNOWN = _LOSS | _ACCURACY | _LOWER | _HIGHER

_JOINED = re.compile(rf"({'|'.join(sorted(_VALIDATION | _TEST | _TRAINING, key=len, reverse=True))})([a-z]+)")


def primary_metric(keys: Iterable[str]) -> str | None:
    """Return the metric that best summarizes a run.

    A validation metric is preferred over a test metric, and a test metric over others; among the others, a training
    metric comes last. Outside of a validation or test part, a name shows a metric only if it is known, so an unknown
    name, such as ``weight_decay``, follows known training metrics. Within a part, a loss is preferred over an accuracy,
    an accuracy over other known metrics, and a short key over a long one.

    Args:
        keys: Keys of the metrics.

    Returns:
        The preferred key, or None if there are no keys.
    """
    return min(keys, key=_rank, default=None)


def is_lower_better(key: str) -> bool:
    """Whether lower values of a metric are better, judging by its name."""
    words = _words_of(key)
    return bool(words & (_LOSS | _LOWER)) or not words & (_ACCURACY | _HIGHER)


def is_known_metric(key: str) -> bool:
    """Whether the name of a metric shows which values are better."""
    return bool(_words_of(key) & _KNOWN)


def _rank(key: str) -> tuple[bool, bool, int, int, int]:
    words = _words_of(key)
    quality = next((rank for rank, kind in enumerate((_LOSS, _ACCURACY, _KNOWN)) if words & kind), 3)
    part = 3 if words & _TRAINING else 0 if words & _VALIDATION else 1 if words & _TEST else 2
    return bool(words & _CONDITIONS), part > 1 and quality == 3, part, quality, len(words)


def _words_of(key: str) -> set[str]:
    """Return the lowercase words of a key, such as val and loss for ``"val/loss"``, ``"valLoss"`` and ``"valloss"``."""
    words: set[str] = set()
    for part in re.findall(r"[^\W_]+", key):
        # "mAP50" is map, and "valLoss" is val and loss.
        pieces = [part, *re.findall(r"[A-Z]?[^\W\dA-Z_]+|[A-Z]+(?![^\W\dA-Z_])", part)]
        for piece in pieces:
            word = piece.lower().rstrip("0123456789")
            joined = _JOINED.fullmatch(word)
            words.update(joined.groups() if joined and joined[2] in _KNOWN else [word])
    return words - {""}
