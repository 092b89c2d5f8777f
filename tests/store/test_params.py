"""Flattening of parameters and texts of values without a JSON form."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import logging
import math
import os
import subprocess
import sys
import types
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import attrs
import msgspec
import numpy as np
import omegaconf
import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pte_tracking as pte
from pte_tracking._store import event_encoding, events
from pte_tracking._store.params import flatten_params

plain_params: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.text()) | st.sets(st.integers()),
    lambda inner: st.dictionaries(st.text(min_size=1), inner),
    max_leaves=8,
)


class Mode(enum.Enum):
    FAST = 1


class Level(str, enum.Enum):
    HIGH = "high"


class Size(NamedTuple):
    width: int
    height: int


@dataclasses.dataclass
class Optimizer:
    lr: float = 0.5
    extra: Any = None


@attrs.define
class Network:
    depth: int = 3
    extra: Any = None


class Data(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    path: str = "train.npz"
    token: str = pydantic.Field("hidden", exclude=True)
    password: pydantic.SecretStr = pydantic.SecretStr("hidden")
    extra: Any = None


class Options(msgspec.Struct):
    seed: int = 7


class Opaque:
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


class Unreadable:
    """Object whose attributes cannot be read."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __float__(self) -> float:
        return 1.0


class Keyed:
    """Object with the methods that ``dict()`` requires, which is not a mapping."""

    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, key: str) -> int:
        return 1


def outer() -> Any:
    def inner() -> None: ...

    return inner


@settings(max_examples=50)
@given(st.dictionaries(st.text(min_size=1), plain_params))
def test_flatten_any_params_become_encodable_values(params: dict[str, Any]) -> None:
    try:
        flat = flatten_params(params)
    except ValueError:  # joined names can collide
        return
    event = events.Params(1, 0.0, flat)
    assert event_encoding.decode(event_encoding.encode(event)) == event


def test_flatten_joins_nested_keys_and_keeps_other_values_as_text() -> None:
    params: dict[Any, Any] = {
        "optim": {"lr": np.float32(0.5), "betas": (0.9, 0.99)},
        "net": {},
        "none": None,
        3: True,
        Mode.FAST: 1,
        "x": math.nan,
    }
    assert flatten_params(params) == {
        "optim/lr": 0.5,
        "optim/betas": "(0.9, 0.99)",
        "net": "{}",
        "none": None,
        "3": True,
        "Mode.FAST": 1,
        "x": "nan",
    }


@pytest.mark.parametrize(
    ("params", "flat"),
    [
        (argparse.Namespace(lr=0.5, optimizer="sgd"), {"lr": 0.5, "optimizer": "sgd"}),
        (types.SimpleNamespace(lr=0.5), {"lr": 0.5}),
        (Optimizer(), {"lr": 0.5, "extra": None}),
        (Network(), {"depth": 3, "extra": None}),
        (Data(), {"path": "train.npz", "password": "**********", "extra": None}),
        (Options(), {"seed": 7}),
        (Size(2, 3), {"width": 2, "height": 3}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (Keyed(), {"a": 1}),
        ({}, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_flatten_accepts_configuration_objects(params: Any, flat: dict[str, Any]) -> None:
    assert flatten_params(params) == flat


def test_flatten_accepts_configuration_objects_within_each_other() -> None:
    config = omegaconf.OmegaConf.create({"size": [1, 2]})
    inner = Data(extra=Optimizer(extra=Network(extra=argparse.Namespace(config=config, size=Size(2, 3)))))
    assert flatten_params({"data": inner}) == {
        "data/path": "train.npz",
        "data/password": "**********",
        "data/extra/lr": 0.5,
        "data/extra/extra/depth": 3,
        "data/extra/extra/extra/config/size": "[1, 2]",
        "data/extra/extra/extra/size/width": 2,
        "data/extra/extra/extra/size/height": 3,
    }


def test_flatten_configuration_objects_in_a_list_become_dictionaries() -> None:
    assert flatten_params({"layers": [Size(1, 2), Options(), {"a": 1}]}) == {
        "layers": "[{'width': 1, 'height': 2}, {'seed': 7}, {'a': 1}]"
    }


def test_flatten_resolves_interpolations_and_keeps_missing_values() -> None:
    config = omegaconf.OmegaConf.create(
        {"a": 1, "b": "${a}", "c": {"d": "${..b}"}, "e": "???", "f": "${g}", "h": ["${a}", {"i": "${b}"}], "j": None}
    )
    assert flatten_params(config) == {
        "a": 1, "b": 1, "c/d": 1, "e": "???", "f": "${g}", "h": "[1, {'i': 1}]", "j": None,
    }  # fmt: skip


def test_flatten_nested_config_without_a_value_keeps_its_kind() -> None:
    config = {name: omegaconf.DictConfig(value) for name, value in (("a", None), ("b", "???"), ("c", "${d}"))}
    assert flatten_params(config) == {"a": None, "b": "???", "c": "${d}"}
    assert flatten_params({"a": [config["a"]]}) == {"a": "[None]"}


def test_flatten_accepts_structured_config_and_root_model() -> None:
    class Widths(pydantic.RootModel[list[int]]):
        pass

    config = omegaconf.OmegaConf.structured(Optimizer(extra={"mode": Mode.FAST}))
    assert flatten_params(config) == {"lr": 0.5, "extra/mode": "Mode.FAST"}
    assert flatten_params({"widths": Widths([1, 2])}) == {"widths": "[1, 2]"}


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        # No IDs from values: the addresses of objects in them would differ between processes.
        (torch.nn.functional.relu, "torch.nn.functional.relu"),
        (torch.relu, "torch.relu"),
        (np.tanh, "numpy.tanh" if hasattr(np.tanh, "__qualname__") else "<ufunc 'tanh'>"),
        (len, "len"),
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (float, "float"),
        (outer(), f"{__name__}.outer.<locals>.inner"),
        (lambda: None, f"{__name__}.<lambda>"),
        (functools.partial(len, {"b", "a"}, key=max), "functools.partial(len, {'a', 'b'}, key=max)"),
        ({"b", "a"}, "{'a', 'b'}"),
        (frozenset({(2, 1), (1, 2)}), "{(1, 2), (2, 1)}"),
        (set(), "set()"),
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "cpu"),
        (np.dtype("float32"), "float32"),
        (list[int], "list[int]"),
        (Literal["a", "b"], "typing.Literal['a', 'b']"),
        (collections.UserList([{"b", "a"}]), "[{'a', 'b'}]"),
        ({"k": {"b", "a"}}.values(), "[{'a', 'b'}]"),
        (np.float32, "numpy.float32"),
        (Mode.FAST, "Mode.FAST"),
        (Level.HIGH, "high"),
        (PurePosixPath("/data"), "/data"),
        ([PurePosixPath("/data")], "['/data']"),
        (math, "math"),
        (b"ab", "b'ab'"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (1j, "1j"),
        (np.complex64(1j), "1j"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (Opaque(), f"<{__name__}.Opaque object>"),
        ([Opaque()], f"[<{__name__}.Opaque object>]"),
        (Unprintable(), f"<{__name__}.Unprintable>"),
        (torch.empty((), device="meta"), "Tensor of shape () and type torch.float32"),
    ],
)
def test_flatten_value_without_json_form_becomes_stable_text(value: Any, scalar: str) -> None:
    assert flatten_params({"a": value}) == {"a": scalar}


def test_flatten_object_with_unreadable_attributes_becomes_its_type() -> None:
    assert flatten_params({"a": Unreadable()}) == {"a": f"<{__name__}.Unreadable>"}


@pytest.mark.parametrize(
    ("value", "scalar"),
    [
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.uint64(2**64 - 1), str(2**64 - 1)),
        (np.str_("a"), "a"),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (torch.tensor(2**62), 2**62),
        (np.arange(3), "[0, 1, 2]"),
        (torch.ones(1, 2), "[[1.0, 1.0]]"),
        ([np.float64(0.5), torch.tensor(1)], "[0.5, 1]"),
        (decimal.Decimal("0.5"), 0.5),
        (2**53 + 1, 2**53 + 1),
        (2**63, "9223372036854775808"),
        (-(2**70), "-1180591620717411303424"),
        (10**200, hex(10**200)),
        (math.inf, "inf"),
        (np.float64(-math.inf), "-inf"),
        ([math.nan, None], "[nan, None]"),
    ],
)
def test_flatten_number_keeps_its_value(value: Any, scalar: Any) -> None:
    result = flatten_params({"a": value})["a"]
    assert result == scalar
    assert type(result) is type(scalar)


SCRIPT = """
import json, sys
from pte_tracking._store.params import flatten_params
params = {
    "set": {"flip", "crop", "blur", None, 3},
    "nested": [{"a": frozenset("xyz")}],
    "object": object(),
    "method": json.JSONEncoder().encode,
    "lambda": lambda: None,
    "keys": {str(n): 0 for n in {"a", "b"}}.keys(),
    "large": {str(n) for n in range(5000)},
}
print(json.dumps(flatten_params(params)))
"""


def test_flatten_texts_are_equal_in_every_process() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
    assert json.loads(texts.pop())["set"] == "{'blur', 'crop', 'flip', 3, None}"


def test_flatten_object_that_contains_itself_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    mapping: dict[str, Any] = {"lr": 1}
    mapping["self"], mapping["list"] = mapping, [mapping]
    optimizer = Optimizer()
    optimizer.extra = optimizer
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        flat = flatten_params({"mapping": mapping, "optimizer": optimizer})
    assert flat["mapping/lr"] == 1
    assert flat["mapping/self"] == "{'lr': 1, 'self': ..., 'list': [...]}"
    assert flat["optimizer/lr"] == 0.5
    assert ["'mapping/self'" in message for message in caplog.messages] == [True, False, False]


@pytest.mark.parametrize(
    "value",
    [
        list(range(5000)),
        {str(number): number for number in range(5000)},
        "a" * 100_000,
        np.zeros((100, 100)),
        functools.reduce(lambda inner, _: [inner], range(500), [0]),
    ],
    ids=["list", "mapping", "text", "array", "depth"],
)
def test_flatten_enormous_value_is_shortened_with_warning(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        (text,) = flatten_params({"table": value}).values()
    assert len(str(text)) < 70_000
    assert len(caplog.messages) == 1
    assert "'table' is very large" in caplog.messages[0]


def test_flatten_deep_mapping_is_cut() -> None:
    deep = functools.reduce(lambda inner, _: {"a": inner}, range(2000), {"a": 1})
    assert len(flatten_params(deep)) == 1


def test_flatten_more_than_maximum_raises_value_error() -> None:
    tables = {str(table): {str(entry): 0 for entry in range(1000)} for table in range(11)}
    with pytest.raises(ValueError, match=r"params: expected at most 10000 parameters.*'10/0'"):
        flatten_params(tables)


def test_flatten_colliding_names_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"params: duplicate name 'a/b'"):
        flatten_params({"a": {"b": 1}, "a/b": 2})
    with pytest.raises(ValueError, match=r"params: duplicate name '1'"):
        flatten_params({1: 1, "1": 2})


def test_flatten_empty_name_raises_value_error_with_its_mapping() -> None:
    with pytest.raises(ValueError, match=r"params\['optim'\]: expected a non-empty string"):
        flatten_params({"optim": {"": 1}})


def test_flatten_object_whose_fields_fail_raises_type_error_with_its_name() -> None:
    class Failing:
        def keys(self) -> list[str]:
            raise RuntimeError("no keys")

        def __getitem__(self, key: str) -> int:
            return 1

    with pytest.raises(TypeError, match=r"params\['optim/x'\]: the fields of the Failing could not be read: no keys"):
        flatten_params({"optim": {"x": Failing()}})


@pytest.mark.parametrize("params", [[("lr", 1)], "lr", 1, None, Opaque(), Optimizer, torch.zeros(2)])
def test_flatten_params_without_fields_raise_type_error(params: Any) -> None:
    with pytest.raises(TypeError, match=r"params: expected a mapping, dataclass, .*, got .*vars\(config\)"):
        flatten_params(params)


def test_run_and_manager_accept_configuration_objects(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", params=Optimizer()) as run:
        run.log_params(argparse.Namespace(seed=3))
    with pte.ExtensionsManager({}, 1, out_dir=tmp_path / "manager", params=Network()) as manager:
        manager.start()
    journals = [(tmp_path / name / "journal.jsonl").read_text() for name in ("run", "manager")]
    assert '"lr":0.5' in journals[0]
    assert '"seed":3' in journals[0]
    assert '"depth":3' in journals[1]


@pytest.mark.parametrize("params", ["", [], 0, False])
def test_run_params_of_wrong_type_raise_even_if_empty(params: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="params: expected"):
        pte.Run(tmp_path, params=params)
