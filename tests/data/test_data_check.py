"""A resume with other data than before reports the loader and the likely cause, in every front end."""

from __future__ import annotations

import gc
import itertools
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.events import FirstBatch
from pte_tracking._store.journal_reader import read_effective
from pte_tracking.sinks import find_events
from tests.data.front_ends import FRONT_ENDS, MakeLoader, plain_loop, train

SAMPLES, BATCH_SIZE = 12, 3


class CountingSampler(Sampler[int]):
    """Sampler that shuffles by the number of its passes, which no snapshot contains."""

    def __init__(self) -> None:
        self._drawn_epochs = itertools.count()

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(100 + next(self._drawn_epochs)).sample(range(SAMPLES), SAMPLES))


class TimeSeededNoise(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        return index + torch.rand((), generator=torch.Generator().manual_seed(time.time_ns()))


class Prefetching:
    """Loader that draws each batch from the global generator one iteration ahead."""

    def __len__(self) -> int:
        return SAMPLES // BATCH_SIZE

    def __iter__(self) -> Iterator[Tensor]:
        following = torch.rand(BATCH_SIZE)
        for _ in range(len(self)):
            batch, following = following, torch.rand(BATCH_SIZE)
            yield batch


class Shuffled(IterableDataset[Tensor]):
    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.randperm(SAMPLES).split(1))


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> Any:
    return FRONT_ENDS[request.param]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "the data after the resume differ" in record.message]


def counting_loader() -> DataLoader[int]:
    return DataLoader(list(range(SAMPLES)), BATCH_SIZE, sampler=CountingSampler())  # type: ignore[arg-type]


def shuffling_loader() -> DataLoader[int]:
    return DataLoader(list(range(SAMPLES)), BATCH_SIZE, shuffle=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [5, 6])
@pytest.mark.parametrize("trigger", [(1, "epoch"), (1, "iteration")], ids=["epoch", "iteration"])
@pytest.mark.parametrize("make_loader", [shuffling_loader, lambda: DataLoader(Shuffled(), 3)], ids=["map", "stream"])
def test_resume_with_equal_data_logs_no_warning(
    front_end: Any,
    make_loader: MakeLoader,
    trigger: tuple[int, str],
    stop: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = train(front_end, tmp_path / "whole", make_loader)
    train(front_end, tmp_path / "run", make_loader, stop, trigger=trigger)
    rest = train(front_end, tmp_path / "run", make_loader, trigger=trigger, resume=True)
    assert rest == whole[len(whole) - len(rest) :]
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("trigger", [(1, "epoch"), (1, "iteration")], ids=["epoch", "iteration"])
def test_resume_with_uncounted_passes_names_loader_once(
    front_end: Any, trigger: tuple[int, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(front_end, tmp_path, counting_loader, 6, trigger=trigger)
    train(front_end, tmp_path, counting_loader, trigger=trigger, resume=True)
    (message,) = warnings_of(caplog)
    assert message.startswith("loader 'main' (DataLoader): the data after the resume differ from those before.")
    assert "other values" in message
    assert (
        "Likely cause: CountingSampler._drawn_epochs is an iterator, which continues from the pass before." in message
    )


@pytest.mark.parametrize(
    ("make_other_loader", "trigger", "cause"),
    [
        (lambda: DataLoader(list(range(SAMPLES))[::-1], BATCH_SIZE), (1, "epoch"), "changed data"),  # type: ignore[arg-type]
        (lambda: DataLoader(list(range(SAMPLES))[::-1], BATCH_SIZE), (1, "iteration"), "changed data"),  # type: ignore[arg-type]
        (lambda: DataLoader(torch.arange(SAMPLES) * 1.0, BATCH_SIZE), (1, "epoch"), "float32[3], and not int64[3]"),  # type: ignore[arg-type]
    ],
    ids=["sorted-epoch", "sorted-iteration", "type"],
)
def test_resume_with_other_dataset_names_the_difference(
    front_end: Any,
    make_other_loader: MakeLoader,
    trigger: tuple[int, str],
    cause: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(front_end, tmp_path, lambda: DataLoader(list(range(SAMPLES)), BATCH_SIZE), 6, trigger=trigger)  # type: ignore[arg-type]
    train(front_end, tmp_path, make_other_loader, trigger=trigger, resume=True)
    (message,) = warnings_of(caplog)
    assert cause in message


@pytest.mark.parametrize("trigger", [(1, "epoch"), (1, "iteration")], ids=["epoch", "iteration"])
def test_resume_with_time_seeded_data_names_generator(
    front_end: Any, trigger: tuple[int, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make_loader() -> Iterable[Any]:
        return DataLoader(TimeSeededNoise(), BATCH_SIZE)

    train(front_end, tmp_path, make_loader, 6, trigger=trigger)
    train(front_end, tmp_path, make_loader, trigger=trigger, resume=True)
    (message,) = warnings_of(caplog)
    assert "seeded by the time" in message


def test_resume_with_other_size_of_batches_names_both(
    front_end: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(front_end, tmp_path, lambda: list(torch.arange(12).split(3)), 6)
    train(front_end, tmp_path, lambda: list(torch.arange(8).split(2)), resume=True)
    (message,) = warnings_of(caplog)
    assert "int64[2], and not int64[3]. Likely cause: the batch size was 3 and is 2." in message


def test_resume_with_reported_batch_size_is_not_compared(
    front_end: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(front_end, tmp_path, lambda: DataLoader(list(range(12)), 3), 6)  # type: ignore[arg-type]
    train(front_end, tmp_path, lambda: DataLoader(list(range(12)), 4), resume=True)  # type: ignore[arg-type]
    assert warnings_of(caplog) == []
    assert "the batch size is 4 and was 3 at the snapshot" in caplog.text


def test_resume_with_prefetching_loader_names_numbers_drawn_ahead(
    front_end: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(front_end, tmp_path, Prefetching, 7, trigger=(6, "iteration"))
    train(front_end, tmp_path, Prefetching, trigger=(6, "iteration"), resume=True)
    (message,) = warnings_of(caplog)
    assert "Likely cause: random numbers that are drawn ahead of the training" in message


def test_resume_with_counter_in_collator_names_collator(
    front_end: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class CountingCollator:
        def __init__(self) -> None:
            self.drawn_epochs = 0

        def collate(self, indices: list[int]) -> Tensor:
            self.drawn_epochs += indices[0] == 0
            return torch.tensor([*indices, self.drawn_epochs])

    def make_loader() -> Iterable[Any]:
        return DataLoader(list(range(12)), BATCH_SIZE, collate_fn=CountingCollator().collate)  # type: ignore[arg-type]

    train(front_end, tmp_path, make_loader, 6)
    train(front_end, tmp_path, make_loader, resume=True)
    (message,) = warnings_of(caplog)
    assert "CountingCollator counts its passes in 'drawn_epochs'" in message


@pytest.mark.parametrize(
    "modify",
    [lambda batch: batch.add_(1), lambda batch: batch.data.zero_(), lambda batch: batch.numpy().fill(0)],
    ids=["counted", "not-counted", "array"],
)
def test_resume_with_batches_modified_in_place_logs_no_warning(
    front_end: Any, modify: Callable[[Any], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: Any = {"trigger": (1, "iteration"), "modify": modify}
    train(front_end, tmp_path, shuffling_loader, 6, **options)
    train(front_end, tmp_path, shuffling_loader, resume=True, **options)
    assert warnings_of(caplog) == []


def test_data_check_records_one_batch_after_each_snapshot(front_end: Any, tmp_path: Path) -> None:
    train(front_end, tmp_path, shuffling_loader)
    recorded = [event for event, _ in find_events(tmp_path / "journal.jsonl", FirstBatch)]
    assert [(event.step, event.loader) for event in recorded] == [(4, "main"), (8, "main")]
    assert recorded[0].parts[""][0] == "int64[3]"


def test_data_check_after_rewind_replaces_recorded_batch(front_end: Any, tmp_path: Path) -> None:
    train(front_end, tmp_path, counting_loader, 6)
    train(front_end, tmp_path, counting_loader, 2, resume=True)
    journal = tmp_path / "journal.jsonl"
    events = [event for event, _ in find_events(journal, FirstBatch)]
    effective = [event for event, _ in read_effective(journal) if isinstance(event, FirstBatch)]
    assert [event.step for event in events] == [4, 4]
    assert effective == events[1:]


def test_second_resume_after_a_difference_compares_with_the_new_data(
    front_end: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reverse = DataLoader(list(range(SAMPLES))[::-1], BATCH_SIZE)  # type: ignore[arg-type]
    train(front_end, tmp_path, lambda: DataLoader(list(range(SAMPLES)), BATCH_SIZE), 6)  # type: ignore[arg-type]
    train(front_end, tmp_path, lambda: reverse, 2, resume=True)
    train(front_end, tmp_path, lambda: reverse, resume=True)
    assert len(warnings_of(caplog)) == 1


def test_data_check_keeps_no_reference_to_a_batch(front_end: Any, tmp_path: Path) -> None:
    references: list[weakref.ref[Any]] = []

    def count_alive(batch: Any) -> None:
        gc.collect()
        assert sum(reference() is not None for reference in references) <= 1  # the batch before
        references.append(weakref.ref(batch))

    train(front_end, tmp_path, shuffling_loader, trigger=(1, "iteration"), modify=count_alive)
    assert len(references) == 12


def test_data_check_after_left_loop_keeps_digest_and_no_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), 3, [extensions.snapshot(trigger=(1, "iteration"))], out_dir=tmp_path
    )
    reference = None
    for batch in manager.batches(counting_loader()):
        with manager.run_iteration():
            reference = weakref.ref(batch)
        if manager.iteration == 6:
            break
    del batch
    gc.collect()
    assert reference is not None
    assert reference() is None
    manager.close()
    train(plain_loop, tmp_path, counting_loader, trigger=(1, "iteration"), resume=True)
    assert "Batch 2 of this pass, which was skipped" in warnings_of(caplog)[0]


def test_fork_with_other_data_is_compared_with_the_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(plain_loop, tmp_path / "parent", counting_loader, 7, trigger=(6, "iteration"))
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), 3, [extensions.snapshot(trigger=(6, "iteration"))], out_dir=tmp_path / "fork"
    )
    manager.load_state_dict(torch.load(tmp_path / "parent/snapshot_iter_6"))
    next(manager.batches(counting_loader()))
    assert len(warnings_of(caplog)) == 1


def test_inline_sink_receives_no_first_batch(tmp_path: Path) -> None:
    received: list[Any] = []

    class Recorder:
        def write(self, events: Sequence[Any]) -> None:
            received.extend(events)

        def state(self) -> dict[str, Any]:
            return {}

        def close(self, status: str | None) -> None:
            pass

    with pte.Run(tmp_path, sinks=["json"]) as run:
        run.log_metrics({"a": 1}, 1)
        run._writer._inline[0]._consumer._connection.current = Recorder()  # type: ignore[union-attr, assignment]
        run.log_first_batch(1, "main", {"": ("int", 5)})
        run.log_metrics({"a": 2}, 2)
    run.log_first_batch(1, "main", {"": ("int", 5)})
    assert [event.seq for event in received] == [4, 5]
    assert len(list(find_events(tmp_path / "journal.jsonl", FirstBatch))) == 1


def test_snapshot_within_an_iteration_is_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def run(offset: int, iterations: int, *, resume: bool) -> None:
        snapshot = extensions.snapshot(trigger=(100, "iteration"))
        manager = pte.ExtensionsManager(nn.Linear(1, 1), 3, [snapshot], out_dir=tmp_path)
        if resume:
            manager.resume()
        loader = [torch.arange(3) + offset + index for index in range(4)]
        for _, _ in zip(range(iterations), manager.batches(loader), strict=False):
            with manager.run_iteration():
                if manager.iteration == 3 and not resume:
                    snapshot(manager)
        manager.close()

    run(0, 6, resume=False)
    run(0, 1, resume=True)
    assert warnings_of(caplog) == []
    run(7, 1, resume=True)
    (message,) = warnings_of(caplog)
    assert "Batch 1 of this pass, the first new one" in message
