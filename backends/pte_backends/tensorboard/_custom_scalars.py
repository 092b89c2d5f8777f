"""The Custom Scalars page: metrics of the same thing, measured on different data, in one chart."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from pte_backends.tensorboard._values import LAYOUTS, build_metadata, build_string

_CATEGORY_TITLE = "train and validation"
_SPLIT_PREFIX = re.compile(
    r"(?:(?:train|training|val|valid|validation|test|eval|evaluation|dev|main)[/_])+", re.IGNORECASE
)


@functools.lru_cache(maxsize=10_000)
def get_subject(tag: str) -> str | None:
    """What a metric is of, apart from the data that it was measured on.

    Returns:
        ``loss`` for ``train/loss``, ``val_loss`` and ``validation/main/loss``; None if the name tells no data.
    """
    match = _SPLIT_PREFIX.match(tag)
    return tag[match.end() :] or None if match else None


def group_tags(tags: Iterable[str]) -> dict[str, list[str]]:
    """The tags of each chart that has more than one."""
    by_subject: dict[str, list[str]] = {}
    for tag in sorted(tags):
        by_subject.setdefault(get_subject(tag) or tag, []).append(tag)
    return {title: members for title, members in by_subject.items() if len(members) > 1}


def build_layout(tags: Iterable[str]) -> Any:
    """The summary value that lays the page out; TensorBoard goes by the last one."""
    page_layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=_CATEGORY_TITLE,
                chart=[
                    layout_pb2.Chart(
                        title=title,
                        multiline=layout_pb2.MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in members]),
                    )
                    for title, members in sorted(group_tags(tags).items())
                ],
            )
        ]
    )
    return summary_pb2.Summary.Value(
        tag=metadata.CONFIG_SUMMARY_TAG,
        metadata=build_metadata(LAYOUTS),
        tensor=build_string(page_layout.SerializeToString(deterministic=True)),
    )
