"""Encoding and decoding of events."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking._store import events
from pte_tracking._store.event_encoding import decode, encode
from pte_tracking._store.events import AnyEvent
from pte_tracking._store.model_event import ModelSignature, TensorSpec

texts = st.text()
keys = st.text(min_size=1)
integers = st.integers(-(2**63), 2**63 - 1)
numbers = st.one_of(st.floats(), integers)
finite = st.floats(allow_nan=False, allow_infinity=False)
parts = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(lambda part: part != "..")
paths = st.lists(parts, min_size=1).map("/".join)
tensors = st.lists(st.builds(TensorSpec, texts, texts, st.lists(integers)))

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "Number": numbers,
    "Number | None": st.none() | finite | integers,
    "Status": st.sampled_from(get_args(events.Status)),
    "bool": st.booleans(),
    "dict[str, Scalar]": st.dictionaries(keys, st.none() | st.booleans() | finite | integers | texts),
    "dict[str, StoredNumber]": st.dictionaries(keys, numbers),
    "dict[str, tuple[str, int | None]]": st.dictionaries(keys, st.tuples(texts, st.none() | integers)),
    "dict[str, str]": st.dictionaries(keys, texts),
    "float": finite,
    "float | None": st.none() | finite,
    "int": integers,
    "list[float]": st.lists(finite),
    "list[str] | None": st.none() | st.lists(texts),
    "ModelSignature": st.builds(ModelSignature, tensors, tensors, st.booleans()),
    "RelativePath": paths,
    "_RelativePath": paths,
    "dict[str, _RelativePath]": st.dictionaries(keys, paths),
    "Int64": integers,
    "_Int64": integers,
    "str": texts,
    "str | None": st.none() | texts,
}


def events_of(kind: type[AnyEvent]) -> st.SearchStrategy[AnyEvent]:
    fields = {name: FIELDS[annotation] for base in reversed(kind.__mro__) for name, annotation in annotated(base)}
    return st.builds(kind, **fields)


def annotated(kind: type) -> list[tuple[str, str]]:
    return [(name, text) for name, text in vars(kind).get("__annotations__", {}).items() if text in FIELDS]


def bits(value: Any) -> Any:
    """Return a form in which floats compare by their bits, and NaN equals NaN."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return (type(value), value)


@given(st.one_of([events_of(kind) for kind in get_args(AnyEvent)]))
def test_encode_decode_round_trips_event(event: AnyEvent) -> None:
    decoded = decode(encode(event).removesuffix(b"\n"))
    assert type(decoded) is type(event)
    assert bits(msgspec.structs.asdict(decoded)) == bits(msgspec.structs.asdict(event))


@given(st.one_of([events_of(kind) for kind in get_args(AnyEvent)]))
def test_encode_event_is_one_line_of_strict_json(event: AnyEvent) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"}\n")
    assert json.loads(line, parse_constant=refuse)["kind"] == type(event).__struct_config__.tag


@given(st.floats())
def test_encode_non_finite_number_becomes_string(value: float) -> None:
    written = json.loads(encode(events.Metrics(1, 0.0, 1, {"a": value, "null": 1})))["values"]["a"]
    assert written == value if math.isfinite(value) else written in ("NaN", "Infinity", "-Infinity")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"kind":"unknown","seq":1,"time":1}',
        b'{"kind":"metrics","seq":1,"time":1,"step":1}',
        b'{"kind":"metrics","seq":1,"time":1,"step":1,"values":{"a":"many"}}',
        b'{"kind":"metrics","seq":1,"time":1,"step":1,"values":{"a":[1]}}',
        b'{"kind":"text","seq":1,"time":1,"key":"a","step":1,"text":"\xff"}',
        b"\0\0\0\0",
    ],
)
def test_decode_invalid_line_raises(line: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        decode(line)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a\\u0000b"])
def test_decode_path_outside_run_directory_raises(path: str) -> None:
    for line in [
        '{"kind":"artifact","seq":1,"time":1,"path":"%s"}',
        '{"kind":"image","seq":1,"time":1,"key":"a","step":1,"path":"%s"}',
        '{"kind":"checkpoint_removed","seq":1,"time":1,"step":1,"path":"%s"}',
        '{"kind":"metrics","seq":1,"time":1,"step":1,"values":{},"log":"%s"}',
    ]:
        assert decode((line % "a/..b/c..").encode())
        with pytest.raises(msgspec.ValidationError, match="regex"):
            decode((line % path).encode())


def test_decode_unknown_field_is_ignored() -> None:
    event = decode(b'{"kind":"metrics","seq":1,"time":2.0,"step":3,"values":{"a":1.5},"colour":"blue"}')
    assert event == events.Metrics(1, 2.0, 3, {"a": 1.5})
