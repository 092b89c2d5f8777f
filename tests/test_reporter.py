"""Reported values and their means over an interval."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import pte_tracking as pte
from pte_tracking.reporter import DictSummary, Reporter, Summary, get_current_reporter, report, report_scope


class DistantTensor(Tensor):
    """Tensor that claims to be on CUDA, computes on the CPU, and counts how often the host waits for it."""

    synchronizations = 0
    operations = 0
    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> DistantTensor:
        wrapper: DistantTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, device="cuda:0", requires_grad=inner.requires_grad
        )
        wrapper.inner = inner
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.operations += not func.is_view
        kwargs = dict(kwargs or {})
        to_host = kwargs.get("device") == torch.device("cpu")
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if to_host or func is torch.ops.aten._local_scalar_dense.default:
            cls.synchronizations += 1
            return result
        return tree_map(lambda item: cls(item) if isinstance(item, Tensor) else item, result)


def make_distant(value: float, **options: Any) -> DistantTensor:
    """Return a number on that device."""
    return DistantTensor(torch.tensor(value, **options))


def _inner(item: Any) -> Any:
    return item.inner if isinstance(item, DistantTensor) else item


def observe(values: dict[str, Any]) -> dict[str, Any]:
    reporter = Reporter()
    reporter.report(values)
    return reporter.observation


@pytest.fixture(autouse=True)
def _count_from_zero() -> None:
    DistantTensor.synchronizations = DistantTensor.operations = 0


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (3, 3),
        (True, 1),
        (np.float32(0.5), 0.5),
        (np.int64(-7), -7),
        (np.bool_(True), 1),
        (np.float16(0.5), 0.5),
        (np.array(2.5), 2.5),
        (np.array([2.5]), 2.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(7), 7),
        (torch.tensor(True), 1),
        (nn.Parameter(torch.tensor(0.5)), 0.5),
    ],
)
def test_report_scalar_value_stores_plain_number(value: Any, number: float) -> None:
    result = observe({"x": value})["x"]
    assert result == number
    assert type(result) in (int, float)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint64, torch.bool),
    ],
)
@pytest.mark.parametrize("make", [lambda tensor: tensor, DistantTensor])
def test_report_tensor_of_any_dtype_is_averaged(dtype: torch.dtype, make: Callable[[Tensor], Tensor]) -> None:
    summary = DictSummary()
    summary.add(observe({"x": make(torch.tensor(1.0).to(dtype))}))
    assert summary.compute_mean() == {"x": 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_report_non_finite_value_is_kept(value: float) -> None:
    np.testing.assert_equal(observe({"x": torch.tensor(value)})["x"], value)


def test_report_tensor_changed_in_place_keeps_reported_value() -> None:
    loss = torch.tensor(1.0)
    observation = observe({"loss": loss})
    loss.add_(1)
    assert observation == {"loss": 1.0}


def test_report_tensor_does_not_keep_graph_alive() -> None:
    loss = torch.ones((), requires_grad=True) * 2
    reference = weakref.ref(loss)
    observation = observe({"loss": loss})
    del loss
    gc.collect()
    assert reference() is None
    assert observation == {"loss": 2.0}


@pytest.mark.parametrize("values", ["loss", [1.0], {"loss"}, 0.5])
def test_report_without_mapping_raises_type_error(values: Any) -> None:
    with (
        pytest.raises(TypeError, match=r"values: expected a mapping of keys to numbers, such as .* of type "),
        Reporter(),
    ):
        pte.report(values, 1)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({1: 0.5}, TypeError, r"expected a string, got 1 of type int"),
        ({"": 0.5}, ValueError, "empty"),
        ({"\ud800": 0.5}, ValueError, "surrogate"),
        ({"loss": torch.zeros(3)}, ValueError, r"'loss'.*shape \(3,\)"),
        ({"loss": torch.zeros(0)}, ValueError, r"'loss'.*shape \(0,\)"),
        ({"loss": np.zeros(2)}, ValueError, r"'loss'.*shape \(2,\)"),
        ({"loss": "0.5"}, TypeError, r"'loss'.*'0.5' of type str"),
        ({"loss": None}, TypeError, r"'loss'.*None"),
        ({"loss": torch.tensor(1j)}, TypeError, r"'loss'"),
    ],
)
def test_report_invalid_value_raises(values: dict[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        observe(values)


def test_report_meta_tensor_raises_type_error_with_its_key() -> None:
    with pytest.raises(TypeError, match=r"values\['x'\]: expected a real number, got .*meta"):
        observe({"x": torch.zeros((), device="meta")})


@pytest.mark.parametrize("value", [torch.zeros(3), torch.tensor(1j)])
def test_report_invalid_device_value_raises_same_error_as_host(value: torch.Tensor) -> None:
    with pytest.raises((TypeError, ValueError)) as host_result:
        observe({"loss": value})
    with pytest.raises(type(host_result.value), match="'loss'"):
        observe({"loss": DistantTensor(value)})


def test_report_unusual_string_keys_are_accepted() -> None:
    keys = ["train/loss", "µ 損失", "a b", "x" * 500, "😀"]
    assert list(observe(dict.fromkeys(keys, 1.0))) == keys


def test_report_without_reporter_is_ignored() -> None:
    report({"x": 1}, observer=object())


def test_nested_reporters_collect_separate_values() -> None:
    outer, inner = Reporter(), Reporter()
    with outer:
        with inner:
            assert get_current_reporter() is inner
            report({"x": 1})
        report({"y": 2})
    assert (outer.observation, inner.observation) == ({"y": 2}, {"x": 1})


def test_get_current_reporter_without_reporter_raises_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="No reporter is current"):
        get_current_reporter()
    with pytest.raises(RuntimeError, match="No reporter is current"):
        report_scope({})


def test_current_reporter_is_thread_local() -> None:
    reporter = Reporter()
    with reporter:
        thread = threading.Thread(target=report, args=({"x": 1},))
        thread.start()
        thread.join()
    assert reporter.observation == {}


def test_scope_exception_restores_previous_observation() -> None:
    reporter, inner = Reporter(), dict[str, Any]()
    before = reporter.observation
    with contextlib.suppress(KeyError), reporter.scope(inner):
        report({"x": 1})
        raise KeyError
    assert inner == {"x": 1}
    assert reporter.observation is before
    with pytest.raises(RuntimeError):
        get_current_reporter()


def test_report_scope_collects_into_given_dictionary() -> None:
    reporter, scoped = Reporter(), dict[str, Any]()
    with reporter:
        with report_scope(scoped):
            report({"x": 1})
        report({"y": 2})
    assert (scoped, reporter.observation) == ({"x": 1}, {"y": 2})


def test_report_with_observer_prefixes_keys() -> None:
    reporter, first_observer, second_observer = Reporter(), [], []
    reporter.add_observer("first_observer", first_observer)
    reporter.add_observers("more/", [("second_observer", second_observer)])
    reporter.report({"x": 1}, first_observer)
    reporter.report({"x": 2}, second_observer)
    assert reporter.observation == {"first_observer/x": 1, "more/second_observer/x": 2}


def test_report_unknown_observer_raises_key_error() -> None:
    with pytest.raises(KeyError, match="add_observer"):
        Reporter().report({"x": 1}, observer=[])


def test_manager_registers_models_and_submodules_as_observers(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    manager = pte.ExtensionsManager({"net": model}, 1, out_dir=tmp_path)
    manager.reporter.report({"x": 1}, model)
    manager.reporter.report({"x": 2}, model[0])
    assert manager.reporter.observation == {"net/x": 1, "net/0/x": 2}


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [float, int, np.float32, np.array, torch.tensor, make_distant, lambda x: lambda: x])
def test_report_weighted_value_counts_by_its_weight(make: Callable[[float], Any]) -> None:
    summary = DictSummary()
    for value, weight in [(1.0, 3), (5.0, torch.tensor(1.0)), (9.0, np.int64(0))]:
        summary.add(observe({"x": (make(value), weight)}))
    assert summary.compute_mean() == {"x": 2.0}


def test_report_weighted_value_is_a_plain_number_in_the_observation() -> None:
    observation = observe({"x": (torch.tensor(0.5), 10)})
    assert observation == {"x": 0.5}
    assert isinstance(observation["x"], float)
    assert repr(observation["x"]) == "0.5"
    assert type(observe({"copy": observation["x"]})["copy"]) is float


def test_report_weighted_value_reaches_means_of_a_plain_dictionary() -> None:
    summary = DictSummary()
    with Reporter():
        for value, weight in [(1.0, 1), (0.0, 3)]:
            observation: dict[str, Any] = {}
            with report_scope(observation):
                report({"x": (value, weight), "y": value})
            summary.add(observation)
    assert summary.compute_mean() == {"x": 0.25, "y": 0.5}


def test_report_value_without_weight_has_no_effect_even_if_nan() -> None:
    summary = DictSummary()
    summary.add(observe({"x": (math.nan, 0)}))
    assert math.isnan(summary.compute_mean()["x"])
    summary.add(observe({"x": (2.0, 3)}))
    assert summary.compute_mean() == {"x": 2.0}


@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        ((0.5, -1), ValueError, r"'x'.*weight of at least 0, got -1"),
        ((0.5, math.nan), ValueError, r"'x'.*finite weight.*got nan"),
        ((0.5, math.inf), ValueError, r"'x'.*finite weight.*got inf"),
        ((0.5, "3"), TypeError, r"'x'.*weight, got '3' of type str"),
        ((0.5, torch.ones(2)), TypeError, r"'x'.*weight"),
        (("a", 1), TypeError, r"'x'.*'a' of type str"),
        ((0.5,), TypeError, r"'x'.*pair \(value, weight\)"),
        ((0.5, 1, 2), TypeError, r"'x'.*pair \(value, weight\)"),
        (((0.5, 1), 2), TypeError, r"'x'.*pair \(value, weight\)"),
    ],
)
def test_report_invalid_weight_raises_with_the_key(pair: Any, error: type[Exception], message: str) -> None:
    for call in (observe, DictSummary().add):
        with pytest.raises(error, match=message):
            call({"x": pair})


# -- deferred values ---------------------------------------------------------------------------------------------------


def test_report_function_is_called_once_for_all_means() -> None:
    calls: list[int] = []
    observation = observe({"x": lambda: calls.append(1) or 3})  # type: ignore[func-returns-value]
    first, second = DictSummary(), DictSummary()
    for summary in (first, second):
        summary.add({"x": 1.0})
        summary.add(observation)
    assert not calls
    assert first.compute_mean() == second.compute_mean() == {"x": 2.0}
    assert observation["x"]() == float(observation["x"]) == 3
    assert calls == [1]


def test_report_function_is_called_for_a_state() -> None:
    summary, restored = DictSummary(), DictSummary()
    summary.add(observe({"x": (lambda: torch.tensor(2.0), 3)}))
    restored.load_state_dict(summary.state_dict())
    restored.add({"x": 6.0})
    assert restored.compute_mean() == {"x": 3.0}


@pytest.mark.parametrize("result", ["text", torch.zeros(2), ZeroDivisionError("by zero")])
def test_report_function_without_a_number_raises_with_the_key(result: Any) -> None:
    def compute() -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    summary = DictSummary()
    summary.add(observe({"x": compute, "y": 1.0}))
    with pytest.raises(RuntimeError, match=r"'x'.*function failed"):
        summary.compute_mean()
    assert summary.compute_mean()["y"] == 1.0


@pytest.mark.parametrize("value", [nn.Linear(1, 1), nn.Linear])
def test_report_callable_that_is_no_function_of_a_number_raises(value: Any) -> None:
    with pytest.raises(TypeError, match="'x'"):
        observe({"x": value})


# -- large values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [float, lambda value: make_distant(value, dtype=torch.float64)])
@pytest.mark.parametrize(
    ("values", "weights", "mean", "deviation"),
    [
        ([1e308, 1.5e308, 1.7e308], [1, 1, 1], 1.4e308, 2.943920288775949e307),
        ([-1.7e308, 1.7e308, -1e308, 1e308], [1, 1, 1, 1], 0.0, 1.3946325680981353e308),
        ([1.6e308, 1e308], [1, 2], 1.2e308, 2.8284271247461903e307),
        ([1.7976931348623157e308] * 3, [1, 1, 1], 1.7976931348623157e308, 0.0),
        ([1.5e308, 1.0], [2, 1], 1e308, 7.071067811865476e307),
        ([2e99, 4e99], [1, 1], 3e99, 1e99),
    ],
)
def test_dict_summary_large_values_have_finite_means(
    make: Callable[[float], Any], values: list[float], weights: list[float], mean: float, deviation: float
) -> None:
    summary, restored = DictSummary(), DictSummary()
    for value, weight in zip(values, weights, strict=True):
        summary.add(observe({"x": (make(value), weight)}))
    restored.load_state_dict(summary.state_dict())
    statistics = restored.make_statistics()
    assert statistics["x"] == pytest.approx(mean, rel=1e-12)
    assert statistics["x.std"] == pytest.approx(deviation, rel=1e-9, abs=1e301)


@pytest.mark.parametrize("make", [float, lambda value: make_distant(value, dtype=torch.float64)])
def test_dict_summary_infinity_among_large_values_is_kept(make: Callable[[float], Any]) -> None:
    summary = DictSummary()
    for value in (1e308, math.inf, 1e308):
        summary.add({"x": make(value), "y": make(-value), "z": make(math.nan)})
    means = summary.compute_mean()
    assert (means["x"], means["y"]) == (math.inf, -math.inf)
    assert math.isnan(means["z"])


# -- another device ----------------------------------------------------------------------------------------------------


def test_report_device_tensor_is_copied_without_synchronization() -> None:
    loss = make_distant(1.0, requires_grad=True)
    observation = observe({"loss": loss})
    loss.inner.detach().add_(1)
    assert DistantTensor.synchronizations == 0
    assert isinstance(observation["loss"], DistantTensor)
    assert not observation["loss"].requires_grad
    assert observation["loss"].inner.item() == 1.0


def test_dict_summary_device_values_synchronize_once_per_interval() -> None:
    reporter, summary = Reporter(), DictSummary()
    for iteration in range(100):
        reporter.report({"loss": make_distant(float(iteration)), "acc": make_distant([0.5]), "host": iteration})
        if iteration % 10 == 0:
            reporter.report({"rare": make_distant(iteration, dtype=torch.int64)})
        summary.add(reporter.observation)
        reporter.observation = {}
    assert DistantTensor.synchronizations == 0
    assert summary.compute_mean() == {"loss": 49.5, "acc": 0.5, "host": 49.5, "rare": 45.0}
    assert DistantTensor.synchronizations == 1


def test_dict_summary_device_operations_do_not_grow_with_key_count() -> None:
    def operations(keys: int) -> int:
        reporter, summary = Reporter(), DictSummary()
        reporter.report({str(key): make_distant(1.0) for key in range(keys)})
        summary.add(reporter.observation)  # creates the sums
        before = DistantTensor.operations
        summary.add(reporter.observation)
        return DistantTensor.operations - before

    assert operations(2) == operations(20)


def test_dict_summary_device_results_equal_host_results() -> None:
    host_result, device_result = DictSummary(), DictSummary()
    for value, weight in [(0.1, 1), (0.7, 2), (-3.3, 0.5)]:
        host_result.add({"x": (value, weight), "y": value})
        device_result.add(
            {"x": (make_distant(value, dtype=torch.float64), weight), "y": make_distant(value, dtype=torch.float64)}
        )
    assert device_result.make_statistics() == host_result.make_statistics()
    assert device_result.state_dict() == host_result.state_dict()


def test_dict_summary_device_half_precision_is_summed_in_double() -> None:
    summary = DictSummary()
    for _ in range(5000):  # in float16 the sum would stick at 2048
        summary.add({"x": make_distant(1.0, dtype=torch.float16)})
    assert summary.state_dict()["x"]["x"] == 5000.0


def test_dict_summary_device_and_host_values_share_one_key() -> None:
    summary = DictSummary()
    summary.add({"x": make_distant(1.0)})
    summary.add({"x": 3.0})
    assert summary.compute_mean() == {"x": 2.0}


# -- summaries ---------------------------------------------------------------------------------------------------------


def test_summary_numbers_give_mean_and_standard_deviation() -> None:
    summary = Summary()
    for value in (1, 2.0, torch.tensor(3.0)):
        summary.add(value)
    mean, std = summary.make_statistics()
    assert mean == summary.compute_mean() == 2.0
    assert std == pytest.approx(math.sqrt(2 / 3))


def test_summary_weighted_values_give_weighted_mean() -> None:
    summary = Summary()
    summary.add(1.0, 3)
    summary.add(5.0, 1)
    assert summary.compute_mean() == 2.0


def test_summary_empty_returns_nan() -> None:
    assert math.isnan(Summary().compute_mean())
    assert all(map(math.isnan, Summary().make_statistics()))


def test_dict_summary_nan_value_gives_nan() -> None:
    summary = DictSummary()
    summary.add({"x": 1.0})
    summary.add({"x": math.nan})
    assert all(map(math.isnan, summary.make_statistics().values()))


def test_summary_equal_values_have_zero_standard_deviation() -> None:
    summary = Summary()
    for _ in range(3):
        summary.add(0.1)
    assert summary.make_statistics()[1] == pytest.approx(0, abs=1e-8)


def test_dict_summary_averages_each_key_separately() -> None:
    summary = DictSummary()
    summary.add({"a": 3.0, "b": 1.0})
    summary.add({"a": 1.0, "b": 5.0, "c": np.float32(9.0)})
    summary.add({"b": torch.tensor(6.0)})
    assert summary.compute_mean() == {"a": 2.0, "b": 4.0, "c": 9.0}
    assert set(summary.make_statistics()) == {"a", "a.std", "b", "b.std", "c", "c.std"}


def test_dict_summary_weighted_values_give_weighted_means() -> None:
    summary = DictSummary()
    summary.add({"a": (1.0, 3), "b": (np.float64(1.0), torch.tensor(1.0))})
    summary.add({"a": (5.0, 1), "b": (2.0, np.array(3))})
    assert summary.compute_mean() == {"a": 2.0, "b": 1.75}


def test_dict_summary_invalid_value_raises_type_error() -> None:
    with pytest.raises(TypeError, match="'x'"):
        DictSummary().add({"x": "1"})


def test_dict_summary_integer_beyond_float_range_counts_as_infinity() -> None:
    summary = DictSummary()
    summary.add({"x": 10**400, "y": np.float64(0.5)})
    means = summary.compute_mean()
    assert means == {"x": math.inf, "y": 0.5}
    assert type(means["y"]) is float


def test_dict_summary_many_values_keep_precision() -> None:
    summary = DictSummary()
    for _ in range(100_000):
        summary.add({"x": torch.tensor(0.1, dtype=torch.float64)})
    assert summary.compute_mean()["x"] == pytest.approx(0.1, rel=1e-12)


def test_dict_summary_state_loaded_with_weights_only_continues() -> None:
    expected_summary, first, second = DictSummary(), DictSummary(), DictSummary()
    rows = [{"a/b": 0.1, "": 1}, {"a/b": 0.2}, {"a/b": torch.tensor(0.3), "c": 2}]
    for row in rows:
        expected_summary.add(row)
    for row in rows[:2]:
        first.add(row)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.add({"obsolete": 1.0})
    second.load_state_dict(torch.load(file, weights_only=True))
    second.add(rows[2])
    assert second.make_statistics() == expected_summary.make_statistics()
