"""Removal of superseded values from an Aim run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import aim
from aim.storage.context import Context

from pte_tracking.sinks import AnyEvent, Audio, Figure, Histogram, Image, Metrics, Text

_CONTEXT = Context({})


def remove_values(aim_run: aim.Run, events: Iterable[AnyEvent]) -> None:
    """Remove the values of superseded events.

    Aim's web page cannot show a sequence without values. A sequence that would be empty therefore keeps its first value
    until the resumed training replaces it.

    Args:
        aim_run: Open Aim run. It must be opened again afterwards, because it caches the last step of each sequence.
        events: Superseded events.
    """
    steps: dict[tuple[str, str], set[int]] = {}
    for event in events:
        for kind, name in _list_sequences(event):
            steps.setdefault((kind, name), set()).add(event.step)  # type: ignore[union-attr]
    for (kind, name), superseded in steps.items():
        sequence = _find_sequence(aim_run, kind, name)
        if sequence is not None:
            _remove_steps(aim_run, name, sequence, superseded)


def _list_sequences(event: AnyEvent) -> list[tuple[str, str]]:
    if isinstance(event, Metrics):
        return [("metric", key) for key in event.values]
    if isinstance(event, Figure | Image):
        return [("image", event.key)]
    if isinstance(event, Audio):
        return [("audio", event.key)]
    if isinstance(event, Histogram):
        return [("distribution", event.key)]
    return [("text", event.key)] if isinstance(event, Text) else []


def _find_sequence(aim_run: aim.Run, kind: str, name: str) -> Any:
    if kind == "metric":
        return aim_run.get_metric(name, _CONTEXT)
    if kind == "image":
        return aim_run.get_image_sequence(name, _CONTEXT)
    if kind == "audio":
        return aim_run.get_audio_sequence(name, _CONTEXT)
    if kind == "distribution":
        return aim_run.get_distribution_sequence(name, _CONTEXT)
    return aim_run.get_text_sequence(name, _CONTEXT)


def _remove_steps(aim_run: aim.Run, name: str, sequence: Any, superseded: set[int]) -> None:
    data = sequence.data
    stored_steps, (values, *_) = data.items_list()
    kept = {step: value for step, value in zip(stored_steps, values, strict=True) if step not in superseded}
    if not kept:
        kept = {stored_steps[0]: values[0]}
    is_metric = isinstance(values[0], float)
    for step in set(stored_steps) - kept.keys():
        for column in ("val", "epoch", "time", *(["step"] if is_metric else [])):
            del data.series_tree[column, data.step_hash(step)]
    last = max(kept)
    summary: Mapping[str, Any] = {"last": kept[last], "last_step": last}
    if is_metric:
        numbers = [value for value in kept.values() if not math.isnan(value)]
        summary = {**summary, "min": min(numbers, default=math.inf), "max": max(numbers, default=-math.inf)}
    for field, value in summary.items():
        aim_run.meta_run_tree["traces", _CONTEXT.idx, name, field] = value
