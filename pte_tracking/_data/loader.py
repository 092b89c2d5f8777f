"""Where in the data a training is, to the batch, and how to get there again.

What a loader gave cannot be looked up in it, but it can be given again. So the state of the random generators at the
beginning of a pass is kept, and how many batches were taken since. To resume, the pass is begun again from that state,
and the batches already seen are really loaded and thrown away: the workers have then drawn as many random numbers as
at the first time. This costs the time to load at most one pass, without the training. A loader that can say itself
where it is (torchdata's StatefulDataLoader, anything with ``state_dict`` and ``load_state_dict``) is asked instead, and
goes on at once.

Exact are all loaders whose order and content follow from the random state at the beginning of the pass: samplers and
datasets of torch, random augmentation in the training process or in workers, one's own generators, ``set_epoch``. Not
exact are

- random numbers drawn inside *persistent* workers after their first pass, since they depend on all passes before, and
  those drawn inside the workers of a StatefulDataLoader, which begins them anew. The order is exact in both;
- a sampler, or an iterable dataset without workers, that goes on drawing from the same generator as the training and
  keeps what it drew (a shuffle buffer, say). With workers, or with a generator of its own, it is exact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Generic, Protocol, TypedDict, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from pte_tracking._distributed import environment
from pte_tracking._snapshots import rng

_Batch = TypeVar("_Batch")

_logger = logging.getLogger("pte_tracking")
_END: Any = object()


class RandomStates(TypedDict):
    """The state of the global random generators, and of those that a loader has of its own."""

    everywhere: rng.RandomState
    own: list[Tensor]


class LoaderState(TypedDict):
    """A place in the data.

    Attributes:
        passes: Passes begun.
        taken: Batches taken in the pass under way; 0 between two passes.
        start: The randomness when that pass began; None between two passes, and where the loader knows its place.
        own: The states of the loader's own generators now.
        workers_live: Its persistent workers were there before that pass, or are there for the next one.
        loader: The state of a loader that knows its place.
        length: Batches in a pass, if that is known.
    """

    passes: int
    taken: int
    start: RandomStates | None
    own: list[Tensor]
    workers_live: bool
    loader: dict[str, Any] | None
    length: int | None


class ResumableLoader(Generic[_Batch]):
    """A loader that knows where it is. Iterating over it makes one pass; after a resume, the rest of the one under way.

    Args:
        loader: A DataLoader, or anything else that can be iterated over again and again.
    """

    def __init__(self, loader: Iterable[_Batch]) -> None:
        self.loader = loader
        self._passes = 0
        self._taken = 0
        self._start: RandomStates | None = None
        self._workers_live = False
        self._saved: LoaderState | None = None
        self._is_resized = False

    def __len__(self) -> int:
        return len(cast(Sized, self.loader))

    def __iter__(self) -> Iterator[_Batch]:
        saved, self._saved = self._saved, None
        batches = self._start_pass() if saved is None else self._resume_pass(saved)
        length = _length(self.loader)
        batch = next(batches, _END)
        while batch is not _END:
            self._taken += 1
            # The end is looked for before the last batch is given out: a snapshot of its iteration then lies between
            # two passes, has nothing to load again, and includes what a sampler draws at its end.
            is_expected_last = self._taken == length
            following = next(batches, _END) if is_expected_last else None
            if following is _END:
                self._end_pass()
            yield batch
            batch = following if is_expected_last else next(batches, _END)
        self._end_pass()

    def state_dict(self) -> LoaderState:
        """The place after the batch that was given out last."""
        if self._saved is not None:
            return self._saved
        return LoaderState(
            passes=self._passes,
            taken=self._taken,
            start=self._start,
            own=[generator.get_state() for generator in _generators(self.loader)],
            workers_live=self._workers_live,
            # Before the first pass, asking would make some loaders begin it.
            loader=self.loader.state_dict() if self._passes and isinstance(self.loader, _StatefulLoader) else None,
            length=_length(self.loader),
        )

    def load_state_dict(self, state: LoaderState, is_resized: bool = False) -> None:
        """Go to a place with the next pass; the global random generators have to stand as they did there by then.

        Args:
            state: The place.
            is_resized: Other ranks share the data now: the place is the same part of a pass, not of batches.

        Raises:
            ValueError: It is the place in another kind of loader.
        """
        kind = type(self.loader).__name__
        if state["loader"] is not None and not isinstance(self.loader, _StatefulLoader):
            raise ValueError(
                f"loader: the snapshot was taken with one that has state_dict() and load_state_dict(), {kind} has not"
            )
        generators = _generators(self.loader)
        if len(generators) != len(state["own"]):
            raise ValueError(
                f"loader: the snapshot was taken with one that has {len(state['own'])} random generators of its own, "
                f"this {kind} has {len(generators)}; give it the same generator= arguments"
            )
        for generator, own in zip(generators, state["own"], strict=True):
            generator.set_state(own)
        self._saved, self._is_resized = state, is_resized

    def _start_pass(self) -> Iterator[_Batch]:
        self._set_epoch(self._passes)
        self._passes += 1
        self._taken = 0
        if not isinstance(self.loader, _StatefulLoader):
            self._start = _get_random_states(self.loader)
            return iter(self.loader)
        # Such a loader draws more from the global generator when it begins after a resume. What follows must not depend
        # on that; one number is drawn so that each pass begins with others.
        torch.empty((), dtype=torch.int64).random_()
        current = rng.get_state()
        batches = iter(self.loader)
        rng.set_state(current)
        return batches

    def _resume_pass(self, saved: LoaderState) -> Iterator[_Batch]:
        current = _get_random_states(self.loader)
        self._passes = saved["passes"]
        self._workers_live = saved["workers_live"]
        self._taken = saved["taken"]
        if self._is_resized:
            self._taken = _rescaled_position(saved["taken"], saved["length"], _length(self.loader))
        # What a loader says of its place is about the batches of as many ranks.
        loader_state = None if self._is_resized else saved["loader"]
        if loader_state is not None:
            cast(_StatefulLoader, self.loader).load_state_dict(loader_state)
            if not saved["taken"]:
                iter(self.loader)  # takes the end of a pass in; the next one then draws as it would have
        elif saved["workers_live"] and _keeps_workers(self.loader):
            self._start_workers()
        if not saved["taken"]:
            _set_random_states(self.loader, current)
            return self._start_pass()
        if saved["start"] is not None:
            self._start = saved["start"]
            _set_random_states(self.loader, saved["start"])
        if loader_state is None:
            self._set_epoch(self._passes - 1)
        batches = iter(self.loader)
        if loader_state is None:
            _skip(batches, self._taken)
        _set_random_states(self.loader, current)
        return batches

    def _start_workers(self) -> None:
        """Start persistent workers, as they were before the pass under way: starting them draws a random number."""
        iter(self.loader)
        if environment.rank() == 0:
            _logger.warning(
                "loader: its persistent workers are new. The order of the data goes on exactly; random numbers that a "
                "dataset draws inside of them do not, since they depend on all earlier passes. With "
                "persistent_workers=False they do"
            )

    def _set_epoch(self, index: int) -> None:
        for component in _components(self.loader):
            if hasattr(component, "set_epoch"):
                component.set_epoch(index)

    def _end_pass(self) -> None:
        self._taken, self._start = 0, None
        self._workers_live = _keeps_workers(self.loader)


class LoaderRegistry:
    """The loaders of a training by name, and their places."""

    def __init__(self) -> None:
        self._loaders: dict[str, ResumableLoader[Any]] = {}
        self._saved: dict[str, LoaderState] = {}
        self._is_resized = False
        self._random_state: rng.RandomState | None = None

    def register(self, loader: Iterable[_Batch], name: str = "main") -> ResumableLoader[_Batch]:
        """The feed of a loader; its first pass goes on at the place restored under that name, if there is one."""
        resumable = self._loaders.get(name)
        if resumable is None or resumable.loader is not loader:
            resumable = self._loaders[name] = ResumableLoader(loader)
            if name in self._saved:
                resumable.load_state_dict(self._saved.pop(name), self._is_resized)
        return resumable

    def begin(self) -> None:
        """The training begins: what was drawn since the state was restored, by making datasets, say, does not count."""
        if self._random_state is not None:
            rng.set_state(self._random_state)
            self._random_state = None

    def state_dict(self) -> dict[str, LoaderState]:
        """The places, those of loaders that are yet to come included."""
        return {**self._saved, **{name: resumable.state_dict() for name, resumable in self._loaders.items()}}

    def load_state_dict(
        self, state: Mapping[str, LoaderState], random_state: rng.RandomState, is_resized: bool = False
    ) -> None:
        """Go to these places, and draw from there on what was drawn then; see :meth:`Feed.load_state_dict`."""
        self._saved, self._is_resized = dict(state), is_resized
        self._random_state = random_state
        rng.set_state(random_state)
        for name, resumable in self._loaders.items():
            if name in self._saved:
                resumable.load_state_dict(self._saved.pop(name), is_resized)


@runtime_checkable
class _StatefulLoader(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


def _length(loader: object) -> int | None:
    try:
        return len(cast(Sized, loader))
    except (TypeError, NotImplementedError):
        return None


def _rescaled_position(taken: int, old_length: int | None, new_length: int | None) -> int:
    """How many batches make the same part of a pass, where more or fewer ranks share them."""
    return taken if not old_length or not new_length else taken * new_length // old_length


def _components(loader: object) -> list[object]:
    """Where torch's loaders and those made after them hide what draws and what is told the epoch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    components = [
        getattr(loader, "dataset", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
        getattr(loader, "sampler", None),
    ]
    return list({id(component): component for component in components if component is not None}.values())


def _generators(loader: object) -> list[torch.Generator]:
    generators = [getattr(component, "generator", None) for component in (loader, *_components(loader))]
    return list(
        {id(generator): generator for generator in generators if isinstance(generator, torch.Generator)}.values()
    )


def _keeps_workers(loader: object) -> bool:
    return bool(getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0))


def _get_random_states(loader: object) -> RandomStates:
    return RandomStates(everywhere=rng.get_state(), own=[generator.get_state() for generator in _generators(loader)])


def _set_random_states(loader: object, states: RandomStates) -> None:
    rng.set_state(states["everywhere"])
    for generator, own in zip(_generators(loader), states["own"], strict=True):
        generator.set_state(own)


def _skip(batches: Iterator[Any], count: int) -> None:
    for skipped in range(count):
        if next(batches, _END) is _END:
            raise ValueError(
                f"loader: the snapshot was taken after {count} batches of a pass, but this pass ended after {skipped}: "
                "is it the same data?"
            )
