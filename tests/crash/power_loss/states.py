"""States of a directory that a loss of power may leave."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from disk import Change, Data, Entries, Recording, Tree, build_tree

#: What remains of a change that is not durable: nothing, zeros, or the first bytes of a write.
Remainder = Literal["nothing", "zeros"] | int


class State(NamedTuple):
    """State after a loss of power.

    Attributes:
        count: Number of changes before the loss of power.
        damage: What remains of the changes that are affected, by index.
    """

    count: int
    damage: dict[int, Remainder]

    def build(self, recording: Recording) -> Tree:
        """Return the content of the directory."""
        changes: list[Change] = []
        for index, change in enumerate(recording.changes[: self.count]):
            remainder = self.damage.get(index)
            if remainder is None:
                changes.append(change)
            elif isinstance(change, Data) and remainder == "zeros":
                changes.append(change._replace(content=bytes(len(change.content))))
            elif isinstance(change, Data) and isinstance(remainder, int):
                changes.append(change._replace(content=change.content[:remainder]))
        return build_tree(changes)


def list_states(recording: Recording, counts: Iterable[int], chance: random.Random) -> list[State]:
    """Return the different states for a loss of power at some moments.

    Args:
        recording: The recorded changes.
        counts: Number of changes before each loss of power.
        chance: Source of the random combinations.
    """
    known, states = set(), []
    for count in counts:
        durable = recording.durable_changes(count)
        volatile = [index for index in range(count) if index not in durable]
        for damage in _damages(recording, volatile, chance):
            state = State(count, damage)
            digest = _digest(state.build(recording))
            # The same content has different promises before and after a flush.
            if (digest, len(durable)) not in known:
                known.add((digest, len(durable)))
                states.append(state)
    return states


def _damages(recording: Recording, volatile: list[int], chance: random.Random) -> Iterator[dict[int, Remainder]]:
    data = [index for index in volatile if isinstance(recording.changes[index], Data)]
    entries = [index for index in volatile if isinstance(recording.changes[index], Entries)]
    yield {}
    yield dict.fromkeys(volatile, "nothing")
    yield dict.fromkeys(data, "nothing")
    yield dict.fromkeys(data, "zeros")
    yield dict.fromkeys(entries, "nothing")
    for index in volatile:
        yield {index: "nothing"}
        yield {other: "nothing" for other in volatile if other != index}
    for index in data:
        change = recording.changes[index]
        assert isinstance(change, Data)
        torn_sizes = {1, chance.randrange(len(change.content)), len(change.content) - 1}
        for remainder in ("zeros", *sorted(torn_sizes)):
            yield {index: remainder}
            yield {**{later: "nothing" for later in volatile if later > index}, index: remainder}
    for _ in range(5):
        yield {
            index: _random_remainder(recording.changes[index], chance) for index in volatile if chance.random() < 0.6
        }


def _random_remainder(change: Change, chance: random.Random) -> Remainder:
    if isinstance(change, Data) and chance.random() < 0.7:
        return chance.choice(["zeros", chance.randrange(len(change.content))])
    return "nothing"


def _digest(tree: Tree) -> bytes:
    digest = hashlib.sha256()
    for name, content in sorted(tree.items()):
        digest.update(f"{name} {None if content is None else len(content)}\n".encode())
        digest.update(content or b"")
    return digest.digest()
