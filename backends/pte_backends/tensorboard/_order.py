"""Order of the records of an event file.

TensorBoard's data server drops the points of a tag from a step on when a point with that step arrives, so a file must
contain the points of each tag in the order of their steps.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto import event_pb2

from pte_backends.tensorboard import _records


def read_sorted(path: Path) -> Iterator[tuple[int, bytes]] | None:
    """Read the records of an event file that belong to the history, sorted by step.

    Args:
        path: Event file.

    Returns:
        An iterator over labels and records. None if the steps of no tag go back in the file.
    """
    steps, positions = array.array("q"), array.array("q")
    last_steps: dict[str, int] = {}
    position, is_sorted = 0, True
    for seq, raw in _records.read_records(path):
        if seq:
            message = event_pb2.Event.FromString(_records.extract_message(raw))
            for value in message.summary.value:
                is_sorted = is_sorted and message.step >= last_steps.get(value.tag, message.step)
                last_steps[value.tag] = message.step
            steps.append(message.step)
            positions.append(position)
        position += len(raw)
    if is_sorted:
        return None
    order = sorted(range(len(steps)), key=steps.__getitem__)
    return (next(_records.read_records(path, positions[index])) for index in order)
