"""Layout of the Custom Scalars page: one chart for training and validation metrics of the same name."""

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
    """Return the name of a metric without the prefix for its data split.

    Args:
        tag: Tag of the metric.

    Returns:
        ``loss`` for ``train/loss``, ``val_loss`` and ``validation/main/loss``; None for a tag without such a prefix.
    """
    match = _SPLIT_PREFIX.match(tag)
    return tag[match.end() :] or None if match else None


def group_tags(tags: Iterable[str]) -> dict[str, list[str]]:
    """Group tags into charts.

    Args:
        tags: Tags of metrics.

    Returns:
        The tags of each chart by its title. Charts with one tag are left out.
    """
    by_subject: dict[str, list[str]] = {}
    for tag in sorted(tags):
        by_subject.setdefault(get_subject(tag) or tag, []).append(tag)
    return {title: members for title, members in by_subject.items() if len(members) > 1}


def build_layout(tags: Iterable[str]) -> Any:
    """Build the summary value with the layout of the page.

    TensorBoard uses the last layout in a file.

    Args:
        tags: Tags of metrics.

    Returns:
        A ``Summary.Value``, which has no type annotations.
    """
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
