"""Loops over data loaders: several loaders, streams, loaders that have changed, and resumes within an epoch."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, Sampler, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions
from tests.engine.one_training import FRONT_ENDS, check_resume, train

DATA: Any = list(range(12))


class Stream(IterableDataset[int]):
    """Stream without a length."""

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(DATA, 12))


class Endless:
    def __iter__(self) -> Iterator[float]:
        return itertools.repeat(1.0)


class Buckets(Sampler[list[int]]):
    """Batch sampler with another number of batches in each pass."""

    epoch = 0

    def __init__(self) -> None:
        pass

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return [4, 6, 3, 5][self.epoch % 4]

    def __iter__(self) -> Iterator[list[int]]:
        return iter([DATA[first :: len(self)] for first in range(len(self))])


def shuffled() -> DataLoader[int]:
    return DataLoader(DATA, 3, shuffle=True, generator=torch.Generator().manual_seed(1))


def make_manager(out_dir: Path, *more: Any, **options: Any) -> pte.ExtensionsManager:
    options = {"sinks": [], "iters_per_epoch": 4, **options}
    return pte.ExtensionsManager(nn.Linear(1, 1), 2, more, out_dir=out_dir, **options)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- several loaders ---------------------------------------------------------------------------------------------------


def test_dictionary_of_loaders_yields_dictionaries_until_the_shortest_ends(tmp_path: Path) -> None:
    manager, seen = make_manager(tmp_path, iters_per_epoch=None), []
    for batch in manager.batches({"first": [1, 2, 3], "second": [4, 5]}):
        with manager.run_iteration():
            seen.append(batch)
    assert seen == [{"first": 1, "second": 4}, {"first": 2, "second": 5}] * 2


@pytest.mark.parametrize("front_end", ["loop", "trainer"])
def test_tuple_of_loaders_resumed_within_an_epoch_continues_exactly(tmp_path: Path, front_end: str) -> None:
    check_resume(front_end, lambda: (shuffled(), DataLoader(DATA, 3, shuffle=True)), tmp_path, 6, iters_per_epoch=4)


def test_list_of_batches_is_one_loader(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    assert next(iter(manager.batches([[1, 2], [3, 4]]))) == [1, 2]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ({}, "got an empty dictionary"),
        ({"a": 3}, "got an object of type int as 'a'"),
        (3, "expected a DataLoader .* got an object of type int"),
        (
            TensorDataset(torch.ones(2, 1)),
            r"type TensorDataset\. A dataset yields samples, not batches\. Pass DataLoader\(dataset, ",
        ),
        ({"a": TensorDataset(torch.ones(2, 1))}, r"type TensorDataset as 'a'\. A dataset yields samples"),
    ],
)
def test_batches_of_no_loader_is_refused_at_the_call(tmp_path: Path, loader: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make_manager(tmp_path).batches(loader)


def zip_loaders(out_dir: Path, stop: int | None = None, resume: bool = False) -> list[Any]:
    torch.manual_seed(0)
    first, second = DataLoader(DATA[:8], 2, shuffle=True), DataLoader(DATA[:10], 2, shuffle=True)
    manager = make_manager(out_dir, extensions.snapshot(trigger=(1, "iteration")))
    if resume:
        manager.resume()
    seen = []
    for a, b in zip(manager.batches(first), manager.batches(second, name="second"), strict=False):
        with manager.run_iteration():
            seen.append((a.tolist(), b.tolist()))
        if manager.iteration == stop:
            break
    assert manager.is_ended == (stop is None)
    manager.close()
    return seen


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_zipped_loops_with_names_resumed_continue_exactly(tmp_path: Path, stop: int) -> None:
    whole = zip_loaders(tmp_path / "whole")
    assert len(whole) == 8
    zip_loaders(tmp_path / "run", stop)
    assert zip_loaders(tmp_path / "run", resume=True) == whole[stop:]


def test_zipped_loops_without_a_name_are_refused_before_the_first_iteration(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with pytest.raises(RuntimeError, match=r"batches\(b, name='b'\).*batches\(\{'a': a, 'b': b\}\)"):
        next(zip(manager.batches([1, 2]), manager.batches([3, 4]), strict=True))
    assert manager.iteration == 0


def test_loop_nested_in_a_loop_of_the_same_name_is_refused(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with pytest.raises(RuntimeError, match="another loop over the loader 'main'"):
        nest_loops(manager)


def test_loop_that_was_left_is_followed_by_another_one(tmp_path: Path) -> None:
    manager, seen = make_manager(tmp_path), []
    batches = manager.batches([1, 2, 3, 4])  # The reference keeps the first loop alive.
    for batch in batches:
        with manager.run_iteration():
            seen.append(batch)
        if manager.iteration == 2:
            break
    for batch in manager.batches([5, 6]):
        with manager.run_iteration():
            seen.append(batch)
    assert seen == [1, 2, 5, 6, 5, 6, 5, 6]
    assert manager.is_ended


def test_loop_that_was_replaced_is_refused_when_it_continues(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    first = manager.batches([1, 2, 3, 4])
    next(first)
    with manager.run_iteration():
        pass
    second = manager.batches([5, 6])
    next(second)
    with pytest.raises(RuntimeError, match="another loop"):
        next(first)


def test_loader_with_another_name_warns_at_the_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, stop in (("main", 3), ("train", None)):
        manager = make_manager(tmp_path, extensions.snapshot(trigger=(1, "iteration")))
        manager.resume()
        for _ in manager.batches([1, 2, 3, 4], name=name):
            with manager.run_iteration():
                pass
            if manager.iteration == stop:
                break
        manager.close()
    assert any("loader 'train': the snapshot contains no position of this name, only of: 'main'" in message
               for message in warnings_of(caplog))  # fmt: skip


# -- streams -----------------------------------------------------------------------------------------------------------


def test_stream_without_length_is_repeated_until_the_stop_trigger(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, iters_per_epoch=None, stop_trigger=(10, "iteration"))
    for _ in manager.batches(DataLoader(Stream(), 3)):
        with manager.run_iteration():
            pass
    assert manager.iteration == 10


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("stop", [4, 6, 8])
def test_stream_without_length_resumed_continues_exactly(tmp_path: Path, front_end: str, stop: int) -> None:
    check_resume(front_end, lambda: DataLoader(Stream(), 3), tmp_path, stop, iters_per_epoch=4)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_stream_resumed_from_the_end_of_an_epoch_continues_exactly(tmp_path: Path, front_end: str) -> None:
    check_resume(front_end, lambda: DataLoader(Stream(), 3), tmp_path, 5, iters_per_epoch=4, every=(1, "epoch"))


def test_passes_of_different_length_warn_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train("loop", DataLoader(DATA, batch_sampler=Buckets()), tmp_path)
    (message,) = warnings_of(caplog)
    assert message.startswith("loader 'main': a pass had 6 batches, and the length of the loader was 4.")


def test_stream_with_a_wrong_length_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Stream):
        def __len__(self) -> int:
            return 15

    train("loop", DataLoader(Wrong(), 3), tmp_path)
    assert len(warnings_of(caplog)) == 1
    assert "a pass had 4 batches, and the length of the loader was 5" in caplog.text


def read_epoch(manager: Any) -> None:
    assert manager.epoch >= 0


def iterate(manager: pte.ExtensionsManager, loader: Any) -> None:
    for _ in manager.batches(loader):
        with manager.run_iteration():
            pte.report({"x": 1.0})


def nest_loops(manager: pte.ExtensionsManager) -> None:
    for _ in manager.batches([1, 2]):
        for _ in manager.batches([3, 4]):
            pass


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        (extensions.LogReport(), "LogReport"),
        (extensions.snapshot(), "snapshot"),
        (extensions.observe_lr(trigger=(1, "epoch")), "observe_lr"),
        (read_epoch, "read_epoch"),
    ],
    ids=["log report", "snapshot", "observation", "extension"],
)
def test_epochs_of_an_endless_stream_raise_error_with_the_extension(tmp_path: Path, extension: Any, name: str) -> None:
    options: Any = {"stop_trigger": (10, "iteration"), "optimizers": torch.optim.SGD([torch.ones(1)], 0.1)}
    manager = make_manager(tmp_path / "first", extension, iters_per_epoch=None, **options)
    with pytest.raises(RuntimeError, match=rf"extension '{name}': .*iters_per_epoch.*trigger=\(1000, 'iteration'\)"):
        iterate(manager, Endless())


def test_max_epochs_of_an_endless_stream_raises_error_with_the_argument(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, iters_per_epoch=None)
    with pytest.raises(RuntimeError, match=r"max_epochs, or stop_trigger: .*iters_per_epoch"):
        iterate(manager, Endless())


# -- loaders that have changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize(("size", "stop"), [(2, 1), (2, 4), (8, 2), (8, 6), (12, 6)])
def test_batch_size_changed_resumed_continues_at_the_same_sample(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, front_end: str, size: int, stop: int
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    data: Any = list(range(25))
    first = train(front_end, DataLoader(data, 4), tmp_path, stop, epochs=2)
    resumed = train(front_end, DataLoader(data, size), tmp_path, resume=True, epochs=2)
    samples = [sample for batch in first.seen[: resumed.start] + resumed.seen for sample in batch]
    assert samples == data * 2
    assert resumed.manager.epoch_detail == 2
    assert f"the batch size is {size} and was 4 at the snapshot" in caplog.text
    assert not warnings_of(caplog)


def test_batch_size_changed_within_a_batch_uses_samples_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train("loop", DataLoader(DATA, 4), tmp_path, 2, epochs=1)
    resumed = train("loop", DataLoader(DATA, 3), tmp_path, resume=True, epochs=1)
    assert resumed.seen == [[6, 7, 8], [9, 10, 11]]
    assert "after 8 samples of the pass, of which the last 2 are used again" in caplog.text


def test_batch_size_changed_with_shuffling_keeps_the_order(tmp_path: Path) -> None:
    first = train("loop", DataLoader(DATA, 4, shuffle=True), tmp_path, 2, epochs=1)
    resumed = train("loop", DataLoader(DATA, 2, shuffle=True), tmp_path, resume=True, epochs=1)
    assert sorted(itertools.chain(*first.seen, *resumed.seen)) == DATA


def test_batch_size_increased_in_the_first_batch_keeps_the_order(tmp_path: Path) -> None:
    first = train("loop", DataLoader(DATA, 3, shuffle=True), tmp_path, 1, epochs=1)
    resumed = train("loop", DataLoader(DATA, 6, shuffle=True), tmp_path, resume=True, epochs=1)
    assert resumed.seen[0][:3] == first.seen[0]


def test_more_data_resumed_within_an_epoch_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train("loop", DataLoader(DATA, 3), tmp_path, 2)
    train("loop", DataLoader(DATA * 2, 3), tmp_path, resume=True)
    assert any("a pass now has 8 batches and had 4 at the snapshot" in message for message in warnings_of(caplog))


def test_number_of_workers_changed_warns_and_keeps_the_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train("loop", shuffled(), tmp_path / "whole").seen
    train("loop", shuffled(), tmp_path / "run", 6)
    workers = DataLoader(DATA, 3, shuffle=True, generator=torch.Generator().manual_seed(1), num_workers=1)
    assert train("loop", workers, tmp_path / "run", resume=True).seen == whole[6:]
    assert any("num_workers is 1 and was 0" in message for message in warnings_of(caplog))


class PartlyStateful(DataLoader[int]):
    """Loader whose ``state_dict()`` works only if it was made to be stateful."""

    def state_dict(self) -> Any:
        raise AttributeError("inner_state")

    def load_state_dict(self, state: Any) -> None:
        raise AttributeError("inner_state")


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_loader_whose_state_dict_raises_resumes_like_any_other(tmp_path: Path, front_end: str) -> None:
    check_resume(front_end, lambda: PartlyStateful(DATA, 3, shuffle=True), tmp_path, 6)


class UnsavableLoader:
    """Loader whose state contains more than tensors and plain values."""

    def __init__(self) -> None:
        self.sampler = RandomSampler(DATA, generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)

    def state_dict(self) -> Any:
        return {"sampler": self.sampler}

    def load_state_dict(self, state: Any) -> None:
        raise AssertionError("not called")


def test_loader_whose_state_cannot_be_saved_resumes_exactly_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_resume("loop", UnsavableLoader, tmp_path, 15)
    assert "its state_dict() cannot be saved: state_dict()/sampler" in caplog.text


def test_resume_within_an_epoch_reports_the_batches_that_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    check_resume("loop", shuffled, tmp_path, 6)
    assert sum("re-read the first 2 batches of the pass in" in line for line in caplog.messages) == 1
