"""TensorBoard event files after redelivery, full disks, damage, and rewinds."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image
import pytest

from pte_tracking._store.events import (
    Figure,
    Histogram,
    Image,
    Metrics,
    Params,
    Rewound,
    RunEnded,
    Text,
)
from pte_tracking.sinks import RejectedEventError
from tests.backends.event_files import (
    FakeRun,
    connect,
    deliver,
    expected,
    find_event_files,
    limit_file_size,
    log_rows,
    read,
    read_hparams,
    read_scalars,
)


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path)


# -- redelivery --------------------------------------------------------------------------------------------------------


def test_batch_redelivered_after_crash_is_written_once(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    first, second = log_rows(run, range(5)), log_rows(run, range(5, 9))
    connection = connect(run)
    connection.write(run.events[: 1 + len(first)])
    state = connection.state()
    connection.write(second)
    connection = connect(run, state)
    connection.write(second)
    connection.write(log_rows(run, range(9, 12)))
    assert read_scalars(run) == expected(run.history())


def test_lost_state_full_redelivery_writes_points_once(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    log_rows(run, range(9))
    deliver(run)
    deliver(run)
    assert read_scalars(run) == expected(run.history())


@pytest.mark.parametrize("missing_bytes", [1, 4, 5, 11, 12, 13, 50, 100])
def test_file_truncated_within_record_is_repaired(run: FakeRun, missing_bytes: int) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(3)))
    state = connection.state()
    redelivered = log_rows(run, range(3, 6))
    connection.write(redelivered)
    [path] = find_event_files(run)
    os.truncate(path, path.stat().st_size - missing_bytes)
    connection = connect(run, state)
    connection.write(redelivered)
    assert read_scalars(run) == expected(run.history())


@pytest.mark.parametrize("remaining_bytes", [None, 0, 10, 200])
def test_file_without_delivered_data_is_rebuilt_from_journal(run: FakeRun, remaining_bytes: int | None) -> None:
    PIL.Image.new("L", (2, 2)).save(run.directory / "picture.png")
    run.add(Params, {"lr": 0.1})
    run.add(Params, {"lr": 0.2})
    run.add(Image, "picture", 1, "picture.png")
    run.add(Image, "missing", 1, "missing.png")
    log_rows(run, range(9))
    connection = connect(run)
    connection.write([event for event in run.events if not (isinstance(event, Image) and event.key == "missing")])
    state = connection.state()
    [path] = find_event_files(run)
    if remaining_bytes is None:
        path.unlink()
    else:
        os.truncate(path, remaining_bytes)
    connection = connect(run, state)
    connection.write(log_rows(run, range(9, 12)))
    connection.close("FINISHED")
    assert read_scalars(run) == expected(run.history())
    assert len(read(run).Images("picture")) == 1
    assert read_hparams(run) == {"lr": 0.2}


def test_full_disk_keeps_whole_records_and_batch_is_retried(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(3)))
    [path] = find_event_files(run)
    before = read_scalars(run)
    state, redelivered = connection.state(), log_rows(run, range(3, 9))
    with limit_file_size(path.stat().st_size + 150), pytest.raises(OSError, match="File too large"):
        connection.write(redelivered)
    assert read_scalars(run) == before
    connection.close(None)
    connection = connect(run, state)
    connection.write(redelivered)
    assert len(find_event_files(run)) == 1
    assert read_scalars(run) == expected(run.history())


def test_full_disk_during_rewind_leaves_file_unchanged(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(50)))
    before, state = read_scalars(run), connection.state()
    rewound = run.add(Rewound, 30, 0, 29)
    with limit_file_size(1000), pytest.raises(OSError, match="File too large"):
        connection.write([rewound])
    assert read_scalars(run) == before
    connection.close(None)
    connection = connect(run, state)
    connection.write([rewound])
    assert read_scalars(run) == expected(run.history())


def test_row_delivered_in_parts_is_complete(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(2)))
    first = run.add(Metrics, 2, {"a": 1.0}, 0.2)
    second_part = Metrics(first.seq, first.time, 2, {"b": 2.0}, 0.2)
    connection.write([first])
    with pytest.raises(RejectedEventError):
        connection.write([second_part, Image(first.seq + 1, first.time, "missing", 2, "missing.png")])
    connection.write([second_part])
    run.events[-1] = Metrics(first.seq, first.time, 2, {"a": 1.0, "b": 2.0}, 0.2)
    assert read_scalars(run) == expected(run.history())


# -- rewinds -----------------------------------------------------------------------------------------------------------


def test_rewind_removes_superseded_events_of_all_kinds(run: FakeRun) -> None:
    PIL.Image.new("L", (2, 2)).save(run.directory / "picture.png")
    connection = connect(run)
    for step in range(1, 9):
        run.add(Metrics, step, {"a": float(step)} | ({"late": 1.0} if step > 5 else {}))
        run.add(Image, "picture", step, "picture.png")
        run.add(Histogram, "weights", step, [0.0, 1.0], [2.0], 0.0, 1.0, 1.0, 1.0)
        run.add(Text, "note", step, str(step))
        if step == 5:
            kept = run.events[-1].seq
    connection.write(run.events)
    connection.write([run.add(Rewound, kept, 0, 5)])
    accumulator = read(run)
    assert accumulator.Tags()["scalars"] == ["a"]
    assert [event.step for event in accumulator.Scalars("a")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Images("picture")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Histograms("weights")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Tensors("note")] == [1, 2, 3, 4, 5]


def test_open_reader_follows_rewind(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(9)))
    reader = read(run)
    connection.write([run.add(Rewound, 5, 0, 4)])
    connection.write(log_rows(run, range(5, 7)))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [0, 1, 2, 3, 4, 5, 6]


def test_rewind_without_saved_state_is_applied_again(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(9)))
    state = connection.state()
    [old] = find_event_files(run)
    content = old.read_bytes()
    rewound = run.add(Rewound, 5, 0, 4)
    connection.write([rewound])
    old.write_bytes(content)  # A kill before the earlier file is emptied.
    (run.directory / f".tensorboard.{run.id}.tmp").write_bytes(content)
    connection = connect(run, state)
    connection.write([rewound])
    connection.write(log_rows(run, range(5, 7)))
    assert read_scalars(run) == expected(run.history())
    assert not list(run.directory.glob(".*"))
    assert [bool(path.stat().st_size) for path in find_event_files(run)] == [False, True]


def test_superseded_params_revert_to_earlier_values(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    log_rows(run, range(3))
    run.add(Params, {"lr": 0.2, "seed": 1})
    log_rows(run, range(3, 6))
    connection = connect(run)
    connection.write(run.events)
    connection.write([run.add(Rewound, 4, 0, 3)])
    connection.close("FINISHED")
    assert read_hparams(run) == {"lr": 0.1}


def test_rewind_to_end_of_file_creates_no_new_file(run: FakeRun) -> None:
    connection = connect(run)
    connection.write(log_rows(run, range(3)))
    connection.write([run.add(RunEnded, "KILLED")])
    connection.write([run.add(Rewound, 3, 0, 2)])
    connection.write(log_rows(run, range(3, 5)))
    assert read_scalars(run) == expected(run.history())
    assert len(find_event_files(run)) == 1


def test_event_file_names_sort_after_earlier_files(run: FakeRun) -> None:
    earlier = run.directory / "events.out.tfevents.9000000000.node.1.0"
    earlier.touch()
    connection = connect(run)
    connection.write(log_rows(run, range(3)))
    for step in range(3):
        connection.write([run.add(Rewound, 1, 0, 0)])
        connection.write(log_rows(run, range(1, 2 + step)))
    names = [path.name for path in find_event_files(run)]
    assert names[0] == earlier.name
    assert len(names) == 5
    assert find_event_files(run)[-1].stat().st_size
    assert read_scalars(run) == expected(run.history())


@pytest.mark.parametrize("kind", ["figure", "text"])
def test_repeated_step_keeps_last_effective_event(run: FakeRun, kind: str) -> None:
    connection = connect(run)
    for text in ["first", "second", "third"]:
        PIL.Image.new("L", (len(text), 1)).save(run.directory / f"{text}.png")
        run.add(Figure, "a", 1, f"{text}.png") if kind == "figure" else run.add(Text, "a", 1, text)
    run.add(Metrics, 1, {"b": 1.0})
    connection.write(run.events)
    connection.write([run.add(Rewound, 2, 0, 1)])
    connection.close("FINISHED")
    accumulator = read(run)
    if kind == "figure":
        assert [event.width for event in accumulator.Images("a")] == [len("second")]
    else:
        assert [event.tensor_proto.string_val[0] for event in accumulator.Tensors("a")] == [b"second"]
